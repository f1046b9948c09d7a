"""Guards around launches, and answers for calls that come again; on SQLite and on PostgreSQL."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

from constellation_docker.cards import CardStore
from constellation_docker.cards.answered_calls import AnsweredCalls
from constellation_docker.cards.launch_guards import LaunchGuards


def test_of_many_who_want_a_guard_one_gets_it(store: CardStore, url: str) -> None:
    with CardStore.open(url) as other, ThreadPoolExecutor(8) as pool:
        guards = [LaunchGuards(store.database), LaunchGuards(other.database)]
        taken = list(
            pool.map(
                lambda number: guards[number % 2].take(["packaging x@1"], holder=str(number), seconds=60),
                range(16),
            )
        )
    assert sorted(map(len, taken)) == [0] * 15 + [1]


def test_a_guard_is_free_again_when_it_is_given_up_by_its_holder(store: CardStore) -> None:
    guards = LaunchGuards(store.database)
    assert guards.take(["a", "b"], holder="one", seconds=60) == {"a", "b"}
    guards.give_up("a", holder="another")
    assert guards.take(["a", "b", "c"], holder="two", seconds=60) == {"c"}
    assert guards.until("a") is not None
    guards.give_up("a", holder="one")
    assert guards.until("a") is None
    assert guards.take(["a"], holder="two", seconds=60) == {"a"}
    assert guards.take(["a"], holder="two", seconds=60) == {"a"}
    assert guards.take([], holder="two", seconds=60) == set()


def test_a_guard_that_was_left_runs_out(url: str) -> None:
    now = datetime(2026, 1, 31, tzinfo=UTC)
    with CardStore.open(url, clock=lambda: now) as store:
        guards = LaunchGuards(store.database)
        assert guards.take(["a"], holder="one", seconds=10) == {"a"}
        now += timedelta(seconds=9)
        assert guards.take(["a"], holder="two", seconds=10) == set()
        now += timedelta(seconds=2)
        assert guards.take(["a"], holder="two", seconds=10) == {"a"}


def test_a_call_is_remembered_with_its_answer_for_as_long_as_asked(url: str) -> None:
    now = datetime(2026, 1, 31, tzinfo=UTC)
    day = timedelta(hours=24)
    with CardStore.open(url, clock=lambda: now) as store:
        calls = AnsweredCalls(store.database)
        assert calls.begin("ada", "k", "f", keep=day) is None
        begun = calls.begin("ada", "k", "g", keep=day)
        assert begun is not None and (begun.fingerprint, begun.answer) == ("f", None)
        assert calls.begin("bob", "k", "g", keep=day) is None
        calls.answer("ada", "k", 202, {"model_id": "one"})
        calls.forget("ada", "k")
        found = calls.begin("ada", "k", "f", keep=day)
        assert found is not None and (found.status, found.answer) == (202, {"model_id": "one"})
        calls.forget("bob", "k")
        assert calls.begin("bob", "k", "h", keep=day) is None
        now += day + timedelta(seconds=1)
        assert calls.begin("ada", "k", "other", keep=day) is None
