"""What a version's status is, over every combination that matters."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from constellation_docker import run_tags as tags
from constellation_docker.cards import InvalidCard
from constellation_docker.cards.release_traces import ReleaseTrace
from constellation_docker.cards.rows import DeploymentRow, InvalidRow, ModelRow
from constellation_docker.gateway.dagster_client import Run
from constellation_docker.gateway.statuses import (
    ServiceFacts,
    Status,
    VersionFacts,
    VersionStatus,
    resolve_status,
)
from constellation_docker_tests.cards.conftest import make_card, make_publication

START = datetime(2026, 1, 31, 12, tzinfo=UTC)
ROW = ModelRow("one", make_card(), 1, START, START)
PUBLISHED = replace(ROW, publication=make_publication("one"), published_at=START)
OTHER = replace(PUBLISHED, model_id="two")


def run(status: str, *, job: str = "package_model", minute: int = 1, **more: str) -> Run:
    at = (START + timedelta(minutes=minute)).timestamp()
    has_ended = status in {"SUCCESS", "FAILURE", "CANCELED"}
    own = {getattr(tags, name): value for name, value in more.items()}
    return Run(f"{job} {status}", job, status, own, at, at, at if has_ended else None)


def deployment(status: str, revision: int = 1, minute: int = 1, **more: str) -> Run:
    return run(status, job="deploy_model", minute=minute, SERVICE_REVISION=str(revision), **more)


def wish(row: ModelRow = PUBLISHED, *, place: str = "dev", minute: int = 0, **more: Any) -> DeploymentRow:
    made = DeploymentRow(
        environment=place,
        model_name=row.card.model_name,
        model_id=row.model_id,
        replicas=None,
        resources=None,
        state="running",
        revision=1,
        stable_revision=None,
        requested_by=None,
        created_at=START,
        updated_at=START + timedelta(minutes=minute),
        row=row,
    )
    return replace(made, **more)


def trace(*, next_first: int | None = None, stable: bool = False, last: int = 2) -> ReleaseTrace:
    following = None if next_first is None else "two"
    return ReleaseTrace(
        "dev", "acme/sentiment", "one", last, last, START, START if stable else None, following, next_first
    )


def service(
    known: DeploymentRow | InvalidRow | None, *runs: Run, past: ReleaseTrace | None = None
) -> ServiceFacts:
    return ServiceFacts(known.environment or "" if known else "dev", known, past, runs)


INVALID = InvalidRow(
    "one", "acme/sentiment", "1.0.0", 1, START, START, START, InvalidCard("It cannot be used.")
)
DELETION = run("STARTED", job="delete_model")
STABLE = wish(stable_revision=1)
STOPPED = wish(state="stopped", stable_revision=1)

TABLE: list[tuple[str, VersionFacts, Status, str | None]] = [
    ("registered", VersionFacts(ROW), Status.PENDING, None),
    ("its run is queued", VersionFacts(ROW, [run("QUEUED")]), Status.PENDING, None),
    ("its run works", VersionFacts(ROW, [run("STARTED")]), Status.PACKAGING, None),
    ("a click works on it", VersionFacts(ROW, [run("STARTED", job="__ASSET_JOB")]), Status.PACKAGING, None),
    (
        "one run works, another waits",
        VersionFacts(ROW, [run("QUEUED"), run("STARTING")]),
        Status.PACKAGING,
        None,
    ),
    (
        "its run failed",
        VersionFacts(ROW, [run("FAILURE", CARD_REVISION="1", ERROR="The lock failed.")]),
        Status.FAILED,
        "The lock failed.",
    ),
    (
        "its run was killed",
        VersionFacts(ROW, [run("FAILURE", CARD_REVISION="1")]),
        Status.FAILED,
        "The run's process ended from outside, or failed outside of our steps.",
    ),
    ("its run was cancelled", VersionFacts(ROW, [run("CANCELED")]), Status.FAILED, "The run was cancelled."),
    (
        "the run of a former card failed",
        VersionFacts(replace(ROW, revision=2), [run("FAILURE", CARD_REVISION="1")]),
        Status.PENDING,
        None,
    ),
    (
        "a click on one asset ended well after the run had failed",
        VersionFacts(
            ROW, [run("SUCCESS", job="__ASSET_JOB"), run("FAILURE", CARD_REVISION="1", ERROR="No.")]
        ),
        Status.FAILED,
        "No.",
    ),
    ("published", VersionFacts(PUBLISHED), Status.PACKAGED, None),
    ("its row cannot be used", VersionFacts(INVALID), Status.FAILED, "It cannot be used."),
    (
        "it is wanted, and not yet published",
        VersionFacts(ROW, services=[service(wish(ROW))]),
        Status.PENDING,
        None,
    ),
    (
        "nobody works on the wish yet",
        VersionFacts(PUBLISHED, services=[service(wish())]),
        Status.DEPLOYING,
        None,
    ),
    (
        "a run works on the wish",
        VersionFacts(PUBLISHED, services=[service(wish(), deployment("STARTED"))]),
        Status.DEPLOYING,
        None,
    ),
    ("stable", VersionFacts(PUBLISHED, services=[service(STABLE)]), Status.DEPLOYED, None),
    (
        "the rollout failed",
        VersionFacts(PUBLISHED, services=[service(wish(), deployment("FAILURE", ERROR="Never ready."))]),
        Status.FAILED,
        "Never ready.",
    ),
    (
        "it failed for a former wish",
        VersionFacts(PUBLISHED, services=[service(wish(revision=2), deployment("FAILURE", 1))]),
        Status.DEPLOYING,
        None,
    ),
    (
        "another version is wanted again after it failed",
        VersionFacts(
            PUBLISHED,
            services=[
                service(
                    wish(OTHER, revision=3, stable_revision=3),
                    deployment("FAILURE", 2, ERROR="Never ready."),
                    past=trace(next_first=1),
                )
            ],
        ),
        Status.ROLLED_BACK,
        "Never ready.",
    ),
    (
        "somebody went back from it",
        VersionFacts(
            PUBLISHED,
            services=[service(wish(OTHER, revision=3), past=trace(next_first=1, stable=True))],
        ),
        Status.ROLLED_BACK,
        None,
    ),
    (
        "a newer version followed it",
        VersionFacts(PUBLISHED, services=[service(wish(OTHER, revision=3), past=trace(next_first=3))]),
        Status.PACKAGED,
        None,
    ),
    ("stopped", VersionFacts(PUBLISHED, services=[service(STOPPED)]), Status.PACKAGED, None),
    (
        "being taken away",
        VersionFacts(PUBLISHED, services=[service(wish(state="deleted"), deployment("STARTED"))]),
        Status.DELETING,
        None,
    ),
    (
        "deployed here, deploying there",
        VersionFacts(
            PUBLISHED,
            services=[service(STABLE), service(wish(place="production"), deployment("STARTED"))],
        ),
        Status.DEPLOYING,
        None,
    ),
    (
        "deployed here, failed there later",
        VersionFacts(
            PUBLISHED,
            services=[
                service(STABLE),
                service(wish(place="production"), deployment("FAILURE", minute=5, ERROR="No.")),
            ],
        ),
        Status.FAILED,
        "No.",
    ),
    (
        "failed here, deployed there later",
        VersionFacts(
            PUBLISHED,
            services=[
                service(wish(), deployment("FAILURE", minute=5)),
                service(wish(place="production", minute=9, stable_revision=1)),
            ],
        ),
        Status.DEPLOYED,
        None,
    ),
    (
        "deployed, and its deletion works",
        VersionFacts(PUBLISHED, deletion=DELETION, services=[service(STABLE)]),
        Status.DELETING,
        None,
    ),
    (
        "deleted",
        VersionFacts(
            replace(PUBLISHED, deleted_at=START), services=[service(wish(state="deleted", stable_revision=1))]
        ),
        Status.DELETED,
        None,
    ),
]


@pytest.mark.parametrize(("what", "facts", "status", "error"), TABLE, ids=[row[0] for row in TABLE])
def test_the_last_thing_that_happened_decides(
    what: str, facts: VersionFacts, status: Status, error: str | None
) -> None:
    found = resolve_status(facts)
    assert (found.status, found.last_error) == (status, error)
    assert found.last_updated >= START


def only(found: VersionStatus) -> tuple[Status, int | None, int | None]:
    (known,) = found.services
    return known.status, known.revision, known.replicas


def test_every_status_stands_in_the_table() -> None:
    assert {row[2] for row in TABLE} == set(Status)


def test_an_environment_tells_revision_and_replicas() -> None:
    known = wish(revision=4, stable_revision=4, replicas=3)
    assert only(resolve_status(VersionFacts(PUBLISHED, services=[service(known)]))) == (Status.DEPLOYED, 4, 3)
    gone = replace(known, state="deleted")
    assert only(resolve_status(VersionFacts(PUBLISHED, services=[service(gone)]))) == (Status.DELETED, 4, 0)


def test_a_deployment_that_cannot_be_used_says_why() -> None:
    known = replace(INVALID, environment="dev", error=InvalidCard("Its resources are wrong."))
    (found,) = resolve_status(VersionFacts(PUBLISHED, services=[service(known)])).services
    assert (found.status, found.last_error) == (Status.FAILED, "Its resources are wrong.")


def test_a_version_is_as_new_as_the_last_thing_that_happened_to_it() -> None:
    facts = VersionFacts(PUBLISHED, services=[service(wish(), deployment("FAILURE", minute=7))])
    assert resolve_status(facts).last_updated == START + timedelta(minutes=7)
