"""The schedule that packages again what failed for passing reasons."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg

from constellation_docker.cards import InvalidRow, ModelRow, StoreUnavailable
from constellation_docker.defs.jobs import package_model
from constellation_docker.defs.launches import plan_repackaging
from constellation_docker.defs.partitions import MODEL_VERSIONS
from constellation_docker.defs.past_runs import runs_on
from constellation_docker.defs.resources import CardStoreResource, SettingsResource
from constellation_docker.settings import load_settings

CRON = load_settings().reconcile.cron

UNSEEN = timedelta(minutes=1)
"""A row that has no partition after so long was overlooked by the sensor, or the sensor is stopped.
A younger one is left to it: both would launch a run for it."""


@dg.schedule(
    job=package_model,
    cron_schedule=CRON,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Packages again what was killed or failed for a passing reason, and what no sensor saw.",
)
def repackage_failed(
    context: dg.ScheduleEvaluationContext, settings: SettingsResource, cards: CardStoreResource
) -> Sequence[dg.RunRequest] | dg.SkipReason:
    """One more run for each unpublished row that deserves it."""
    reconcile = settings.load().reconcile
    try:
        with cards.open() as store:
            unpublished = store.list_unpublished()
    except StoreUnavailable as error:
        return dg.SkipReason(f"Nothing was changed: {error}")
    for row in unpublished:
        if isinstance(row, InvalidRow):
            context.log.warning(f"Skipped {row.title}: {row.error}")
    known = set(context.instance.get_dynamic_partitions(str(MODEL_VERSIONS.name)))
    unseen_since = datetime.now(UTC) - UNSEEN
    rows = [
        row
        for row in unpublished
        if isinstance(row, ModelRow) and (row.key in known or row.updated_at < unseen_since)
    ]
    runs = runs_on(context.instance, [row.key for row in rows], package_model.name)
    requests = plan_repackaging(rows, runs, reconcile.max_attempts)[: reconcile.max_runs_per_tick]
    if not requests:
        return dg.SkipReason("Nothing failed for a passing reason, and no row was overlooked.")
    # Unlike a sensor's result a schedule's cannot ask for partitions.
    missing = [str(request.partition_key) for request in requests if request.partition_key not in known]
    if missing:
        context.instance.add_dynamic_partitions(str(MODEL_VERSIONS.name), missing)
    return requests
