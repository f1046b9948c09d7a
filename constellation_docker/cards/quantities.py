"""Durations and sizes as the Compose specification writes them."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s|m|h)")
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:us|ms|s|m|h))+")
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_BYTES = re.compile(r"(\d+)(b|k|kb|m|mb|g|gb)", re.IGNORECASE)
_FACTORS = {"b": 1, "k": 1024, "m": 1024**2, "g": 1024**3}


def duration_seconds(text: str) -> float:
    """A Compose duration (`30s`, `1m30s`, `500ms`) in seconds.

    Source: https://github.com/compose-spec/compose-spec/blob/main/11-extension.md#specifying-durations

    Raises:
        ValueError: It is not one.
    """
    if not _DURATION.fullmatch(text):
        raise ValueError("must be a duration such as 30s, 1m30s or 500ms")
    return sum(float(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(text))


def byte_count(text: str) -> int:
    """A Compose byte value (`512m`, `2g`, `1048576b`) in bytes; units are powers of 1024.

    Source: https://github.com/compose-spec/compose-spec/blob/main/11-extension.md#specifying-byte-values

    Raises:
        ValueError: It is not one.
    """
    match = _BYTES.fullmatch(text)
    if not match:
        raise ValueError("must be a size with its unit, such as 512m or 2g")
    return int(match[1]) * _FACTORS[match[2][0].lower()]


def _checked_duration(text: str) -> str:
    duration_seconds(text)
    return text


def _checked_size(text: str) -> str:
    if byte_count(text) == 0:
        raise ValueError("must be more than zero")
    return text


Duration = Annotated[str, AfterValidator(_checked_duration)]
ByteSize = Annotated[str, AfterValidator(_checked_size)]
