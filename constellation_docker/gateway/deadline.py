"""How long a call may take in all: every wait inside it takes what is left, however many there are."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_until: ContextVar[float | None] = ContextVar("deadline", default=None)


@contextmanager
def deadline(seconds: float, clock: Callable[[], float] = time.monotonic) -> Iterator[None]:
    """Within the block `seconds_left` counts down from here. An earlier deadline around it stays.

    Args:
        seconds: How long the block may take.
        clock: Seconds that never go back.
    """
    before = _until.get()
    own = clock() + seconds
    token = _until.set(own if before is None else min(own, before))
    try:
        yield
    finally:
        _until.reset(token)


def seconds_left(at_most: float, clock: Callable[[], float] = time.monotonic) -> float:
    """How long the next wait may take: what is left of the deadline, and never more than `at_most`."""
    until = _until.get()
    return at_most if until is None else min(at_most, max(0.0, until - clock()))
