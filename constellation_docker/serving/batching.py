"""The bounded queue in front of the model, and the choice of who runs together.

The one model thread takes from the queue itself: an idle model starts a lone call at once, and while it
computes, calls gather for the next batch. So nobody waits at low load, and at high load batches fill by
themselves. `max_batch_wait_ms` adds a wait only while several clients are seen to be active.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any

from .model import Call, Overloaded


@dataclass(slots=True, eq=False)
class Ticket:
    """One call on its way through the queue and the model.

    Attributes:
        deliver: Called in the event loop's thread with the answer or an exception; for a stream once
            a piece, and with `END` at last.
        is_abandoned: The client is gone or has been answered 504: do not start, and drop what comes.
    """

    call: Call
    key: Hashable
    request_id: str
    deliver: Callable[[Ticket, Any], None]
    enqueued_at: float = field(default_factory=time.perf_counter)
    started_at: float = 0.0
    finished_at: float = 0.0
    batch: int = 0
    is_abandoned: bool = False


def choose_batch(waiting: Iterable[Ticket], max_rows: int) -> list[Ticket]:
    """The oldest call, and after it, in order, those that may run with it while the rows last.

    Streams run alone. A call that is larger than `max_rows` by itself runs alone too.
    """
    batch: list[Ticket] = []
    rows = 0
    for ticket in waiting:
        if not batch:
            batch.append(ticket)
            rows = ticket.call.size
            if rows >= max_rows or ticket.call.is_streaming:
                break
        elif (
            rows + ticket.call.size <= max_rows
            and not ticket.call.is_streaming
            and ticket.key == batch[0].key
        ):
            batch.append(ticket)
            rows += ticket.call.size
            if rows >= max_rows:
                break
    return batch


class CallQueue:
    """Calls that wait, at most `max_queue`. Filled by the event loop, emptied by the model thread."""

    def __init__(self, *, max_queue: int, max_wait_seconds: float = 0.0) -> None:
        self.max_queue = max_queue
        self.max_rows = 1
        self.max_wait_seconds = max_wait_seconds
        self._waiting: deque[Ticket] = deque()
        self._changed = threading.Condition(threading.Lock())
        self._is_closed = False
        self._expected = 0
        self._seconds_a_call = 0.05

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, ticket: Ticket) -> None:
        """Put a call at the end.

        Raises:
            Overloaded: the queue is full; says when to come back.
        """
        self.refuse_when_full()
        with self._changed:
            self._waiting.append(ticket)
            self._changed.notify()

    def refuse_when_full(self) -> None:
        """Raise `Overloaded` when the queue holds as many calls as it may."""
        if len(self._waiting) >= self.max_queue:
            seconds = min(60, max(1, round(self._seconds_a_call * len(self._waiting))))
            raise Overloaded(
                f"the model is busy and its queue of {self.max_queue} is full; try again in {seconds} s",
                retry_after_seconds=seconds,
            )

    def abandon(self, ticket: Ticket) -> bool:
        """Give a call up. Returns whether it still waited, so that it will never run."""
        ticket.is_abandoned = True
        with self._changed:
            try:
                self._waiting.remove(ticket)
            except ValueError:
                return False
            return True

    def take(self) -> list[Ticket]:
        """Wait for calls and take the next batch; an empty list once the queue is closed and empty."""
        with self._changed:
            while not self._waiting:
                if self._is_closed:
                    return []
                self._changed.wait()
            if self.max_wait_seconds > 0 and self._expected > 1:
                self._gather()
            batch = choose_batch(self._waiting, self.max_rows)
            if len(batch) == len(self._waiting):
                self._waiting.clear()
            else:
                for ticket in batch:
                    self._waiting.remove(ticket)
            self._expected = len(batch) + len(self._waiting)
            return batch

    def _gather(self) -> None:
        """Wait for as many calls as were about last time, or for the longest wait of the oldest."""
        enough = min(self._expected, self.max_rows)
        while self._waiting and len(self._waiting) < enough and not self._is_closed:
            rest = self._waiting[0].enqueued_at + self.max_wait_seconds - time.perf_counter()
            if rest <= 0:
                break
            self._changed.wait(rest)
        while not self._waiting and not self._is_closed:
            self._changed.wait()

    def note_duration(self, seconds: float, calls: int) -> None:
        """Learn how long calls take, for `Retry-After`."""
        self._seconds_a_call += 0.1 * (seconds / calls - self._seconds_a_call)

    def close(self) -> None:
        """Let the model thread end once nothing waits."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
