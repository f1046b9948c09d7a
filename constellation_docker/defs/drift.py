"""Drift: what runs and is not what is wanted is found within seconds, shown at its cell, and healed.

The sensor asks each engine what happened since the last tick, and compares an environment only where something did,
where a service was not as wanted at the last look, or where the last comparison is long ago. The schedule compares all
of them, and so goes on where somebody stopped the sensor.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooLong
from datetime import UTC, datetime

import dagster as dg

from constellation_docker.cards import StoreUnavailable
from constellation_docker.compose import project_name
from constellation_docker.defs import drift_history as history
from constellation_docker.defs import tags
from constellation_docker.defs.comparison import ALL, Comparer, Comparison, Inspected, request_healings
from constellation_docker.defs.drift_cursor import DriftCursor, Position, choose_reason, watch
from constellation_docker.defs.failures import explained
from constellation_docker.defs.healing import Verdict
from constellation_docker.defs.jobs import deploy_model
from constellation_docker.defs.notices import NotificationFailed, tell
from constellation_docker.defs.partitions import MODELS
from constellation_docker.defs.resources import CardStoreResource, EngineResource, SettingsResource
from constellation_docker.engine import EngineUnreachable
from constellation_docker.errors import ConstellationError
from constellation_docker.rollout import News, Watched, read_news
from constellation_docker.settings import HealingSettings, Settings, load_settings

NEWS_SECONDS = 12.0
"""Longest that a tick waits for an engine. Others are not kept waiting: all are asked side by side."""

SLOW_SECONDS = 30.0
"""An engine that let a tick wait for so long as that is left alone for this time."""


@dg.sensor(
    jobs=[deploy_model],
    minimum_interval_seconds=1,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Asks the engines what happened since the last tick, compares what runs with what is wanted, shows "
    "what differs at its cell and deploys it again, or takes it away.",
)
def drifted_deployments(
    context: dg.SensorEvaluationContext,
    settings: SettingsResource,
    engines: EngineResource,
    cards: CardStoreResource,
) -> dg.SensorResult | dg.SkipReason:
    """A run for each service that differs; an environment whose engine is away does not hold up the others."""
    known = settings.load()
    now = datetime.now(UTC)
    cursor = DriftCursor.parse(context.cursor)
    cursor.environments = {name: cursor.environments.get(name, Position()) for name in known.environments}
    notes: list[str] = []
    healings: list[Verdict] = []
    events: list[dg.AssetObservation | dg.AssetCheckEvaluation] = []
    before = cursor.differing if context.cursor else None
    due = _ask_engines(known, engines, cursor, now, notes)
    try:
        with cards.open() as store:
            comparer = Comparer(known, engines, store, context.instance, now, context.log.warning)
            for name, (reason, news) in due.items():
                position = cursor.environments[name]
                found = _compare(comparer, name, notes, position.inspected_with(news), position.traffic)
                if found is None:
                    continue
                context.log.info(f"{name} was compared, because of: {reason}.")
                healings += found.healings
                events += _show(found, position, known, context.log.warning)
                _advance(position, found, news, now, known.healing)
            requests = request_healings(
                store, context.instance, healings[: known.reconcile.max_runs_per_tick]
            )
    except StoreUnavailable as error:
        return dg.SkipReason(f"Nothing was changed: {error}")
    if cursor.differing != before or history.is_overtaken(context.instance, cursor.judged_at):
        events.append(history.judge(cursor.differing))
        cursor.judged_at = now.timestamp()
    if requests:
        context.log.warning(". ".join(notes))
    models = sorted({request.tags[tags.MODEL] for request in requests})
    return dg.SensorResult(
        run_requests=requests,
        # A deleted model has left the board, and a request for a partition that is not there would end the tick.
        dynamic_partitions_requests=[MODELS.build_add_request(models)] if models else [],
        asset_events=events,
        skip_reason=None if requests else ". ".join(notes) or _NOTHING[bool(due)],
        cursor=cursor.model_dump_json(),
    )


_NOTHING = {True: "Everything runs as wanted.", False: "The engines told of nothing."}


@dg.schedule(
    job=deploy_model,
    cron_schedule=load_settings().reconcile.cron,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Compares every environment with what is wanted, as the sensor of drift does where something happened.",
)
def heal_drift(
    context: dg.ScheduleEvaluationContext,
    settings: SettingsResource,
    engines: EngineResource,
    cards: CardStoreResource,
) -> Sequence[dg.RunRequest] | dg.SkipReason:
    """A run for each service that differs; an environment whose engine is away does not hold up the others."""
    known = settings.load()
    now = datetime.now(UTC)
    notes: list[str] = []
    healings: list[Verdict] = []
    # A schedule has no cursor, so the clock says whose turn it is.
    turn = Inspected(turn=int(now.timestamp() // 60))
    try:
        with cards.open() as store:
            comparer = Comparer(known, engines, store, context.instance, now, context.log.warning)
            for name in known.environments:
                found = _compare(comparer, name, notes, turn)
                healings += found.healings if found else []
            requests = request_healings(
                store, context.instance, healings[: known.reconcile.max_runs_per_tick]
            )
    except StoreUnavailable as error:
        return dg.SkipReason(f"Nothing was changed: {error}")
    for note in notes:
        context.log.warning(note)
    if not requests:
        return dg.SkipReason(". ".join(notes) or _NOTHING[True])
    context.instance.add_dynamic_partitions(
        str(MODELS.name), sorted({request.tags[tags.MODEL] for request in requests})
    )
    return requests


@dg.asset_check(
    asset="deployment",
    name=history.CHECK,
    description="What runs of every service is what is wanted of it. The sensor of drift keeps it up to date.",
)
def runs_as_wanted(
    context: dg.AssetCheckExecutionContext,
    settings: SettingsResource,
    engines: EngineResource,
    cards: CardStoreResource,
) -> dg.AssetCheckResult:
    """Compare every environment now, and touch nothing."""
    known = settings.load()
    now = datetime.now(UTC)
    differing: dict[str, history.Shown] = {}
    with explained(context, "all environments", "comparing"), cards.open() as store:
        comparer = Comparer(known, engines, store, context.instance, now, context.log.info)
        for name in known.environments:
            try:
                found = comparer.compare(name, ALL)
            except EngineUnreachable as error:
                differing[name] = history.Shown(text=f"It could not be compared: {error}")
                continue
            differing |= {
                key: history.describe(verdict, found.drifts[key])
                for key, verdict in found.verdicts.items()
                if verdict.answer != "busy"
            }
    verdict = history.judge(differing)
    return dg.AssetCheckResult(
        passed=verdict.passed,
        severity=verdict.severity,
        description=verdict.description,
        metadata=verdict.metadata,
    )


def _compare(
    comparer: Comparer,
    name: str,
    notes: list[str],
    inspected: Inspected,
    traffic: Mapping[str, Watched] | None = None,
) -> Comparison | None:
    """Compare one environment, and note what was found; none where it cannot be, which holds up no other one.

    Raises:
        StoreUnavailable: The card store cannot be reached, so none can be compared.
    """
    try:
        found = comparer.compare(name, inspected, traffic)
    except StoreUnavailable:
        raise
    except ConstellationError as error:
        notes.append(f"{name}: {error}")
        return None
    notes += filter(None, [found.sentence])
    return found


def _ask_engines(
    settings: Settings,
    engines: EngineResource,
    cursor: DriftCursor,
    now: datetime,
    notes: list[str],
) -> dict[str, tuple[str, News]]:
    """The environments that are to be compared now, each with the reason; what is wrong with others is noted."""
    due: dict[str, tuple[str, News]] = {}
    asked: dict[str, Future[News]] = {}
    pool = ThreadPoolExecutor(max(1, len(cursor.environments)), thread_name_prefix="news")
    for name, position in cursor.environments.items():
        if position.not_before <= now.timestamp():
            project = project_name(name, settings.environment(name))
            is_watched = position.is_shared and settings.healing.outlier_failures > 0
            asked[name] = pool.submit(_news_of, engines, name, project, position.since, is_watched)
    # Whoever does not answer in time goes on without anybody waiting for it.
    pool.shutdown(wait=False)
    for name, future in asked.items():
        position = cursor.environments[name]
        try:
            news = future.result(timeout=NEWS_SECONDS)
        except TooLong:
            position.not_before = now.timestamp() + SLOW_SECONDS
            notes.append(f"{name}: its engine does not answer within {NEWS_SECONDS:g} seconds")
        except ConstellationError as error:
            # It is compared as soon as it is back.
            position.look_at = now.timestamp()
            notes.append(f"{name}: {error}")
        else:
            reason = watch(position, news, now.timestamp(), settings.healing) or choose_reason(
                position, news, now.timestamp(), settings.healing
            )
            if reason:
                due[name] = (reason, news)
            else:
                position.since = news.until
    return due


def _news_of(engines: EngineResource, name: str, project: str, since: float | None, is_watched: bool) -> News:
    return read_news(engines.of_environment(name), project, since, is_traffic_wanted=is_watched)


def _show(
    found: Comparison,
    position: Position,
    settings: Settings,
    on_line: Callable[[str], None],
) -> list[dg.AssetObservation]:
    """What changed since it was shown last, for the cells; whoever is given up is told to the webhook, once."""
    events = []
    told: dict[str, history.Shown] = {}
    for key, verdict in found.verdicts.items():
        if verdict.answer == "busy":
            # What differs while a run is at work is its work, and no drift; what was shown before is still true.
            told |= {key: position.told[key]} if key in position.told else {}
            continue
        shown = history.describe(verdict, found.drifts[key])
        is_new = shown.is_given_up and not found.ages[key].is_given_up
        if is_new and not verdict.is_told and not _tell(verdict, shown, settings, on_line):
            # It counts as given up when somebody has been told.
            continue
        told[key] = shown
        if position.told.get(key) != shown:
            events.append(history.observe_drift(verdict, found.drifts[key], found.ages[key]))
    events += [history.observe_all_clear(key) for key in position.told if key not in found.verdicts]
    position.told = told
    return events


def _tell(verdict: Verdict, shown: history.Shown, settings: Settings, on_line: Callable[[str], None]) -> bool:
    notice = {
        "text": f"{verdict.row.key}: {shown.text}",
        "job": deploy_model.name,
        "run_id": verdict.last_run,
        "partition": verdict.row.key,
        "model_id": verdict.row.model_id,
        "environment": verdict.row.environment,
        "will_be_retried": False,
    }
    try:
        tell(notice, settings.notifications, on_line)
    except NotificationFailed as error:
        on_line(str(error))
        return False
    return True


def _advance(
    position: Position, found: Comparison, news: News, now: datetime, settings: HealingSettings
) -> None:
    """Write down that an environment was compared, and when it is to be looked at again."""
    position.since = news.until
    position.compared_at = now.timestamp()
    position.fingerprint = news.fingerprint or position.fingerprint
    position.is_shared = found.is_shared
    position.traffic = dict(found.traffic)
    position.altered = found.altered
    position.turn += 1
    if found.is_empty:
        position.not_before = now.timestamp() + settings.full_comparison_seconds
    moments = [verdict.look_at for verdict in found.verdicts.values() if verdict.look_at]
    # What is healed now is looked at again, in case its run is killed.
    moments += [now for verdict in found.verdicts.values() if verdict.answer == "heal"]
    is_untold = any(
        verdict.answer == "given up" and key not in position.told for key, verdict in found.verdicts.items()
    )
    position.look_at = now.timestamp() if is_untold else min((m.timestamp() for m in moments), default=0.0)
