"""Several threads and several processes on one store."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from threading import Barrier

from constellation_docker.cards import CardStore, LeaseHeld, SlugTaken
from constellation_docker_tests.cards.conftest import make_card, make_publication

THREADS = 20

OPEN_AND_ADD = """
import sys
from constellation_docker.cards import CardStore, ModelCard
card = ModelCard(model_name="acme/x", model_version=sys.argv[2], repo_url="hf://acme/x")
sys.stdin.readline()
with CardStore.open(sys.argv[1]) as store:
    print(store.add(card).key)
"""


def test_processes_that_open_a_new_store_at_once_all_find_it_ready(url: str) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN_AND_ADD, url, str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    outcomes = [process.communicate(timeout=120) for process in processes]
    assert [out.strip() for out, _ in outcomes] == [f"acme/x@{number}" for number in range(2)], outcomes
    with CardStore.open(url) as store:
        assert len(store.list_models()) == 2


def test_threads_that_open_a_new_store_at_once_all_find_it_ready(url: str) -> None:
    barrier = Barrier(8)

    def open_it(_: int) -> int:
        barrier.wait()
        with CardStore.open(url) as store:
            return len(store.list_models())

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(open_it, range(8))) == [0] * 8


def test_threads_that_register_the_same_card_get_the_same_row(store: CardStore) -> None:
    barrier = Barrier(THREADS)

    def add(_: int) -> tuple[str, int]:
        barrier.wait()
        row = store.add(make_card())
        return row.model_id, row.revision

    with ThreadPoolExecutor(THREADS) as pool:
        outcomes = set(pool.map(add, range(THREADS)))
    assert len(outcomes) == 1
    assert len(store.list_models()) == 1


def test_of_two_names_with_one_slug_one_wins_however_close_they_come(store: CardStore) -> None:
    names = ["acme/x.y", "acme/x-y", "acme/x_y", "Acme/X.Y"]
    barrier = Barrier(THREADS)

    def add(number: int) -> str | None:
        barrier.wait()
        try:
            return store.add(
                make_card(model_name=names[number % len(names)], model_version=str(number))
            ).card.model_name
        except SlugTaken:
            return None

    with ThreadPoolExecutor(THREADS) as pool:
        winners = {name for name in pool.map(add, range(THREADS)) if name}
    assert len(winners) == 1
    rows = store.list_models()
    assert len(rows) == THREADS // len(names)


def test_threads_that_want_the_same_make_one_revision(store: CardStore) -> None:
    row = store.add(make_card())
    store.publish(row.model_id, make_publication(row.model_id))
    barrier = Barrier(THREADS)

    def want(number: int) -> int:
        barrier.wait()
        return store.want("dev", row.card.model_name, model_id=row.model_id, replicas=1 + number % 2).revision

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(want, range(THREADS)))
    releases = store.releases("dev", row.card.model_name)
    assert [release.revision for release in releases] == list(range(len(releases), 0, -1))
    assert all(one.replicas != other.replicas for one, other in pairwise(releases))


def test_of_threads_that_want_a_lease_one_gets_it(store: CardStore) -> None:
    row = store.add(make_card())
    store.want("dev", row.card.model_name, model_id=row.model_id)
    barrier = Barrier(THREADS)

    def acquire(number: int) -> bool:
        barrier.wait()
        try:
            store.lease("dev", row.card.model_name, holder=f"run-{number}", seconds=60).acquire()
        except LeaseHeld:
            return False
        return True

    with ThreadPoolExecutor(THREADS) as pool:
        assert sum(pool.map(acquire, range(THREADS))) == 1
