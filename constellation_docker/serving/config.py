"""What the server is told: `/card/serving.json`, and `SERVING_*` variables that override its options."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

LongInput = Literal["truncate", "refuse"]

DEFAULT_CONFIG_PATH = "/card/serving.json"
MEBIBYTE = 1024 * 1024


class ConfigError(Exception):
    """The configuration cannot be used; the message names the key or variable, and what it takes."""


@dataclass(frozen=True, slots=True)
class Options:
    """How the server behaves. Each may be set in `serving.json` (`options`) or as `SERVING_<NAME>`."""

    host: str = "0.0.0.0"
    port: int = 8080
    max_body_bytes: int = 16 * MEBIBYTE
    """Largest request body; one byte more is answered 413 while it still arrives."""
    max_buffered_bytes: int = 128 * MEBIBYTE
    """Most bytes of all bodies held at once; a body that would pass it is answered 429."""
    max_header_bytes: int = 32 * 1024
    max_connections: int = 1024
    max_queue: int = 256
    """Most calls that wait; one more is answered 429."""
    max_batch_size: int = 32
    """Most rows in a batch; the model's own limit holds where it is lower."""
    max_batch_wait_ms: float = 0.0
    """Longest that an idle model waits for company. 0: never; batches form while the model is busy."""
    request_timeout_seconds: float = 60.0
    """From the request's last byte to the answer (for a stream: to its first piece)."""
    read_timeout_seconds: float = 20.0
    """Longest for the headers, and longest gap in a body before it is given up (408)."""
    body_timeout_seconds: float = 300.0
    """Longest for a whole body."""
    keep_alive_seconds: float = 75.0
    """Longest that an idle connection is kept."""
    grace_seconds: float = 30.0
    """From SIGTERM until unanswered requests are given up."""
    threads: int = 0
    """Computing threads. 0: the container's CPU limit."""
    long_input: LongInput = "truncate"
    """What happens to an input longer than the model reads: cut as the tokenizer says, or refused (422)."""
    log_payloads: bool = False
    log_probes: bool = False
    """Whether answers to /health, /live, /ready and /metrics get their lines in the log too."""


@dataclass(frozen=True, slots=True)
class Config:
    """One model and how to serve it. Keys of `serving.json` that are not named here are kept in `extra`."""

    model_name: str = "model"
    model_version: str = "0"
    model_id: str = ""
    revision: str = ""
    task: str | None = None
    runtime: str = "custom"
    model_path: Path = Path("/model")
    handler: str | None = None
    description: str = ""
    examples: tuple[dict[str, Any], ...] = ()
    """The card's examples: `{"inputs": …, "parameters"?: …, "name"?: …}`."""
    options: Options = field(default_factory=Options)
    extra: Mapping[str, Any] = field(default_factory=dict)


def read_config(environ: Mapping[str, str] = os.environ) -> Config:
    """Read the file that `CONSTELLATION_SERVING_CONFIG` names, else `/card/serving.json`.

    Raises:
        ConfigError: the file is missing or unreadable, or a value has the wrong type or range.
    """
    path = Path(environ.get("CONSTELLATION_SERVING_CONFIG") or DEFAULT_CONFIG_PATH)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise ConfigError(
            f"the configuration {path} cannot be read ({problem.strerror}); "
            "set CONSTELLATION_SERVING_CONFIG to a readable serving.json"
        ) from None
    except ValueError as problem:
        raise ConfigError(f"the configuration {path} is not JSON: {problem}") from None
    return resolve_config(document, environ)


def resolve_config(document: Any, environ: Mapping[str, str]) -> Config:
    """Check a parsed `serving.json` and put the `SERVING_*` variables over its options.

    Raises:
        ConfigError: a value has the wrong type or range.
    """
    if not isinstance(document, dict):
        raise ConfigError("serving.json must hold an object")
    known = {f.name for f in fields(Config)} - {"options", "extra", "examples", "model_path"}
    values: dict[str, Any] = {}
    for key in known:
        value = document.get(key)
        if value is None:
            continue
        if key == "revision" and isinstance(value, int):
            value = str(value)
        if not isinstance(value, str):
            raise ConfigError(f"serving.json: {key} must be a string, not {type(value).__name__}")
        values[key] = value
    examples = _or_default(document.get("examples"), [])
    if not isinstance(examples, list) or not all(isinstance(example, dict) for example in examples):
        raise ConfigError("serving.json: examples must be a list of objects")
    model_path = environ.get("SERVING_MODEL_PATH") or document.get("model_path") or "/model"
    options = _or_default(document.get("options"), {})
    if not isinstance(model_path, str) or not isinstance(options, dict):
        raise ConfigError("serving.json: model_path must be a string and options an object")
    return Config(
        **values,
        model_path=Path(model_path),
        examples=tuple(examples),
        options=_resolve_options(options, environ),
        extra={
            key: value
            for key, value in document.items()
            if key not in known | {"options", "examples", "model_path"}
        },
    )


def _or_default(value: Any, default: Any) -> Any:
    return default if value is None else value


def _resolve_options(given: Mapping[str, Any], environ: Mapping[str, str]) -> Options:
    values: dict[str, Any] = {}
    for option in fields(Options):
        assert option.default is not MISSING
        variable = f"SERVING_{option.name.upper()}"
        if environ.get(variable):
            values[option.name] = _convert(option.name, variable, environ[variable], option.default)
        elif given.get(option.name) is not None:
            values[option.name] = _convert(
                option.name, f"options.{option.name}", given[option.name], option.default
            )
    return Options(**values)


_ZERO_IS_A_CHOICE = frozenset({"port", "max_batch_wait_ms", "grace_seconds", "threads"})


def _convert(option: str, name: str, value: Any, default: Any) -> Any:
    """One option's value in its default's type; `name` is how the person who set it knows it."""
    if isinstance(default, bool):
        return _convert_bool(name, value)
    if isinstance(default, str):
        if not isinstance(value, str):
            raise ConfigError(f"{name} must be a string, not {value!r}")
        if option == "long_input" and value not in get_args(LongInput):
            raise ConfigError(f"{name} must be one of {', '.join(get_args(LongInput))}, not {value!r}")
        return value
    kind = type(default)
    try:
        number = kind(value)
        if isinstance(value, bool) or (not isinstance(value, str) and number != value):
            raise ValueError
    except (ValueError, TypeError, OverflowError):
        expected = "a whole number" if kind is int else "a number"
        raise ConfigError(f"{name} must be {expected}, not {value!r}") from None
    if not 0 <= number < float("inf") or (number == 0 and option not in _ZERO_IS_A_CHOICE):
        raise ConfigError(f"{name} is out of range: {value!r}")
    return number


def _convert_bool(name: str, value: Any) -> bool:
    text = str(value).lower()
    if text in ("1", "true", "yes", "on"):
        return True
    if text in ("0", "false", "no", "off"):
        return False
    raise ConfigError(f"{name} must be true or false, not {value!r}")
