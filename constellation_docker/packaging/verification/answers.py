"""Whether an answer has the form of its task, and says what the card expects.

Forms: https://huggingface.co/docs/api-inference/detailed_parameters, as `huggingface_hub` reads them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any


def misfit_of(task: str | None, answer: Any) -> str | None:
    """What is wrong with the form of an answer, for its task; None where nothing is."""
    check = _CHECKS.get(task or "")
    if answer is None or answer in ("", [], {}):
        return None if task in _MAY_BE_EMPTY and answer is not None else "it is empty"
    return check(answer) if check else None


def label_mismatch(expected: Any, answer: Any) -> str | None:
    """How the best label differs from the one that the card expects; None where it does not, or neither has one."""
    wanted, given = top_label(expected), top_label(answer)
    if wanted is None or given is None or wanted == given:
        return None
    return f"the card expects {wanted!r} and the answer is {given!r}"


def top_label(answer: Any) -> str | None:
    """The best label of `[{label, score}]`, also nested or single; None where there is none."""
    if isinstance(answer, dict):
        answer = [answer]
    if isinstance(answer, list) and answer and isinstance(answer[0], list):
        answer = answer[0]
    if not isinstance(answer, list) or not answer:
        return None
    scored = [item for item in answer if isinstance(item, dict) and isinstance(item.get("label"), str)]
    if len(scored) != len(answer):
        return None
    return str(max(scored, key=lambda item: item.get("score") or 0.0)["label"])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _labels(answer: Any) -> str | None:
    if isinstance(answer, dict):
        # What the client makes of a handler's flat list, which is common and not ours to correct.
        answer = [answer]
    if not isinstance(answer, list):
        return "it is not a list of labels"
    for item in answer:
        if (
            not isinstance(item, dict)
            or not isinstance(item.get("label"), str)
            or not _is_number(item.get("score"))
        ):
            return f"{json.dumps(item)[:100]} is not a label with a finite score"
    return None


def _numbers(answer: Any) -> str | None:
    if _is_number(answer):
        return None
    if isinstance(answer, list) and answer:
        return next((problem for problem in map(_numbers, answer) if problem), None)
    return f"{json.dumps(answer)[:100]} is not a finite number"


def _records(*names: str) -> Callable[[Any], str | None]:
    def check(answer: Any) -> str | None:
        for item in answer if isinstance(answer, list) else [answer]:
            if not isinstance(item, dict) or any(item.get(name) is None for name in names):
                return f"{json.dumps(item)[:100]} has not got {', '.join(names)}"
        return None

    return check


def _text(answer: Any) -> str | None:
    if isinstance(answer, str) or (
        isinstance(answer, dict) and ("choices" in answer or "generated_text" in answer)
    ):
        return None
    return f"{json.dumps(answer)[:100]} is not a text"


_CHECKS: dict[str, Callable[[Any], str | None]] = {
    "audio-classification": _labels,
    "automatic-speech-recognition": _records("text"),
    "feature-extraction": _numbers,
    "fill-mask": _records("token_str", "score"),
    "image-classification": _labels,
    "object-detection": _records("label", "box"),
    "question-answering": _records("answer"),
    "sentence-similarity": _numbers,
    "summarization": _records("summary_text"),
    "tabular-regression": _numbers,
    "text-classification": _labels,
    "text-generation": _text,
    "token-classification": _records("word", "score"),
    "translation": _records("translation_text"),
    "zero-shot-classification": _labels,
}
# An image without objects and a text without names have empty answers that are right.
_MAY_BE_EMPTY = frozenset({"object-detection", "token-classification", "automatic-speech-recognition"})
