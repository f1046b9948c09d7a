"""Asks a model its example questions through the real `huggingface_hub.InferenceClient`.

Run as a program of its own, with an environment that has neither tokens nor proxies in it: the client sends
the ambient HF_TOKEN to any address, and a proxy would take requests for 127.0.0.1 away. What comes back is
from a model that nobody trusts yet, so it is parsed here and not in the process that packages.

    python -P client_program.py < {"url": …, "timeout": …, "calls": [{"task": …, "inputs": …, …}]}

One line of JSON is written for each call as it ends: {"answer": …} or {"error": …}, and {"seconds": …}.
"""

from __future__ import annotations

import base64
import dataclasses
import inspect
import json
import sys
import time
from collections.abc import Callable
from typing import Any

from huggingface_hub import InferenceClient, get_session

DUMMY_TOKEN = "verification"  # noqa: S105 - the point of it is that it is none

_NAMED_INPUTS = {
    "question-answering": ("question", "context"),
    "table-question-answering": ("table", "query"),
    "sentence-similarity": ("source_sentence", "sentences"),
    "document-question-answering": ("image", "question"),
    "visual-question-answering": ("image", "question"),
}
_METHODS = {
    "feature-extraction": "feature_extraction",
    "text2text-generation": "text_generation",
    "image-feature-extraction": "feature_extraction",
}
_SINGLE_INPUT = {
    "audio-classification",
    "automatic-speech-recognition",
    "feature-extraction",
    "fill-mask",
    "image-classification",
    "image-segmentation",
    "image-to-text",
    "object-detection",
    "summarization",
    "tabular-classification",
    "tabular-regression",
    "text-classification",
    "text-generation",
    "token-classification",
    "translation",
    "zero-shot-classification",
    "zero-shot-image-classification",
}


def choose_call(
    client: InferenceClient, task: str | None, inputs: Any, parameters: dict[str, Any]
) -> Callable[[], Any]:
    """The client's own method for a task; a plain request where it has none that takes these arguments."""
    if isinstance(inputs, dict) and set(inputs) == {"messages"}:
        return lambda: client.chat_completion(inputs["messages"], **parameters)
    arguments: list[Any] | None = None
    if task in _NAMED_INPUTS and isinstance(inputs, dict) and set(_NAMED_INPUTS[task]) <= set(inputs):
        arguments = [inputs[name] for name in _NAMED_INPUTS[task]]
    elif task in _SINGLE_INPUT:
        arguments = [inputs]
    if task is not None and arguments is not None:
        method = getattr(client, _METHODS.get(task, task.replace("-", "_")))
        try:
            inspect.signature(method).bind(*arguments, **parameters)
        except TypeError:
            pass
        else:
            return lambda: method(*arguments, **parameters)
    return lambda: _post(client, inputs, parameters)


def _post(client: InferenceClient, inputs: Any, parameters: dict[str, Any]) -> Any:
    address = str(client.model)
    headers = {"authorization": f"Bearer {DUMMY_TOKEN}"}
    if isinstance(inputs, bytes):
        response = get_session().post(address, content=inputs, headers=headers, timeout=client.timeout)
    else:
        body = {"inputs": inputs, **({"parameters": parameters} if parameters else {})}
        response = get_session().post(address, json=body, headers=headers, timeout=client.timeout)
    response.raise_for_status()
    kind = response.headers.get("content-type", "")
    return response.json() if "json" in kind else response.content


def _plain(answer: Any) -> Any:
    """An answer as JSON: the client's dataclasses, numpy arrays and bytes made plain."""
    if dataclasses.is_dataclass(answer) and not isinstance(answer, type):
        return {
            name: _plain(value) for name, value in dataclasses.asdict(answer).items() if value is not None
        }
    if hasattr(answer, "tolist"):
        return answer.tolist()
    if isinstance(answer, bytes):
        return {"bytes": len(answer)}
    if isinstance(answer, dict):
        return {str(name): _plain(value) for name, value in answer.items()}
    if isinstance(answer, list | tuple):
        return [_plain(value) for value in answer]
    return answer


def _decoded(value: Any) -> Any:
    if isinstance(value, dict) and set(value) == {"base64"}:
        return base64.b64decode(value["base64"])
    if isinstance(value, dict):
        return {name: _decoded(inner) for name, inner in value.items()}
    return value


def main() -> None:
    """Ask every question, one line of answer each."""
    asked = json.load(sys.stdin)
    client = InferenceClient(model=asked["url"], token=DUMMY_TOKEN, timeout=asked["timeout"])
    for question in asked["calls"]:
        call = choose_call(client, question["task"], _decoded(question["inputs"]), question["parameters"])
        started = time.monotonic()
        told: dict[str, Any]
        try:
            told = {"answer": _plain(call())}
        except Exception as error:  # noqa: BLE001 - whatever the client makes of an answer is the finding
            response = getattr(error, "response", None)
            said = str(getattr(response, "text", "") or "")[:2000]
            words = f"{type(error).__name__}: {str(error).strip()}"
            told = {"error": words[:2000], "status": getattr(response, "status_code", None), "said": said}
        told["seconds"] = round(time.monotonic() - started, 4)
        sys.stdout.write(json.dumps(told, allow_nan=True) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
