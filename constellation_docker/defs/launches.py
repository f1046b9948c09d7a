"""Which runs a sensor or schedule should request: decided here, by pure functions over plain data.

The rules, and the incidents behind them:

* A run that exists already, however it was launched, is never doubled. A click carries no tag of ours
  until its first step has run, so a run in progress on the partition counts as well.
* A run key is remembered by Dagster for ever, also for failed runs, so it holds revision and attempt.
* What failed for good is not tried again: only transient errors and runs that were killed are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import dagster as dg

from constellation_docker.cards import DeploymentRow, ModelRow
from constellation_docker.defs import tags

IN_PROGRESS = frozenset(
    {
        dg.DagsterRunStatus.QUEUED,
        dg.DagsterRunStatus.NOT_STARTED,
        dg.DagsterRunStatus.STARTING,
        dg.DagsterRunStatus.STARTED,
        dg.DagsterRunStatus.CANCELING,
    }
)


@dataclass(frozen=True)
class PastRun:
    """What a launch decision needs to know of a run.

    Args:
        partition: Its partition key.
        status: Its status.
        tags: Its tags.
        was_killed: It failed although none of its steps did: its process ended from outside.
        run_id: Its id.
        created: When it was asked for.
        ended: When it ended; None while it has not.
    """

    partition: str
    status: dg.DagsterRunStatus
    tags: Mapping[str, str] = field(default_factory=dict)
    was_killed: bool = False
    run_id: str = ""
    created: datetime | None = None
    ended: datetime | None = None

    @property
    def is_in_progress(self) -> bool:
        return self.status in IN_PROGRESS

    @property
    def failed_for_passing_reason(self) -> bool:
        return self.status is dg.DagsterRunStatus.FAILURE and (
            self.was_killed or self.tags.get(tags.IS_TRANSIENT) == "true"
        )


def plan_packaging(rows: Sequence[ModelRow], runs: Sequence[PastRun]) -> list[dg.RunRequest]:
    """Runs for rows that are new or were corrected, and have none.

    Args:
        rows: Rows that changed since the last look.
        runs: All runs on the partitions of these rows.
    """
    return [
        packaging_request(row, attempt=1)
        for row in rows
        if row.deleted_at is None and row.published_at is None and not _has_packaging_run(row, runs)
    ]


def plan_repackaging(
    rows: Sequence[ModelRow], runs: Sequence[PastRun], max_attempts: int
) -> list[dg.RunRequest]:
    """Runs for unpublished rows that have none, or whose last one failed for a passing reason.

    Args:
        rows: Rows that are neither published nor deleted.
        runs: All runs on their partitions, newest first.
        max_attempts: Most runs of one revision of a row, the first included.
    """
    requests = []
    for row in rows:
        own = [run for run in runs if run.partition == row.key]
        if any(run.is_in_progress for run in own):
            continue
        of_revision = [run for run in own if run.tags.get(tags.CARD_REVISION) in {str(row.revision), None}]
        if of_revision and not of_revision[0].failed_for_passing_reason:
            continue
        if len(of_revision) < max_attempts:
            requests.append(packaging_request(row, attempt=len(of_revision) + 1))
    return requests


def plan_deployments(rows: Sequence[DeploymentRow], runs: Sequence[PastRun]) -> list[dg.RunRequest]:
    """Runs for wanted deployments that changed and have none. What is to run waits until its version is published;
    what is to stop waits for nothing.

    Args:
        rows: Deployment rows whose wish, or whose model version's publication, is new.
        runs: All runs on their partitions.
    """
    requests = []
    for row in rows:
        own = [run for run in runs if run.partition == row.key]
        is_known = any(
            run.tags.get(tags.SERVICE_REVISION) == str(row.revision)
            or (run.is_in_progress and tags.SERVICE_REVISION not in run.tags)
            for run in own
        )
        is_due = may_be_carried_out(row) and row.stable_revision != row.revision
        if is_due and not is_known:
            requests.append(deployment_request(row, run_key=f"{row.key}:{row.revision}"))
    return requests


def packaging_request(row: ModelRow, attempt: int) -> dg.RunRequest:
    """The run that packages a row."""
    return dg.RunRequest(
        run_key=f"{row.model_id}:{row.revision}:{attempt}",
        job_name="package_model",
        partition_key=row.key,
        tags={**model_tags(row), tags.ATTEMPT: str(attempt)},
    )


def deployment_request(
    row: DeploymentRow, run_key: str, more_tags: Mapping[str, str] | None = None
) -> dg.RunRequest:
    """The run that brings a service to its wanted state."""
    return dg.RunRequest(
        run_key=run_key,
        job_name="deploy_model",
        partition_key=dg.MultiPartitionKey({"environment": row.environment, "model": row.model_name}),
        tags={
            tags.ENVIRONMENT: row.environment,
            tags.MODEL: row.model_name,
            tags.MODEL_ID: row.model_id,
            tags.SERVICE_REVISION: str(row.revision),
            **(more_tags or {}),
        },
    )


def model_tags(row: ModelRow) -> dict[str, str]:
    """The tags by which a row's runs are found."""
    return {
        tags.MODEL_ID: row.model_id,
        tags.MODEL: row.card.model_name,
        tags.VERSION: row.card.model_version,
        tags.CARD_REVISION: str(row.revision),
    }


def may_be_carried_out(row: DeploymentRow) -> bool:
    """Whether a wish can be carried out now: what is to run must be published, what is to stop need not be."""
    return row.state != "running" or row.row.published_at is not None


def _has_packaging_run(row: ModelRow, runs: Sequence[PastRun]) -> bool:
    return any(
        run.tags.get(tags.CARD_REVISION) == str(row.revision)
        or (run.is_in_progress and tags.CARD_REVISION not in run.tags)
        for run in runs
        if run.partition == row.key
    )
