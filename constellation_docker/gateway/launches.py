"""Launching runs, each once: also for 200 calls at the same time, two gateways, or an answer that was lost.

Whoever launches takes the subject's guard in the store's database, looks whether there is such a run already,
and only then launches. A launch whose answer was lost may have been taken: the guard stays until that is decided,
and the next call finds the run. The sensors take the same guards.
"""

from __future__ import annotations

import logging
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from constellation_docker.cards.launch_guards import LaunchGuards
from constellation_docker.errors import ConstellationError
from constellation_docker.gateway.dagster_client import DagsterClient, DagsterUnavailable, Run, RunSelection
from constellation_docker.gateway.deadline import deadline, seconds_left

_log = logging.getLogger(__name__)

GUARDED_PER_ANSWER = 3.0
"""A guard lasts so many times as long as the webserver may take for one answer: half of it for all calls under the
guard, the other half for a webserver that goes on with a launch whose caller has given up."""

LAUNCHES_AT_ONCE = 4
"""More at once take the webserver as long in all, and each of them longer than a caller waits."""

FIRST_LOOK_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 0.5


class LaunchPending(ConstellationError):
    """Somebody else launches the same just now, and it is not known yet what became of it."""

    code = "launch_pending"
    is_transient = True


@dataclass(frozen=True)
class Launch:
    """A run that is to be there.

    Args:
        job: Its job.
        tags: Its tags.
        partition: Its partition.
        definition: The partitions definition and the key that must be in it: `("models", "acme/x")`.
        run_config: The configuration of the job's ops.
        search: Tags by which runs are found that may be the same.
        is_same: Whether a run that was found is for the same purpose.
        is_first: Nobody can have launched it: what it is for was made under the guard just now.
    """

    job: str
    tags: Mapping[str, str]
    search: Mapping[str, str]
    is_same: Callable[[Run], bool]
    partition: str | None = None
    definition: tuple[str, str] | None = None
    run_config: Mapping[str, Any] = field(default_factory=dict)
    is_first: bool = False


class Launches:
    """Launches for one gateway; safe to share between threads.

    Args:
        guards: The guards in the store's database.
        dagster: The client to launch with.
        answer_seconds: Longest for one answer of the webserver.
        deadline_seconds: Longest for one launch in all, waiting for others included.
        clock: The time, aware.
    """

    def __init__(
        self,
        guards: LaunchGuards,
        dagster: DagsterClient,
        *,
        answer_seconds: float,
        deadline_seconds: float,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._guards = guards
        self._dagster = dagster
        self._guard_seconds = answer_seconds * GUARDED_PER_ANSWER
        self._deadline_seconds = deadline_seconds
        self._clock = clock
        self._turns = threading.BoundedSemaphore(LAUNCHES_AT_ONCE)
        self._lock = threading.Lock()
        self._waiting: dict[str, tuple[threading.Lock, int]] = {}

    def start(
        self, subject: str, prepare: Callable[[], Launch | None], *, arrived: datetime | None = None
    ) -> str | None:
        """See to it that there is a run for a purpose, and return its id.

        Args:
            subject: What the guard is for: two launches of one subject never overlap.
            prepare: Writes what is wanted, under the guard, and says what is to be launched; None: nothing.
            arrived: When the call came. A run that ended badly after that answers this call, too; one that ended
                before is tried again.

        Raises:
            LaunchPending: Somebody else's launch is in doubt.
            DagsterUnavailable: No answer. The same call may be sent again.
            LaunchRefused: Dagster refused it.
        """
        came = arrived or self._clock()
        holder = uuid.uuid4().hex
        waited = _Waited()
        with deadline(self._deadline_seconds), self._alone_in_process(subject):
            while True:
                with self._turn():
                    if self._guards.take([subject], holder=holder, seconds=self._guard_seconds):
                        with deadline(self._guard_seconds / 2):
                            return self._start_under_guard(subject, holder, prepare, came)
                    # Whoever has the guard may have started the run already, and lost the answer.
                    if waited.seconds > FIRST_LOOK_SECONDS:
                        launch = prepare()
                        found = self._find(launch, came) if launch is not None else None
                        if launch is None or found is not None:
                            return found.run_id if found is not None else None
                waited.pause(seconds_left(self._deadline_seconds))

    def _start_under_guard(
        self, subject: str, holder: str, prepare: Callable[[], Launch | None], came: datetime
    ) -> str | None:
        is_decided = True
        try:
            launch = prepare()
            if launch is None:
                return None
            found = None if launch.is_first else self._find(launch, came)
            if found is not None:
                return found.run_id
            try:
                return self._launch(launch)
            except DagsterUnavailable as error:
                is_decided = not error.was_sent
                if error.was_sent and (found := self._find_if_possible(launch, came)) is not None:
                    is_decided = True
                    return found.run_id
                raise
        finally:
            if is_decided:
                self._guards.give_up(subject, holder=holder)
            else:
                _log.warning("The launch of %s is in doubt; its guard stays until it runs out.", subject)

    def _launch(self, launch: Launch) -> str:
        return self._dagster.launch(
            launch.job,
            partition=launch.partition,
            run_config=launch.run_config,
            tags=launch.tags,
            adding=launch.definition,
        )

    def _find(self, launch: Launch, came: datetime) -> Run | None:
        """A run for the same purpose that answers this call: one that works, or that ended after the call came."""
        (runs,) = self._dagster.several_runs([RunSelection(launch.search, limit=10)])
        for run in runs:
            has_ended_before = run.ended_at is not None and run.ended_at < came.timestamp()
            if launch.is_same(run) and not (run.has_ended and has_ended_before):
                return run
        return None

    def _find_if_possible(self, launch: Launch, came: datetime) -> Run | None:
        try:
            return self._find(launch, came)
        except DagsterUnavailable:
            return None

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """A few launches at a time; the others wait here, without a guard."""
        if not self._turns.acquire(timeout=seconds_left(self._deadline_seconds)):
            raise _pending("Too many launches wait for Dagster just now.")
        try:
            yield
        finally:
            self._turns.release()

    @contextmanager
    def _alone_in_process(self, subject: str) -> Iterator[None]:
        """Only one thread of a process asks the database for a subject's guard; the others wait here."""
        with self._lock:
            lock, waiting = self._waiting.get(subject, (threading.Lock(), 0))
            self._waiting[subject] = (lock, waiting + 1)
        try:
            if not lock.acquire(timeout=seconds_left(self._deadline_seconds)):
                raise _pending("Too many calls want the same just now.")
            try:
                yield
            finally:
                lock.release()
        finally:
            with self._lock:
                lock, waiting = self._waiting[subject]
                if waiting == 1:
                    del self._waiting[subject]
                else:
                    self._waiting[subject] = (lock, waiting - 1)


class _Waited:
    """How long somebody has waited, with pauses that grow."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._pause = 0.02

    def pause(self, left: float) -> None:
        """Wait a little longer than the last time.

        Raises:
            LaunchPending: There is no time left for it.
        """
        if left <= self._pause:
            raise _pending("The same is being launched just now, and it is not known yet what became of it.")
        length = self._pause * random.uniform(0.5, 1)  # noqa: S311 - so that waiters do not ask in step
        time.sleep(length)
        self.seconds += length
        self._pause = min(self._pause * 2, LONGEST_PAUSE_SECONDS)


def _pending(message: str) -> LaunchPending:
    return LaunchPending(message, remedy="Send the call again in a few seconds; it starts no second run.")
