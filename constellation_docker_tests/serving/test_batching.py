"""Who runs together is a pure choice; the queue around it never loses or doubles a call."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constellation_docker.serving.batching import CallQueue, Ticket, choose_batch
from constellation_docker.serving.model import Call, Overloaded


def ticket(name: str, key: str = "k", size: int = 1, *, is_streaming: bool = False) -> Ticket:
    return Ticket(Call(name, size=size, is_streaming=is_streaming), key, name, lambda *_: None)


def names(batch: list[Ticket]) -> str:
    return "".join(one.request_id for one in batch)


@pytest.mark.parametrize(
    ("waiting", "max_rows", "expected"),
    [
        ([], 4, ""),
        ([("a", "x", 1), ("b", "x", 1)], 4, "ab"),
        ([("a", "x", 1), ("b", "y", 1), ("c", "x", 1)], 4, "ac"),
        ([("a", "x", 3), ("b", "x", 2), ("c", "x", 1)], 4, "ac"),
        ([("a", "x", 9), ("b", "x", 1)], 4, "a"),
        ([("a", "x", 1), ("b", "x", 9), ("c", "x", 1)], 4, "ac"),
        ([("a", "x", 1), ("b", "x", 1)], 1, "a"),
    ],
)
def test_a_batch_is_the_oldest_call_and_those_that_fit(
    waiting: list[tuple[str, str, int]], max_rows: int, expected: str
) -> None:
    assert names(choose_batch([ticket(*one) for one in waiting], max_rows)) == expected


def test_streams_run_alone() -> None:
    stream, plain = ticket("s", is_streaming=True), ticket("p")
    assert names(choose_batch([stream, plain], 4)) == "s"
    assert names(choose_batch([plain, stream, ticket("q")], 4)) == "pq"


calls = st.lists(st.tuples(st.sampled_from("xyz"), st.integers(1, 6)), max_size=30)


@given(calls, st.integers(1, 8))
def test_every_call_runs_once_and_no_batch_is_too_large(
    specifications: list[tuple[str, int]], max_rows: int
) -> None:
    queue = CallQueue(max_queue=100)
    queue.max_rows = max_rows
    tickets = [ticket(str(number), key, size) for number, (key, size) in enumerate(specifications)]
    for one in tickets:
        queue.add(one)
    queue.close()
    ran: list[Ticket] = []
    while batch := queue.take():
        assert len({one.key for one in batch}) == 1
        assert len(batch) == 1 or sum(one.call.size for one in batch) <= max_rows
        waiting = [one for one in tickets if one not in ran]
        assert batch[0] is waiting[0], "the oldest call is never passed over"
        ran += batch
    assert sorted(ran, key=tickets.index) == tickets


def test_an_abandoned_call_never_runs() -> None:
    queue = CallQueue(max_queue=2)
    first, second = ticket("a"), ticket("b")
    queue.add(first)
    queue.add(second)
    assert queue.abandon(first)
    assert not queue.abandon(first)
    queue.add(ticket("c"))
    queue.max_rows = 8
    assert names(queue.take()) == "bc"


def test_a_full_queue_refuses_with_a_time_to_come_back() -> None:
    queue = CallQueue(max_queue=1)
    queue.add(ticket("a"))
    for _ in range(100):
        queue.note_duration(20.0, 1)
    with pytest.raises(Overloaded) as caught:
        queue.add(ticket("b"))
    assert caught.value.retry_after_seconds is not None
    assert 15 <= caught.value.retry_after_seconds <= 60


def test_closing_wakes_the_thread_that_waits() -> None:
    queue = CallQueue(max_queue=1)
    taken: list[Any] = []
    thread = threading.Thread(target=lambda: taken.append(queue.take()))
    thread.start()
    queue.close()
    thread.join(10)
    assert taken == [[]]
