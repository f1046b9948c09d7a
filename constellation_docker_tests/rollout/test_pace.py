"""Waiting within a rollout."""

from __future__ import annotations

import pytest

from constellation_docker.errors import ConstellationError
from constellation_docker.rollout import BalancerUnavailable, RolloutCancelled, StepFailed
from constellation_docker.rollout.pace import Pace


class Time:
    """A clock that only moves when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class CountedLease:
    def __init__(self, problem: ConstellationError | None = None) -> None:
        self.renewals = 0
        self._problem = problem

    def renew(self) -> None:
        self.renewals += 1
        if self._problem:
            raise self._problem


class Passing(ConstellationError):
    is_transient = True


def test_a_rollout_that_takes_too_long_ends() -> None:
    time = Time()
    pace = Pace("The rollout of x", progress_deadline=10, clock=time.clock, sleep=time.sleep)
    pace.pause(9)
    with pytest.raises(StepFailed, match="longer than its progress deadline of 10 seconds"):
        pace.pause(2)
        pace.check()
    pace.patient().check()


def test_a_cancelled_rollout_ends() -> None:
    pace = Pace("The rollout of x", is_cancelled=lambda: True)
    with pytest.raises(RolloutCancelled):
        pace.pause()


def test_the_lease_is_renewed_while_waiting() -> None:
    time, lease = Time(), CountedLease()
    pace = Pace("x", lease=lease, clock=time.clock, sleep=time.sleep)
    for _ in range(60):
        pace.pause(0.5)
    assert 4 <= lease.renewals <= 6


def test_a_lost_lease_ends_the_rollout_but_a_store_that_is_away_does_not() -> None:
    time = Time()
    lost = Pace("x", lease=CountedLease(ConstellationError("lost")), clock=time.clock, sleep=time.sleep)
    away = Pace("x", lease=CountedLease(Passing("away")), clock=time.clock, sleep=time.sleep)
    time.sleep(20)
    away.check()
    with pytest.raises(ConstellationError, match="lost"):
        lost.check()
    assert lost.has_lost_lease and not away.has_lost_lease


def test_a_call_that_fails_for_a_passing_reason_is_made_again() -> None:
    time, calls = Time(), []

    def call() -> str:
        calls.append(1)
        if len(calls) < 3:
            raise BalancerUnavailable("away")
        return "there"

    assert Pace("x", clock=time.clock, sleep=time.sleep).endure(call) == "there"


def test_a_call_that_fails_for_good_is_not_made_again() -> None:
    calls = []

    def call() -> None:
        calls.append(1)
        raise StepFailed("no")

    with pytest.raises(StepFailed):
        Pace("x").endure(call)
    assert calls == [1]
