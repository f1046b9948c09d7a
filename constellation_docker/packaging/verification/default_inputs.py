"""What a model of a task is asked where its card has no examples."""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Callable
from typing import Any

SOUND_TASKS = frozenset({"audio-classification", "automatic-speech-recognition"})
PICTURE_TASKS = frozenset({"image-classification", "image-segmentation", "image-to-text", "object-detection"})
TEXT_TASKS = frozenset(
    {
        "feature-extraction",
        "summarization",
        "text-classification",
        "text-generation",
        "text2text-generation",
        "token-classification",
        "translation",
    }
)
SENTENCE = "The quick brown fox jumps over the lazy dog."


def default_inputs(
    task: str | None, read_file: Callable[[str], bytes | None]
) -> tuple[Any, dict[str, Any]] | None:
    """Inputs and parameters that every model of a task should answer; None where there are none.

    Args:
        task: The task.
        read_file: Gives the content of a file in the repository, or None.
    """
    if task == "fill-mask":
        mask = _mask_token(read_file)
        return (f"The quick brown fox {mask} over the lazy dog.", {}) if mask else None
    make = _MAKERS.get(task or "")
    return make() if make else None


def _mask_token(read_file: Callable[[str], bytes | None]) -> str | None:
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        try:
            token = json.loads(read_file(name) or b"{}").get("mask_token")
        except (ValueError, AttributeError):
            continue
        if token:
            return str(token["content"] if isinstance(token, dict) else token)
    return None


def picture() -> bytes:
    """A PNG of 32 × 32 grey pixels (https://www.w3.org/TR/png/)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\x00" + bytes([128, 96, 64] * 32) for _ in range(32))
    header = struct.pack(">IIBBBBB", 32, 32, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def sound() -> bytes:
    """A WAV of half a second of a 440 Hz tone at 16 kHz, mono, 16 bits."""
    samples = [int(8000 * math.sin(2 * math.pi * 440 * n / 16000)) for n in range(8000)]
    data = struct.pack(f"<{len(samples)}h", *samples)
    head = struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        b"RIFF",
        36 + len(data),
        b"WAVE",
        b"fmt ",
        16,
        1,
        1,
        16000,
        32000,
        2,
        16,
        b"data",
        len(data),
    )
    return head + data


_MAKERS: dict[str, Callable[[], tuple[Any, dict[str, Any]]]] = {
    **dict.fromkeys(TEXT_TASKS, lambda: (SENTENCE, {})),
    **dict.fromkeys(PICTURE_TASKS, lambda: (picture(), {})),
    **dict.fromkeys(SOUND_TASKS, lambda: (sound(), {})),
    "question-answering": lambda: ({"question": "What jumps?", "context": SENTENCE}, {}),
    "sentence-similarity": lambda: (
        {"source_sentence": SENTENCE, "sentences": ["A fox jumps.", "It rains today."]},
        {},
    ),
    "zero-shot-classification": lambda: (SENTENCE, {"candidate_labels": ["animals", "politics"]}),
}
