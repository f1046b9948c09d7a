"""Whether a service that differs is healed now: the rules of `defs/healing.py`, as a table of histories."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from constellation_docker.cards import CardStore, DeploymentRow, ModelCard, Publication
from constellation_docker.defs import tags
from constellation_docker.defs.healing import Verdict, decide_healing, healing_request, may_be_healed_again
from constellation_docker.defs.launches import PastRun
from constellation_docker.rollout import Drift
from constellation_docker.settings import HealingSettings

Status = dg.DagsterRunStatus
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
SETTINGS = HealingSettings(max_attempts=3, backoff_seconds=10, max_backoff_seconds=15, quiet_seconds=3600)
GONE = Drift("sentiment", "create", "nothing", "1 × 1", ("1 of 1 replicas is missing",))


@pytest.fixture
def row(tmp_path: Path) -> Iterator[DeploymentRow]:
    """A deployment that ran stably."""
    with CardStore.open(f"sqlite:///{tmp_path}/cards.db") as store:
        model = store.add(
            ModelCard.from_registration(
                {
                    "model_name": "sentiment",
                    "model_version": "1",
                    "repo_url": "https://git.example/sentiment",
                    "model_card": {"description": "", "data_used": "", "dependencies": []},
                }
            )
        )
        store.publish(
            model.model_id,
            Publication(
                model_id=model.model_id,
                commit="c" * 40,
                source_digest="sha256:s",
                image="sha256:i",
                image_size_bytes=1,
                runtime="onnx",
                published_at=NOW,
            ),
        )
        store.want("dev", "sentiment", model_id=model.model_id)
        store.mark_stable("dev", "sentiment", 1)
        yield store.deployment("dev", "sentiment")


def run(
    row: DeploymentRow,
    status: Status = Status.SUCCESS,
    *,
    ended: float | None = None,
    heals: bool = True,
    was_killed: bool = False,
    outcome: str | None = None,
    run_id: str = "",
) -> PastRun:
    """A run on the service that ended so many seconds ago."""
    carried = {tags.SERVICE_REVISION: str(row.revision), tags.MODEL_ID: row.model_id}
    carried |= {tags.HEALING: "1"} if heals else {}
    carried |= {tags.OUTCOME: outcome} if outcome else {}
    end = None if ended is None else NOW - timedelta(seconds=ended)
    created = end - timedelta(seconds=5) if end else NOW
    return PastRun(row.key, status, carried, was_killed, run_id, created, end)


def decide(
    row: DeploymentRow, *runs: PastRun, drift: Drift | None = GONE, found: float = 0, tries: int = 3
) -> Verdict | None:
    return decide_healing(
        row,
        drift,
        runs,
        settings=SETTINGS,
        max_tries=tries,
        found_at=NOW - timedelta(seconds=found),
        now=NOW,
    )


def answer(verdict: Verdict | None) -> str:
    return f"{verdict.answer} {verdict.attempt or ''}".strip() if verdict else "nothing"


def test_what_was_stable_is_healed_at_once_then_after_growing_pauses_and_not_for_ever(
    row: DeploymentRow,
) -> None:
    healed = [run(row, ended=seconds) for seconds in (1, 21, 41)]
    assert answer(decide(row)) == "heal 1"
    assert answer(decide(row, run(row, ended=9))) == "wait"
    assert answer(decide(row, run(row, ended=11))) == "heal 2"
    # 2 × 10 seconds, were it not for the longest pause
    assert answer(decide(row, run(row, ended=14), run(row, ended=40))) == "wait"
    assert answer(decide(row, run(row, ended=16), run(row, ended=40))) == "heal 3"
    assert answer(decide(row, *healed)) == "given up"


def test_a_pause_says_when_to_look_again(row: DeploymentRow) -> None:
    verdict = decide(row, run(row, ended=4))
    assert verdict is not None
    assert verdict.look_at == NOW + timedelta(seconds=6)


def test_what_was_well_for_long_or_was_launched_by_somebody_is_counted_anew(row: DeploymentRow) -> None:
    failed = [run(row, Status.FAILURE, ended=seconds) for seconds in (20, 40, 60)]
    assert answer(decide(row, *failed)) == "given up"
    assert answer(decide(row, run(row, ended=15, heals=False), *failed)) == "heal 1"
    long_ago = [run(row, ended=seconds) for seconds in (4000, 4020, 4040)]
    assert answer(decide(row, *long_ago)) == "heal 1"
    assert answer(decide(row, *long_ago, found=3900)) == "given up", "it has been bad for most of that time"
    failed_long_ago = run(row, Status.FAILURE, ended=4000)
    assert answer(decide(row, failed_long_ago, *long_ago[1:])) == "given up", "it never was well"


def test_healings_of_another_release_do_not_count(row: DeploymentRow) -> None:
    other = replace(run(row, ended=5), tags={tags.HEALING: "1", tags.MODEL_ID: "another"})
    assert answer(decide(row, other, other, other)) == "heal 1"


@pytest.mark.parametrize("status", [Status.QUEUED, Status.STARTED, Status.CANCELING])
def test_what_a_run_is_at_work_on_is_left_to_it(row: DeploymentRow, status: Status) -> None:
    assert answer(decide(row, run(row, status))) == "busy"


def test_nothing_is_tried_after_a_rollback_that_failed_until_somebody_launches_it(
    row: DeploymentRow,
) -> None:
    failed = run(row, Status.FAILURE, ended=1, heals=False, outcome="rollback_failed")
    assert answer(decide(row, failed)) == "given up"
    assert answer(decide(row, run(row, ended=0, heals=False), failed)) == "heal 1"


def test_a_release_that_never_was_stable_is_tried_again_only_where_that_may_help(row: DeploymentRow) -> None:
    unstable = replace(row, stable_revision=None)
    killed = run(row, Status.FAILURE, ended=1, heals=False, was_killed=True)
    bad = run(row, Status.FAILURE, ended=1, heals=False)
    long_ago = replace(
        unstable,
        updated_at=NOW - timedelta(hours=1),
        row=replace(row.row, updated_at=NOW - timedelta(hours=1)),
    )
    fresh = replace(long_ago, updated_at=NOW)
    assert answer(decide(unstable, killed)) == "heal 1"
    assert answer(decide(unstable, *[killed] * 3)) == "given up"
    assert answer(decide(unstable, bad)) == "left"
    assert answer(decide(fresh)) == "busy", "the sensor of wishes sees to it"
    assert answer(decide(long_ago)) == "heal 1", "nobody saw it"


def test_a_rollout_that_was_killed_when_all_was_done_is_finished(row: DeploymentRow) -> None:
    unstable = replace(row, stable_revision=None)
    killed = run(row, Status.FAILURE, ended=1, heals=False, was_killed=True)
    assert answer(decide(unstable, killed, drift=None)) == "heal 1"
    assert answer(decide(unstable, drift=None)) == "nothing"
    assert answer(decide(row, drift=None)) == "nothing"


def test_what_docker_has_just_started_is_given_its_time(row: DeploymentRow) -> None:
    starting = replace(GONE, faults=("x-1 is starting",), is_settling=True)
    assert answer(decide(row, drift=starting)) == "wait"


def test_a_version_that_is_not_published_yet_cannot_be_deployed_and_what_is_to_stop_can(
    row: DeploymentRow,
) -> None:
    unpublished = replace(row, row=replace(row.row, published_at=None))
    assert answer(decide(unpublished)) == "left"
    assert answer(decide(replace(unpublished, state="stopped"))) == "heal 1"


def test_a_tick_that_is_repeated_asks_for_the_same_run(row: DeploymentRow) -> None:
    first = run(row, ended=100, run_id="0b9b")
    again = [decide(row, first), decide(row, first)]
    keys = {healing_request(verdict).run_key for verdict in again if verdict}
    assert len(keys) == 1
    other = decide(row, run(row, ended=50, run_id="1c2d"), first)
    assert other is not None and healing_request(other).run_key not in keys
    assert healing_request(other).tags[tags.HEALING] == "3"


@pytest.mark.parametrize(
    ("carried", "is_healed_again"),
    [
        ({}, False),
        ({tags.HEALING: "1"}, True),
        ({tags.HEALING: "3"}, False),
        ({tags.HEALING: "1", tags.OUTCOME: "rolled_back"}, True),
        ({tags.HEALING: "1", tags.OUTCOME: "rollback_failed"}, False),
    ],
)
def test_a_notice_of_a_failed_healing_says_whether_another_one_follows(
    carried: dict[str, str], is_healed_again: bool
) -> None:
    assert may_be_healed_again(carried, SETTINGS) is is_healed_again
