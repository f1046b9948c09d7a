"""Waiting within a rollout: deadlines, the lease, cancellation. Time is injected."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_exponential

from constellation_docker.errors import ConstellationError
from constellation_docker.rollout.errors import RolloutCancelled, StepFailed

POLL_SECONDS = 0.25
# How long a call is tried again while the engine or the balancer is away, as after a restart of either.
PASSING_SECONDS = 30.0
_RENEW_SECONDS = 5.0

T = TypeVar("T")


class Lease(Protocol):
    """The sole right to work on a service, such as `CardStore.lease(...)`, already taken."""

    def renew(self) -> object:
        """Extend it from now on; raises where somebody else has taken it."""


def never() -> bool:
    """Nobody cancels."""
    return False


class Pace:
    """Waits for a rollout, and meanwhile keeps its lease and notices what should end it.

    Args:
        what: The rollout, for messages.
        progress_deadline: Longest for all of it, in seconds from now; None: no limit.
        lease: Kept alive while waiting.
        is_cancelled: Asked at every step and several times a second.
        clock: Seconds that only grow.
        sleep: Waits so many seconds.
    """

    def __init__(
        self,
        what: str,
        *,
        progress_deadline: float | None = None,
        lease: Lease | None = None,
        is_cancelled: Callable[[], bool] = never,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.what = what
        self.clock = clock
        self.sleep = sleep
        self._lease = lease
        self._is_cancelled = is_cancelled
        self._limit = progress_deadline
        self._end = None if progress_deadline is None else clock() + progress_deadline
        self._renewed = clock()
        self.has_lost_lease = False

    def patient(self) -> Pace:
        """The same without deadline and cancellation: for putting back what was."""
        return Pace(self.what, lease=self._lease, clock=self.clock, sleep=self.sleep)

    def check(self) -> None:
        """Notice cancellation and the deadline, and keep the lease.

        Raises:
            RolloutCancelled: Whoever asked for the rollout cancelled it.
            StepFailed: All of it takes too long.
        """
        if self._is_cancelled():
            raise RolloutCancelled(f"{self.what} was cancelled.", remedy="Launch it again when it is wanted.")
        now = self.clock()
        if self._end is not None and now > self._end:
            raise StepFailed(
                f"{self.what} took longer than its progress deadline of {self._limit:g} seconds.",
                remedy="Raise deploy.progress_deadline in the card if it needs more time.",
            )
        if self._lease is not None and now - self._renewed >= _RENEW_SECONDS:
            self._renew(now)

    def endure(self, call: Callable[[], T]) -> T:
        """Make a call again while it fails for reasons that pass, for a while."""
        return Retrying(
            retry=retry_if_exception(_is_passing),
            stop=stop_after_delay(PASSING_SECONDS),
            wait=wait_exponential(0.2, max=3),
            sleep=self.sleep,
            reraise=True,
        )(call)

    def pause(self, seconds: float = POLL_SECONDS) -> None:
        """Wait a moment."""
        self.check()
        self.sleep(seconds)

    def _renew(self, now: float) -> None:
        if self._lease is None:
            return
        try:
            self._lease.renew()
        except ConstellationError as error:
            # A store that is away for a moment does not end a rollout; another holder does.
            if not error.is_transient:
                self.has_lost_lease = True
                raise
        self._renewed = now


def _is_passing(error: BaseException) -> bool:
    return isinstance(error, ConstellationError) and error.is_transient
