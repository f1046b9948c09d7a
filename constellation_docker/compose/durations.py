"""Durations as Go prints them, which is how Compose writes and hashes them."""

from __future__ import annotations

_NANOSECONDS = 1_000_000_000


def go_duration(seconds: float) -> str:
    """A duration in Go's notation (`1m30s`, `500ms`, `0s`).

    Args:
        seconds: Not negative; rounded to microseconds.

    Source: https://pkg.go.dev/time#Duration.String
    """
    microseconds = round(seconds * 1_000_000)
    if microseconds == 0:
        return "0s"
    if microseconds < 1_000:
        return f"{microseconds}µs"
    if microseconds < 1_000_000:
        return f"{_decimal(microseconds, 1_000)}ms"
    minutes, rest = divmod(microseconds, 60 * 1_000_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{_decimal(rest, 1_000_000)}s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


def nanoseconds(seconds: float) -> int:
    """A duration as the Engine API wants it."""
    return round(seconds * _NANOSECONDS)


def _decimal(value: int, unit: int) -> str:
    whole, rest = divmod(value, unit)
    if not rest:
        return str(whole)
    digits = len(str(unit)) - 1
    return f"{whole}.{str(rest).rjust(digits, '0').rstrip('0')}"
