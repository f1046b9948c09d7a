"""Sensors: new and changed rows become runs; failed runs become notifications.

They are the safety net under clicks and GraphQL launches, so they never launch what has a run already.
A failed read is not an empty table: when the store cannot be reached a tick says so and changes nothing.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Self, TypeVar

import dagster as dg
from pydantic import BaseModel

from constellation_docker.cards import DeploymentRow, InvalidRow, ModelRow, StoreUnavailable
from constellation_docker.cards.launch_guards import deployment_subject, packaging_subject
from constellation_docker.defs import tags
from constellation_docker.defs.guards import request_guarded
from constellation_docker.defs.healing import may_be_healed_again
from constellation_docker.defs.jobs import deploy_model, package_model
from constellation_docker.defs.launches import plan_deployments, plan_packaging
from constellation_docker.defs.notices import tell
from constellation_docker.defs.partitions import MODEL_VERSIONS, MODELS
from constellation_docker.defs.past_runs import runs_on, runs_on_services
from constellation_docker.defs.resources import CardStoreResource, SettingsResource

Row = TypeVar("Row", ModelRow, DeploymentRow)

ROWS_PER_TICK = 200

SETTLING = timedelta(seconds=5)
"""The cursor stays this far behind the clock: a row's transaction may commit after one that started later.
Rows read twice cost nothing, because they have a run by then."""


class ChangeCursor(BaseModel):
    """The last change that a sensor has dealt with: a moment, and an id among rows of the same moment."""

    moment: datetime
    row_id: str

    @classmethod
    def parse(cls, text: str | None) -> Self | None:
        """The cursor that a tick was given; none at the first tick."""
        return cls.model_validate_json(text) if text else None


def advance(
    cursor: ChangeCursor | None, changes: Sequence[tuple[ChangeCursor, bool]], now: datetime
) -> ChangeCursor | None:
    """Where the next look starts: behind the last change that is dealt with and old enough to be settled.

    Args:
        cursor: Where this look started.
        changes: What it saw, in order, each with whether it is held back for a later tick.
        now: The present.
    """
    for change, is_held_back in changes:
        if is_held_back or change.moment > now - SETTLING:
            break
        cursor = change
    return cursor


@dg.sensor(
    jobs=[package_model],
    minimum_interval_seconds=1,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Adds a partition for every new row of the card store, and packages rows that are new or corrected.",
)
def model_cards(
    context: dg.SensorEvaluationContext, settings: SettingsResource, cards: CardStoreResource
) -> dg.SensorResult | dg.SkipReason:
    """New and corrected rows get a partition, and a run unless they have one."""
    most_runs = settings.load().reconcile.max_runs_per_tick
    cursor = ChangeCursor.parse(context.cursor)
    try:
        with cards.open() as store:
            rows = store.changed_since(
                (cursor.moment, cursor.row_id) if cursor else None, limit=ROWS_PER_TICK
            )
    except StoreUnavailable as error:
        return dg.SkipReason(f"Nothing was changed: {error}")
    living = [row for row in _valid(rows, context) if row.deleted_at is None]

    def plan(some: Sequence[ModelRow]) -> list[dg.RunRequest]:
        return plan_packaging(some, runs_on(context.instance, [row.key for row in some], package_model.name))

    try:
        requests, held_back = request_guarded(cards, living, plan, packaging_subject, most_runs)
    except StoreUnavailable as error:
        return dg.SkipReason(f"Nothing was changed: {error}")
    changes = [
        (ChangeCursor(moment=row.updated_at, row_id=row.model_id), row.key in held_back) for row in rows
    ]
    following = advance(cursor, changes, datetime.now(UTC))
    partitions = [MODEL_VERSIONS.build_add_request([row.key for row in living])] if living else []
    # A run that was killed right after it published left its model off the board.
    published = {row.card.model_name for row in living if row.is_published}
    if published:
        partitions.append(MODELS.build_add_request(sorted(published)))
    return dg.SensorResult(
        run_requests=requests,
        dynamic_partitions_requests=partitions,
        cursor=following.model_dump_json() if following else None,
    )


@dg.sensor(
    jobs=[deploy_model],
    minimum_interval_seconds=1,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Brings about what the deployments table wants and no run works on: running once its version is "
    "published, stopped and deleted at once.",
)
def wanted_deployments(
    context: dg.SensorEvaluationContext, settings: SettingsResource, cards: CardStoreResource
) -> dg.SensorResult | dg.SkipReason:
    """Changed wishes get a run unless they have one; a wish for an unpublished version waits for it."""
    most_runs = settings.load().reconcile.max_runs_per_tick
    cursor = ChangeCursor.parse(context.cursor)
    try:
        with cards.open() as store:
            rows = store.deployments_changed_since(
                (cursor.moment, cursor.row_id) if cursor else None, limit=ROWS_PER_TICK
            )
    except StoreUnavailable as error:
        return dg.SkipReason(f"Nothing was changed: {error}")
    environments = settings.load().environments
    known = [row for row in _valid(rows, context) if row.environment in environments]
    for row in _valid(rows, context):
        if row.environment not in environments:
            context.log.warning(f"Skipped: {row.key} is wanted, but no environment has that name.")

    def plan(some: Sequence[DeploymentRow]) -> list[dg.RunRequest]:
        return plan_deployments(some, runs_on_services(context.instance, some))

    try:
        requests, held_back = request_guarded(cards, known, plan, deployment_subject, most_runs)
    except StoreUnavailable as error:
        return dg.SkipReason(f"Nothing was changed: {error}")
    changes = [(ChangeCursor(moment=row.changed_at, row_id=row.key), row.key in held_back) for row in rows]
    following = advance(cursor, changes, datetime.now(UTC))
    # A deleted model leaves the board; it comes back only where there is something left to do for it.
    requested = {str(request.partition_key) for request in requests} | held_back
    models = [row.model_name for row in known if row.state != "deleted" or row.key in requested]
    return dg.SensorResult(
        run_requests=requests,
        dynamic_partitions_requests=[MODELS.build_add_request(models)] if models else [],
        cursor=following.model_dump_json() if following else None,
    )


def _valid(rows: Sequence[Row | InvalidRow], context: dg.SensorEvaluationContext) -> list[Row]:
    """The rows that can be used; what is wrong with the others is said."""
    for row in rows:
        if isinstance(row, InvalidRow):
            context.log.warning(f"Skipped {row.title}: {row.error}")
    return [row for row in rows if not isinstance(row, InvalidRow)]


@dg.run_failure_sensor(
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Tells the configured webhook of every failed run, in one sentence.",
)
def failed_runs(context: dg.RunFailureSensorContext, settings: SettingsResource) -> None:
    """POST what failed, why and where to look; without a webhook the sentence goes to the sensor's log."""
    sentences = [
        event.step_failure_data.user_failure_data.description or event.message or ""
        if event.step_failure_data.user_failure_data
        else event.message or ""
        for event in context.get_step_failure_events()
    ]
    run = context.dagster_run
    known = settings.load()
    outcome = run.tags.get(tags.OUTCOME)
    if outcome == "rollback_failed":
        # The sensor of drift says no more of it: one failure is one notice.
        sentences.append("Nothing is tried any more until somebody launches it.")
    notice = {
        "text": " ".join(sentences) or f"{run.job_name}: the run's process ended from outside.",
        "job": run.job_name,
        "run_id": run.run_id,
        "partition": run.tags.get(tags.PARTITION),
        "model_id": run.tags.get(tags.MODEL_ID),
        "environment": run.tags.get(tags.ENVIRONMENT),
        "outcome": outcome,
        "will_be_retried": run.tags.get(tags.IS_TRANSIENT) == "true"
        or not sentences
        or may_be_healed_again(run.tags, known.healing),
    }
    tell(notice, known.notifications, context.log.warning)
