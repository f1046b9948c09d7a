"""What a model version's status is: decided here, by a pure function over rows of the store and runs of Dagster.

Nothing is kept: the store says what is wanted and what a rollout reached, Dagster's runs say what is under way
and what went wrong last. The last thing that happened decides, and what is under way goes before that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from constellation_docker import run_tags as tags
from constellation_docker.cards.release_traces import ReleaseTrace
from constellation_docker.cards.rows import DeploymentRow, InvalidRow, ModelRow
from constellation_docker.gateway.dagster_client import Run

WAITING = frozenset({"QUEUED", "NOT_STARTED"})
PACKAGING_JOB = "package_model"


class Status(StrEnum):
    """Where a model version is."""

    PENDING = "pending"
    PACKAGING = "packaging"
    PACKAGED = "packaged"
    DEPLOYING = "deploying"
    DEPLOYED = "deployed"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"
    DELETING = "deleting"
    DELETED = "deleted"


@dataclass(frozen=True)
class ServiceFacts:
    """What is known of one version in one environment.

    Args:
        environment: The environment.
        wish: What is wanted of the model there now, of this version or another; None: nothing ever was.
        trace: What the history there says of this version; None where it was never wanted.
        runs: Runs on the service, newest first.
    """

    environment: str
    wish: DeploymentRow | InvalidRow | None = None
    trace: ReleaseTrace | None = None
    runs: Sequence[Run] = ()


@dataclass(frozen=True)
class VersionFacts:
    """What is known of one model version.

    Args:
        row: Its row.
        runs: Runs on its own partition, newest first: packaging, and clicks on its assets.
        deletion: The run that is deleting it now.
        services: One for each environment.
    """

    row: ModelRow | InvalidRow
    runs: Sequence[Run] = ()
    deletion: Run | None = None
    services: Sequence[ServiceFacts] = ()


@dataclass(frozen=True)
class ServiceStatus:
    """One version in one environment.

    Args:
        environment: The environment.
        status: Where it is.
        revision: The deployment's revision that wants it; None where its row cannot be used.
        replicas: How many are wanted.
        last_error: Why it is not where it is wanted, in one sentence.
        run_id: The run that works on it, or did last.
        at: When it came to this.
        deployed_at: When a rollout of it ended well last.
    """

    environment: str
    status: Status
    revision: int | None
    replicas: int | None
    last_error: str | None
    run_id: str | None
    at: datetime
    deployed_at: datetime | None = None


@dataclass(frozen=True)
class VersionStatus:
    """A model version: see `ServiceStatus` for the fields."""

    status: Status
    last_updated: datetime
    last_error: str | None
    run_id: str | None
    deployed_at: datetime | None
    services: Sequence[ServiceStatus]


def resolve_status(facts: VersionFacts) -> VersionStatus:
    """The status of a version, and of it in each environment that wants it or rolled it back."""
    row = facts.row
    services = [status for service in facts.services if (status := _service_status(row, service)) is not None]
    own = _packaging_status(row, facts.runs)
    moments = [row.updated_at, own.at, *(service.at for service in services)]
    if facts.deletion is not None:
        moments.append(moment_of(facts.deletion))
    chosen = own
    if row.deleted_at is not None:
        chosen = _Own(Status.DELETED, None, None, row.deleted_at)
    elif facts.deletion is not None:
        chosen = _Own(Status.DELETING, None, facts.deletion.run_id, moment_of(facts.deletion))
    elif own.status is Status.PACKAGED and (deciding := _deciding_service(services)) is not None:
        chosen = _Own(deciding.status, deciding.last_error, deciding.run_id, deciding.at)
    deployed = [service.deployed_at for service in services if service.deployed_at is not None]
    return VersionStatus(
        status=chosen.status,
        last_updated=max(moments),
        last_error=chosen.last_error,
        run_id=chosen.run_id,
        deployed_at=max(deployed, default=None),
        services=services,
    )


@dataclass(frozen=True)
class _Own:
    status: Status
    last_error: str | None
    run_id: str | None
    at: datetime


def _packaging_status(row: ModelRow | InvalidRow, runs: Sequence[Run]) -> _Own:
    """Where a version is, deployments left aside: pending, packaging, packaged or failed."""
    if isinstance(row, InvalidRow):
        return _Own(Status.FAILED, row.error.message, None, row.updated_at)
    if row.publication is not None:
        last = next((run for run in runs if run.job == PACKAGING_JOB), None)
        return _Own(Status.PACKAGED, None, last.run_id if last else None, row.published_at or row.updated_at)
    busy = _in_progress(runs)
    if busy is not None:
        is_waiting = busy.status in WAITING
        return _Own(Status.PENDING if is_waiting else Status.PACKAGING, None, busy.run_id, moment_of(busy))
    of_card = [run for run in runs if run.tags.get(tags.CARD_REVISION) in {str(row.revision), None}]
    ended = next((run for run in of_card if run.job == PACKAGING_JOB or run.status != "SUCCESS"), None)
    if ended is not None and ended.status != "SUCCESS":
        return _Own(Status.FAILED, error_of(ended), ended.run_id, moment_of(ended))
    return _Own(Status.PENDING, None, None, row.updated_at)


def _service_status(row: ModelRow | InvalidRow, facts: ServiceFacts) -> ServiceStatus | None:
    """One version in one environment; None where it has nothing to do with it (any more)."""
    wish, trace = facts.wish, facts.trace
    if wish is None or wish.model_id != row.model_id:
        return _rolled_back(facts) if trace is not None and trace.was_rolled_back else None
    deployed_at = trace.stable_at if trace is not None else None
    if isinstance(wish, InvalidRow):
        return ServiceStatus(
            facts.environment,
            Status.FAILED,
            None,
            None,
            wish.error.message,
            None,
            wish.changed_at,
            deployed_at,
        )
    status, error, run = _carried_out(wish, facts.runs)
    moments = [wish.updated_at, *([moment_of(run)] if run is not None else [])]
    is_wanted = wish.state == "running"
    if is_wanted and deployed_at is not None:
        moments.append(deployed_at)
    return ServiceStatus(
        environment=facts.environment,
        status=status,
        revision=wish.revision,
        replicas=wish.wanted_replicas if is_wanted else 0,
        last_error=error,
        run_id=run.run_id if run is not None else None,
        at=max(moments),
        deployed_at=deployed_at if is_wanted else None,
    )


def _carried_out(wish: DeploymentRow, runs: Sequence[Run]) -> tuple[Status, str | None, Run | None]:
    """How far a wish is carried out, why not further, and the run that shows it."""
    is_wanted = wish.state == "running"
    busy = _in_progress(runs)
    of_wish = [run for run in runs if run.tags.get(tags.SERVICE_REVISION) == str(wish.revision)]
    last = of_wish[0] if of_wish else None
    if wish.stable_revision == wish.revision:
        return Status.DEPLOYED if is_wanted else Status.DELETED, None, last
    if busy is not None:
        return Status.DEPLOYING if is_wanted else Status.DELETING, None, busy
    if last is not None and last.status in {"FAILURE", "CANCELED"}:
        return Status.FAILED, error_of(last), last
    if is_wanted and wish.row.publication is None:
        return Status.PENDING, None, None
    # Nobody works on it yet: the run is being launched, or the sensor will launch it.
    return Status.DEPLOYING if is_wanted else Status.DELETING, None, last


def _rolled_back(facts: ServiceFacts) -> ServiceStatus | None:
    trace = facts.trace
    if trace is None:
        return None
    own = next((run for run in facts.runs if run.tags.get(tags.SERVICE_REVISION) == str(trace.last)), None)
    is_failure = own is not None and own.status == "FAILURE"
    return ServiceStatus(
        environment=facts.environment,
        status=Status.ROLLED_BACK,
        revision=trace.last,
        replicas=0,
        last_error=error_of(own) if own is not None and is_failure else None,
        run_id=own.run_id if own is not None else None,
        at=max(trace.last_at, moment_of(own)) if own is not None else trace.last_at,
    )


def _deciding_service(services: Iterable[ServiceStatus]) -> ServiceStatus | None:
    """The environment that a version's one status speaks of: where something is under way, else where the last
    thing happened. Where it was only taken away it counts for nothing."""
    living = [service for service in services if service.status is not Status.DELETED]
    under_way = [service for service in living if service.status in {Status.DEPLOYING, Status.DELETING}]
    return max(under_way or living, key=lambda service: service.at, default=None)


def _in_progress(runs: Iterable[Run]) -> Run | None:
    """The run that works now; of several the one that has come furthest."""
    busy = [run for run in runs if not run.has_ended]
    return min(busy, key=lambda run: run.status in WAITING, default=None)


def error_of(run: Run) -> str:
    """Why a run did not end well, in one sentence."""
    if run.status == "CANCELED":
        return "The run was cancelled."
    return run.tags.get(tags.ERROR) or "The run's process ended from outside, or failed outside of our steps."


def moment_of(run: Run) -> datetime:
    """When something last happened to a run."""
    return datetime.fromtimestamp(run.ended_at or run.started_at or run.created_at or 0, UTC)
