"""JSON that every store can hold, and its digest."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

MAX_VALUES = 50_000
MAX_DEPTH = 40
MAX_TEXT_CHARACTERS = 1_000_000


def checked_json(value: Any) -> Any:
    """A plain copy of a value that JSON, SQLite and PostgreSQL can all hold without loss.

    Tuples become lists and keys become text. YAML aliases are written out, within the limits.

    Args:
        value: What a YAML or JSON reader gave.

    Raises:
        ValueError: It holds a NUL or an unpaired surrogate, a number that JSON lacks, something that is not
            JSON, or is too large or nested too deeply. The message says which, and where.
    """
    remaining = [MAX_VALUES, MAX_TEXT_CHARACTERS]

    def copy(item: Any, where: str, depth: int) -> Any:
        remaining[0] -= 1
        if remaining[0] < 0:
            raise ValueError(f"it holds more than {MAX_VALUES} values")
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested more than {MAX_DEPTH} levels deep")
        if isinstance(item, str):
            remaining[1] -= len(item)
            if remaining[1] < 0:
                raise ValueError(f"it holds more than {MAX_TEXT_CHARACTERS} characters")
            return checked_text(item, where)
        if item is None or isinstance(item, bool | int):
            return item
        if isinstance(item, float):
            if not math.isfinite(item):
                raise ValueError(f"{where or 'it'} is {item}, which JSON has no way to write")
            return item
        if isinstance(item, Mapping):
            copied: dict[str, Any] = {}
            for key, inner in item.items():
                name = checked_text(_key_text(key), where)
                if name in copied:
                    raise ValueError(f"the key {name!r} is given twice")
                copied[name] = copy(inner, f"{where}.{name}" if where else name, depth + 1)
            return copied
        if isinstance(item, list | tuple):
            return [copy(inner, f"{where}[{index}]", depth + 1) for index, inner in enumerate(item)]
        raise ValueError(f"{where or 'it'} is a {type(item).__name__}, which JSON has no way to write")

    return copy(value, "", 0)


def checked_text(text: str, where: str = "") -> str:
    """The text itself, if every store can hold it.

    Raises:
        ValueError: It holds a NUL character or an unpaired surrogate.
    """
    if "\x00" in text:
        raise ValueError(f"{where or 'it'} holds a NUL character")
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError(f"{where or 'it'} holds an unpaired surrogate (not valid Unicode)") from None
    return text


def _key_text(key: Any) -> str:
    if isinstance(key, str):
        return key
    if key is None or isinstance(key, bool | int | float):
        return json.dumps(key)
    raise ValueError(f"a {type(key).__name__} is used as a key")


def canonical_json(value: Any) -> str:
    """Compact JSON with sorted keys: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_of(value: Any) -> str:
    """`sha256:…` over the canonical JSON of a value."""
    return "sha256:" + hashlib.sha256(canonical_json(value).encode("utf-8")).hexdigest()
