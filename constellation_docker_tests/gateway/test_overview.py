"""A page of models is told the same statuses as each of them alone, however its runs are read."""

from __future__ import annotations

import uuid

import pytest

from constellation_docker import run_tags as tags
from constellation_docker.cards import CardStore
from constellation_docker.cards.rows import ModelRow
from constellation_docker.gateway import overview
from constellation_docker.gateway.overview import read_facts
from constellation_docker.gateway.statuses import Status, resolve_status
from constellation_docker_tests.cards.conftest import make_card, make_publication
from constellation_docker_tests.fixtures.gateway import QueuedDagster


def registered(store: CardStore, name: str, version: str = "1.0.0", *, is_published: bool = True) -> ModelRow:
    row = store.add(make_card(model_name=name, model_version=version))
    return store.publish(row.model_id, make_publication(row.model_id)) if is_published else row


def deploy(queued: QueuedDagster, store: CardStore, row: ModelRow) -> str:
    name = row.card.model_name
    wish = store.want("dev", name, model_id=row.model_id)
    return queued.client.deploy("dev", name, tags={tags.SERVICE_REVISION: str(wish.revision)})


def fill(queued: QueuedDagster, store: CardStore) -> dict[str, tuple[ModelRow, Status]]:
    """A model version of each kind that a page may hold, and its status."""
    prefix = uuid.uuid4().hex[:10]
    client = queued.client

    waits = registered(store, f"{prefix}/waits", is_published=False)
    client.package(waits.key)
    cancelled = registered(store, f"{prefix}/cancelled", is_published=False)
    client.terminate(client.package(cancelled.key, tags={tags.CARD_REVISION: "1"}))
    again = registered(store, f"{prefix}/again", is_published=False)
    client.terminate(client.package(again.key, tags={tags.CARD_REVISION: "1"}))
    client.package(again.key, tags={tags.CARD_REVISION: "1"})
    idle = registered(store, f"{prefix}/idle", is_published=False)
    deploying = registered(store, f"{prefix}/deploying")
    deploy(queued, store, deploying)
    stopped = registered(store, f"{prefix}/stopped")
    client.terminate(deploy(queued, store, stopped))
    wanted = registered(store, f"{prefix}/wanted")
    store.want("dev", wanted.card.model_name, model_id=wanted.model_id)
    packaged = registered(store, f"{prefix}/packaged")
    former = registered(store, f"{prefix}/back")
    deploy(queued, store, former)
    newer = registered(store, f"{prefix}/back", "2.0.0")
    client.terminate(deploy(queued, store, newer))
    deploy(queued, store, former)
    deleting = registered(store, f"{prefix}/deleting")
    config = {"ops": {"delete_model_op": {"config": {"model_id": deleting.model_id}}}}
    client.launch("delete_model", run_config=config, tags={tags.MODEL_ID: deleting.model_id})
    return {
        "waits": (waits, Status.PENDING),
        "cancelled": (cancelled, Status.FAILED),
        "again": (again, Status.PENDING),
        "idle": (idle, Status.PENDING),
        "deploying": (deploying, Status.DEPLOYING),
        "stopped": (stopped, Status.FAILED),
        "wanted": (wanted, Status.DEPLOYING),
        "packaged": (packaged, Status.PACKAGED),
        "former": (former, Status.DEPLOYING),
        "newer": (newer, Status.ROLLED_BACK),
        "deleting": (deleting, Status.DELETING),
    }


@pytest.mark.parametrize("most", [10_000, 2], ids=["all in progress are listed", "too many are in progress"])
def test_a_page_tells_each_model_what_it_tells_of_it_alone(
    queued: QueuedDagster, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(overview, "MOST_LISTED", most)
    monkeypatch.setattr(overview, "LISTED_PER_PARTITION", most)
    with CardStore.open(queued.settings.store_url) as store:
        known = fill(queued, store)
        rows = [row for row, _ in known.values()]
        page = [resolve_status(facts) for facts in read_facts(store, queued.client, rows)]
        assert dict(zip(known, (found.status for found in page), strict=True)) == {
            kind: status for kind, (_, status) in known.items()
        }
        for found, (kind, (row, _)) in zip(page, known.items(), strict=True):
            same_model = [other for other in rows if other.card.model_name == row.card.model_name]
            alone = read_facts(store, queued.client, same_model)[same_model.index(row)]
            assert found == resolve_status(alone), kind
