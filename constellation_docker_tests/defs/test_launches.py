"""Which runs sensors and schedules request: the rules of `defs/launches.py`, as a table of incidents."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import dagster as dg
import pytest

from constellation_docker.cards import CardStore, DeploymentRow, ModelCard, ModelRow, Publication
from constellation_docker.defs import tags
from constellation_docker.defs.launches import (
    PastRun,
    plan_deployments,
    plan_packaging,
    plan_repackaging,
)

Status = dg.DagsterRunStatus


@pytest.fixture
def store(tmp_path: Path) -> Iterator[CardStore]:
    with CardStore.open(f"sqlite:///{tmp_path}/cards.db") as opened:
        yield opened


def card(name: str = "sentiment", version: str = "1", description: str = "") -> ModelCard:
    return ModelCard.from_registration(
        {
            "model_name": name,
            "model_version": version,
            "repo_url": "https://git.example/sentiment",
            "model_card": {"description": description, "data_used": "", "dependencies": []},
        }
    )


def publication(row: ModelRow) -> Publication:
    return Publication(
        model_id=row.model_id,
        commit="c" * 40,
        source_digest="sha256:s",
        image="sha256:i",
        image_size_bytes=1,
        runtime="onnx",
        published_at=datetime.now(UTC),
    )


def wanted(store: CardStore, *, is_published: bool = True) -> DeploymentRow:
    row = store.add(card())
    if is_published:
        store.publish(row.model_id, publication(row))
    return store.want("dev", "sentiment", model_id=row.model_id)


def test_a_new_row_gets_a_run_that_can_be_found_by_its_tags(store: CardStore) -> None:
    row = store.add(card())
    (request,) = plan_packaging([row], [])
    assert request.partition_key == "sentiment@1"
    assert request.job_name == "package_model"
    assert request.tags[tags.MODEL_ID] == row.model_id
    assert request.tags[tags.CARD_REVISION] == str(row.revision)


@pytest.mark.parametrize("status", list(Status))
def test_a_row_whose_revision_has_a_run_gets_no_other_whatever_became_of_it(
    store: CardStore, status: Status
) -> None:
    row = store.add(card())
    run = PastRun(row.key, status, {tags.CARD_REVISION: str(row.revision)})
    assert plan_packaging([row], [run]) == []


def test_a_click_that_is_under_way_and_has_no_tags_yet_counts_as_a_run(store: CardStore) -> None:
    row = store.add(card())
    assert plan_packaging([row], [PastRun(row.key, Status.QUEUED)]) == []


def test_a_corrected_row_gets_a_run_of_its_own(store: CardStore) -> None:
    first = store.add(card())
    second = store.correct(card(description="better"))
    (request,) = plan_packaging([second], [PastRun(first.key, Status.FAILURE, {tags.CARD_REVISION: "1"})])
    assert request.tags[tags.CARD_REVISION] == "2"


def test_published_and_removed_rows_get_no_run(store: CardStore) -> None:
    row = store.add(card())
    published = store.publish(row.model_id, publication(row))
    removed = store.remove(store.add(card(version="2")).model_id)
    assert isinstance(removed, ModelRow)
    assert plan_packaging([published, removed], []) == []


def test_what_failed_for_a_passing_reason_is_tried_again_until_its_attempts_are_used_up(
    store: CardStore,
) -> None:
    row = store.add(card())
    failed = PastRun(row.key, Status.FAILURE, {tags.CARD_REVISION: "1", tags.IS_TRANSIENT: "true"})
    (second,) = plan_repackaging([row], [failed], max_attempts=3)
    assert second.run_key != plan_packaging([row], [])[0].run_key
    assert plan_repackaging([row], [failed] * 3, max_attempts=3) == []


def test_what_was_killed_is_tried_again(store: CardStore) -> None:
    row = store.add(card())
    killed = PastRun(row.key, Status.FAILURE, {tags.CARD_REVISION: "1"}, was_killed=True)
    assert len(plan_repackaging([row], [killed], max_attempts=3)) == 1


def test_what_failed_for_good_and_what_a_person_cancelled_is_left_alone(store: CardStore) -> None:
    row = store.add(card())
    for status in (Status.FAILURE, Status.CANCELED):
        assert (
            plan_repackaging([row], [PastRun(row.key, status, {tags.CARD_REVISION: "1"})], max_attempts=3)
            == []
        )


def test_a_row_that_the_sensor_missed_is_found_by_the_schedule(store: CardStore) -> None:
    assert len(plan_repackaging([store.add(card())], [], max_attempts=3)) == 1


def test_a_wish_waits_until_its_version_is_published(store: CardStore) -> None:
    assert plan_deployments([wanted(store, is_published=False)], []) == []
    (request,) = plan_deployments([wanted(store)], [])
    assert str(request.partition_key) == "dev|sentiment"


def test_a_wish_that_is_fulfilled_or_being_worked_on_gets_no_run(store: CardStore) -> None:
    row = wanted(store)
    under_way = PastRun(row.key, Status.STARTED, {tags.SERVICE_REVISION: str(row.revision)})
    clicked = PastRun(row.key, Status.STARTED)
    assert plan_deployments([row], [under_way]) == plan_deployments([row], [clicked]) == []
    store.mark_stable("dev", "sentiment", row.revision)
    assert plan_deployments([store.deployment("dev", "sentiment")], []) == []


def test_a_wish_that_changed_while_a_run_works_on_the_last_one_gets_the_next_run(store: CardStore) -> None:
    before = wanted(store)
    under_way = PastRun(before.key, Status.STARTED, {tags.SERVICE_REVISION: str(before.revision)})
    after = store.want("dev", "sentiment", model_id=before.model_id, replicas=2)
    assert len(plan_deployments([after], [under_way])) == 1


@pytest.mark.parametrize("state", ["stopped", "deleted"])
def test_a_wish_for_no_service_is_due_at_once(store: CardStore, state: Literal["stopped", "deleted"]) -> None:
    row = wanted(store, is_published=False)
    unwanted = store.want("dev", "sentiment", model_id=row.model_id, state=state)
    assert len(plan_deployments([unwanted], [])) == 1
    store.mark_stable("dev", "sentiment", unwanted.revision)
    assert plan_deployments([store.deployment("dev", "sentiment")], []) == []
