"""Schedules that put things right by themselves: packaging that failed for passing reasons, and drift."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg

from constellation_docker.cards import DeploymentRow, InvalidRow, ModelRow, StoreUnavailable
from constellation_docker.defs import tags
from constellation_docker.defs.environment import Environment
from constellation_docker.defs.jobs import deploy_model, package_model
from constellation_docker.defs.launches import plan_healing, plan_repackaging
from constellation_docker.defs.partitions import MODEL_VERSIONS, MODELS
from constellation_docker.defs.past_runs import runs_on, runs_on_services
from constellation_docker.defs.resources import CardStoreResource, EngineResource, SettingsResource
from constellation_docker.errors import ConstellationError
from constellation_docker.rollout import Kind, Plan, observe, plan_environment
from constellation_docker.settings import load_settings

CRON = load_settings().reconcile.cron

UNSEEN = timedelta(minutes=1)
"""A row that has no partition after so long was overlooked by the sensor, or the sensor is stopped.
A younger one is left to it: both would launch a run for it."""

GROUND = frozenset({Kind.CREATE_NETWORK, Kind.CREATE_BALANCER, Kind.START_BALANCER})
"""What an environment needs before any service of it can answer."""


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


@dg.schedule(
    job=deploy_model,
    cron_schedule=CRON,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Compares what runs with what is wanted, and deploys again, or takes away, what differs.",
)
def heal_drift(
    context: dg.ScheduleEvaluationContext,
    settings: SettingsResource,
    engines: EngineResource,
    cards: CardStoreResource,
) -> Sequence[dg.RunRequest] | dg.SkipReason:
    """A run for each service that differs; an environment whose engine is away does not hold up the others."""
    known = settings.load()
    moment = datetime.now(UTC).isoformat(timespec="minutes")
    requests: list[dg.RunRequest] = []
    notes: list[str] = []
    try:
        with cards.open() as store:
            for name in known.environments:
                # Deleted ones too: what still runs of them is drift.
                wanted = store.wanted(name, include_deleted=True)
                rows = [row for row in wanted if isinstance(row, DeploymentRow)]
                if not rows:
                    continue
                try:
                    environment = Environment(name, known, engines.of_environment(name))
                    compiled = environment.compile_to_compare(store, context.log.warning)
                    plan = plan_environment(observe(environment.engine, compiled.project), compiled)
                except StoreUnavailable:
                    raise
                except ConstellationError as error:
                    notes.append(f"{name}: {error}")
                    continue
                drifted = choose_drifted(rows, plan)
                runs = runs_on_services(context.instance, rows)
                requests += plan_healing(rows, drifted, runs, known.reconcile.max_attempts, moment)
    except StoreUnavailable as error:
        return dg.SkipReason(f"Nothing was changed: {error}")
    for note in notes:
        context.log.warning(note)
    requests = requests[: known.reconcile.max_runs_per_tick]
    if not requests:
        return dg.SkipReason("; ".join(notes) or "Everything runs as wanted.")
    # A deleted model has left the board, and a request for a partition that is not there would end the tick.
    context.instance.add_dynamic_partitions(
        str(MODELS.name), sorted({request.tags[tags.MODEL] for request in requests})
    )
    return requests


def choose_drifted(rows: Sequence[DeploymentRow], plan: Plan) -> set[str]:
    """The models whose services are to be deployed again.

    Args:
        rows: The environment's deployments.
        plan: What would bring the whole environment to what is wanted.

    Returns:
        Those that differ; where none does and network or balancer are missing, one that is stable: the deployment of
        any service brings those back, with the routes of all.
    """
    changed = {change.service for change in plan.changes if change.action != "keep"}
    drifted = {row.model_name for row in rows if row.row.card.slug in changed}
    if not drifted and any(operation.kind in GROUND for operation in plan.operations):
        stable = [row for row in rows if row.state == "running" and row.stable_revision == row.revision]
        drifted = {row.model_name for row in stable[:1]}
    return drifted
