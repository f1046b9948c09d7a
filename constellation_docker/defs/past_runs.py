"""Reading runs back from Dagster's run storage, a few at a time and by tags only."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import dagster as dg

from constellation_docker.cards import DeploymentRow
from constellation_docker.defs import tags
from constellation_docker.defs.jobs import deploy_model, package_model
from constellation_docker.defs.launches import IN_PROGRESS, PastRun

PARTITIONS_PER_QUERY = 200

IMPLICIT_JOB = "__ASSET_JOB"
"""Dagster's own job for clicks on assets."""

LAST_ASSETS = {package_model.name: "published_image", deploy_model.name: "deployment"}
"""The asset by which each job has done its work."""

DELETION = "delete_model"
"""The job that works on all services of a model, so that its runs carry no partition."""


def runs_on(instance: dg.DagsterInstance, partitions: Sequence[str], job: str) -> list[PastRun]:
    """The runs on some partitions, newest first, in one query for every 200 partitions.

    Args:
        instance: Dagster's instance.
        partitions: Partition keys.
        job: The name of the job that the launch is for. A click on an asset runs Dagster's implicit job, so
            such runs count too: while they are in progress, and afterwards if they made the job's last asset.
    """
    found: list[PastRun] = []
    for start in range(0, len(partitions), PARTITIONS_PER_QUERY):
        keys = list(partitions[start : start + PARTITIONS_PER_QUERY])
        records = instance.get_run_records(filters=dg.RunsFilter(tags={tags.PARTITION: keys}))
        found.extend(
            _past_run(instance, record)
            for record in records
            if record.dagster_run.job_name == job or _stands_for(record.dagster_run, job)
        )
    return found


def _stands_for(run: dg.DagsterRun, job: str) -> bool:
    """Whether a run of Dagster's implicit job did, or may yet do, what the job does.

    A click on `model_card` alone packages nothing: once it has ended, the row still waits for its run.
    """
    if run.job_name != IMPLICIT_JOB:
        return False
    selected = run.asset_selection
    return run.status in IN_PROGRESS or selected is None or dg.AssetKey(LAST_ASSETS[job]) in selected


def runs_on_services(instance: dg.DagsterInstance, rows: Sequence[DeploymentRow]) -> list[PastRun]:
    """The runs on some services, newest first; after them the deletions that are at work on them.

    Args:
        instance: Dagster's instance.
        rows: The services' rows.
    """
    if not rows:
        return []
    deletions = instance.get_runs(dg.RunsFilter(job_name=DELETION, statuses=list(IN_PROGRESS)))
    return runs_on(instance, [row.key for row in rows], deploy_model.name) + [
        PastRun(row.key, run.status)
        for run in deletions
        for row in rows
        if run.tags.get(tags.MODEL) == row.model_name
    ]


def _past_run(instance: dg.DagsterInstance, record: dg.RunRecord) -> PastRun:
    run = record.dagster_run
    is_failure = run.status is dg.DagsterRunStatus.FAILURE and run.tags.get(tags.IS_TRANSIENT) != "true"
    return PastRun(
        partition=run.tags[tags.PARTITION],
        status=run.status,
        tags=run.tags,
        was_killed=is_failure and _was_killed(instance, run.run_id),
        run_id=run.run_id,
        created=record.create_timestamp,
        ended=datetime.fromtimestamp(record.end_time, UTC) if record.end_time else None,
    )


def _was_killed(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether no step of a failed run failed: then its process was ended from outside."""
    records = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.STEP_FAILURE, limit=1)
    return not records.records
