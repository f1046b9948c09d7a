"""The card's example requests, asked through the real Hugging Face client."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from constellation_docker.cards import ModelCard, WidgetExample
from constellation_docker.packaging.verification.default_inputs import default_inputs

CLIENT_PATH = Path(__file__).with_name("client_program.py")
_SCRUBBED = ("TOKEN", "PROXY", "API_KEY", "PASSWORD", "SECRET")


@dataclass(frozen=True)
class Example:
    """One example request.

    Attributes:
        task: The task, or None where only the model knows.
        inputs: What is asked: JSON values, or bytes.
        parameters: Parameters of the request.
        expected: What the card says that comes back, or None.
        name: What people call it.
    """

    task: str | None
    inputs: Any
    parameters: Mapping[str, Any]
    expected: Any = None
    name: str = ""

    @property
    def sent(self) -> str:
        """The request as text for people."""
        shown: dict[str, Any] = {"inputs": _shown(self.inputs)}
        if self.parameters:
            shown["parameters"] = dict(self.parameters)
        return json.dumps(shown, ensure_ascii=False)

    def wire_body(self) -> tuple[bytes, str]:
        """The request's body as the Hugging Face client sends it, and its content type."""
        if isinstance(self.inputs, bytes):
            return self.inputs, "application/octet-stream"
        if self.task in {"tabular-classification", "tabular-regression"}:
            body: dict[str, Any] = {"parameters": {}, "table": self.inputs}
        else:
            body = {
                "inputs": self.inputs,
                **({"parameters": dict(self.parameters)} if self.parameters else {}),
            }
        return json.dumps(body).encode(), "application/json"


@dataclass(frozen=True)
class ExampleAnswer:
    """What came back for one example: the client's own reading of it, or its complaint."""

    example: Example
    answer: Any
    error: str
    status: int | None
    seconds: float

    @property
    def received(self) -> str:
        """The answer as text for people."""
        return self.error or json.dumps(self.answer, ensure_ascii=False)


def plan_examples(
    card: ModelCard, task: str | None, *, most: int, read_file: Callable[[str], bytes | None]
) -> tuple[Example, ...]:
    """The requests to try: the card's, or else one that every model of the task should answer.

    Args:
        card: Its `widget` entries.
        task: The image's task.
        most: Most requests.
        read_file: Gives the content of a file in the repository, or None. Examples whose file lies elsewhere
            are replaced by a default, as nothing is fetched.

    Returns:
        Possibly nothing, where the card has no examples and the task no default.
    """
    examples = []
    for number, entry in enumerate(card.widget[:most], start=1):
        inputs = _inputs_of(entry, task, read_file)
        if inputs is not None:
            name = entry.name or f"example {number}"
            examples.append(Example(task, inputs, entry.parameters, entry.output, name))
    default = None if examples else default_inputs(task, read_file)
    if default is not None:
        examples.append(Example(task, *default, name="default for the task"))
    return tuple(examples)


def ask_examples(
    address: str, examples: Sequence[Example], *, timeout_seconds: float, seconds_in_all: float
) -> list[ExampleAnswer]:
    """Ask every example through `huggingface_hub.InferenceClient`, in a process without tokens and proxies.

    Args:
        address: Where the model answers.
        examples: What to ask.
        timeout_seconds: Longest for one answer.
        seconds_in_all: Longest for all of them.
    """
    asked = {
        "url": address,
        "timeout": timeout_seconds,
        "calls": [
            {"task": example.task, "inputs": _encoded(example.inputs), "parameters": dict(example.parameters)}
            for example in examples
        ],
    }
    try:
        finished = subprocess.run(
            [sys.executable, "-P", str(CLIENT_PATH)],
            input=json.dumps(asked),
            env=scrubbed(os.environ),
            capture_output=True,
            check=False,
            text=True,
            timeout=seconds_in_all,
        )
        written, complaint = finished.stdout, finished.stderr
    except subprocess.TimeoutExpired as error:
        written = error.stdout.decode() if isinstance(error.stdout, bytes) else (error.stdout or "")
        complaint = f"no answer within {seconds_in_all:g} s"
    told = [json.loads(line) for line in written.splitlines()]
    missing = {"error": complaint.strip()[-500:] or "the client ended without a word", "seconds": 0.0}
    return [
        ExampleAnswer(
            example,
            line.get("answer"),
            _complaint(line),
            line.get("status"),
            float(line["seconds"]),
        )
        for example, line in zip(examples, [*told, *[missing] * (len(examples) - len(told))], strict=True)
    ]


def scrubbed(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without anything that looks like a secret or leads elsewhere."""
    kept = {
        name: value
        for name, value in environment.items()
        if not any(word in name.upper() for word in _SCRUBBED) and not name.upper().startswith("HF_")
    }
    # Where a token was saved by `hf auth login`, it lies under HF_HOME.
    return {**kept, "HF_HOME": os.devnull, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "1"}


def _complaint(line: Mapping[str, Any]) -> str:
    if "error" not in line:
        return ""
    said = str(line.get("said") or "")
    return f"{line['error']} {said}".strip() if said and said not in line["error"] else str(line["error"])


def _inputs_of(entry: WidgetExample, task: str | None, read_file: Callable[[str], bytes | None]) -> Any:
    if entry.src is None:
        return entry.inputs
    content = None if "://" in entry.src else read_file(entry.src)
    if content is None:
        return None
    if isinstance(entry.inputs, str) and task in {"document-question-answering", "visual-question-answering"}:
        return {"image": content, "question": entry.inputs}
    return content


def _encoded(inputs: Any) -> Any:
    if isinstance(inputs, bytes):
        return {"base64": base64.b64encode(inputs).decode()}
    if isinstance(inputs, dict):
        return {name: _encoded(value) for name, value in inputs.items()}
    return inputs


def _shown(inputs: Any) -> Any:
    if isinstance(inputs, bytes):
        return f"({len(inputs)} bytes)"
    if isinstance(inputs, dict):
        return {name: _shown(value) for name, value in inputs.items()}
    return inputs
