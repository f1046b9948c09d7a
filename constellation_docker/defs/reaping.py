"""Clean-up: what belongs to nothing any more goes, on every engine and in `home`, and the board shows what that freed."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import dagster as dg
from pydantic import Field

from constellation_docker.cards import CardStore, DeploymentRow, InvalidRow, ModelRow, slug_of
from constellation_docker.compose import labels, project_name
from constellation_docker.defs import metadata, tags
from constellation_docker.defs.environment import Environment
from constellation_docker.defs.failures import explained
from constellation_docker.defs.jobs import deploy_model
from constellation_docker.defs.launches import IN_PROGRESS
from constellation_docker.defs.past_runs import DELETION
from constellation_docker.defs.resources import CardStoreResource, EngineResource, SettingsResource
from constellation_docker.engine import Engine
from constellation_docker.errors import ConstellationError
from constellation_docker.packaging.cache import (
    list_cache,
    plan_cache_removal,
    read_records,
    remove_cached,
)
from constellation_docker.rollout import remove_service
from constellation_docker.rollout.reaper import (
    Claims,
    Holdings,
    Leftover,
    measure,
    plan_reaping,
    reap,
    take_stock,
)
from constellation_docker.settings import Settings, load_settings

ASSET = "leftovers"


class ReapConfig(dg.Config):
    """How to clean up."""

    dry_run: bool | None = Field(
        None, description="Only report. Not given: as the setting reaping.dry_run says."
    )


@dataclass(frozen=True)
class LiveRuns:
    """What runs are at work on now.

    Attributes:
        models: Names of models.
        is_packaging: Whether one of them may be building images or writing to `home`.
    """

    models: frozenset[str]
    is_packaging: bool


@dg.asset(name=ASSET, group_name="upkeep", kinds={"docker"})
def leftovers(
    context: dg.AssetExecutionContext,
    config: ReapConfig,
    settings: SettingsResource,
    engines: EngineResource,
    cards: CardStoreResource,
) -> dg.MaterializeResult[None]:
    """What crashed trials, old releases and removed models left behind. Materializing it removes it.

    Nothing is touched that is young, that an environment or a release to return to needs, or that a live run may be
    working on.
    """
    known = settings.load()
    is_dry = known.reaping.dry_run if config.dry_run is None else config.dry_run
    rows: list[dict[str, metadata.Cell]] = []
    problems: list[str] = []
    with explained(context, "the engines", "cleaning up"), cards.open() as store:
        live = find_live_runs(context.instance, without=context.run.run_id)
        places = _places(known, engines, problems)
        for engine, environments, is_building in places:
            claims = _claims(store, known, environments, live, is_building=is_building)
            try:
                rows += _clean_engine(engine, claims, known, is_dry, context.log.info, problems)
            except ConstellationError as error:
                problems.append(f"{engine.url}: {error}")
        if not is_dry:
            rows += _remove_orphans(context, store, known, engines, problems)
        if not live.is_packaging:
            rows += _clean_home(store, known, is_dry, context.log.info)
    for problem in problems:
        context.log.warning(problem)
    freed = round(sum((float(row["freed (MB)"] or 0) for row in rows), 0.0), 3)
    return dg.MaterializeResult(
        metadata={
            "freed (MB)": dg.MetadataValue.float(0.0 if is_dry else freed),
            "to be freed (MB)": dg.MetadataValue.float(freed if is_dry else 0.0),
            "things": dg.MetadataValue.int(len(rows)),
            "dry run": dg.MetadataValue.bool(is_dry),
            "leftovers": metadata.table(rows),
            "problems": metadata.table([{"problem": problem} for problem in problems]),
        }
    )


reap_job = dg.define_asset_job(
    "reap",
    selection=dg.AssetSelection.assets(ASSET),
    description="Remove what belongs to nothing any more; with dry_run only say what that is.",
    tags={tags.ACTION: "reap"},
)

reap_schedule = dg.ScheduleDefinition(
    name="reap",
    job=reap_job,
    cron_schedule=load_settings().reaping.cron,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Removes what crashed trials, old releases and removed models left behind, and reports what that freed.",
)


def find_live_runs(instance: dg.DagsterInstance, *, without: str) -> LiveRuns:
    """What is being worked on.

    Args:
        instance: Dagster's instance.
        without: The id of the run that asks.
    """
    runs = [
        run
        for run in instance.get_runs(dg.RunsFilter(statuses=list(IN_PROGRESS)))
        if run.run_id != without and run.job_name != reap_job.name
    ]
    models = {run.tags.get(tags.MODEL) or _model_of(run.tags.get(tags.PARTITION, "")) for run in runs}
    others = {deploy_model.name, DELETION}
    return LiveRuns(frozenset(models - {""}), any(run.job_name not in others for run in runs))


def retained_images(
    store: CardStore, environments: Iterable[str], retained_releases: int, *, is_building: bool
) -> set[str]:
    """References of images that stay.

    Args:
        store: The card store.
        environments: Names of all environments.
        retained_releases: How many releases of each service can be returned to.
        is_building: Whether this is the engine that builds: without a registry it has the only copies.

    Returns:
        What is wanted, what ran last, the newest published version of each model, and what exists nowhere else.
    """
    kept: set[str] = set()
    for name in environments:
        for row in store.wanted(name, include_deleted=True):
            if isinstance(row, DeploymentRow):
                if row.state == "deleted":
                    continue
                if row.row.publication is not None:
                    kept.add(row.row.publication.image)
            history = store.releases(name, row.model_name)
            images = [release.image for release in history if release.image and release.state == "running"]
            kept.update(list(dict.fromkeys(images))[:retained_releases])
            stable = next((item for item in history if item.stable_at and item.image), None)
            if stable is not None and stable.image:
                kept.add(stable.image)
    newest: dict[str, ModelRow] = {}
    for model in store.list_models():
        if isinstance(model, InvalidRow) or model.publication is None or model.published_at is None:
            continue
        if is_building and "@" not in model.publication.image:
            kept.add(model.publication.image)
        present = newest.get(model.card.model_name)
        if present is None or (present.published_at or model.published_at) <= model.published_at:
            newest[model.card.model_name] = model
    return kept | {model.publication.image for model in newest.values() if model.publication is not None}


def known_models(store: CardStore) -> frozenset[str]:
    """Ids of versions whose images may be judged: those that are published or deleted.

    What waits for its publication may be in somebody's hands, and what the store does not know is another
    installation's.
    """
    return frozenset(
        row.model_id
        for row in store.list_models(include_deleted=True)
        if row.deleted_at is not None or (isinstance(row, ModelRow) and row.published_at is not None)
    )


def find_orphans(
    holdings: Holdings, project: str, slugs: set[str], *, now: float, min_age_seconds: float
) -> dict[str, str]:
    """Services that run in an environment although the card store never heard of them: slug → model.

    Args:
        holdings: What the environment's engine has.
        project: The environment's Compose project.
        slugs: Of all its deployments, in whatever state.
        now: Seconds since 1970.
        min_age_seconds: Younger ones may belong to a row that is only being written.
    """
    orphans: dict[str, str] = {}
    for row in holdings.containers:
        found = row.get("Labels") or {}
        slug = found.get(labels.COMPOSE_SERVICE, "")
        if (
            found.get(labels.COMPOSE_PROJECT) == project
            and found.get(labels.ROLE) == labels.MODEL_ROLE
            and slug not in slugs
            and now - float(row.get("Created") or 0) >= min_age_seconds
        ):
            orphans[slug] = found.get(labels.MODEL, slug)
    return orphans


def _places(
    settings: Settings, engines: EngineResource, problems: list[str]
) -> list[tuple[Engine, list[str], bool]]:
    """Each engine once, with the environments on it and whether it builds; those that are away are noted."""
    found: dict[str, tuple[Engine, list[str], bool]] = {}
    try:
        building = engines.building()
        found[building.url] = (building, [], True)
    except ConstellationError as error:
        problems.append(f"the building engine: {error}")
    for name in settings.environments:
        try:
            engine = engines.of_environment(name)
        except ConstellationError as error:
            problems.append(f"{name}: {error}")
            continue
        found.setdefault(engine.url, (engine, [], False))[1].append(name)
    return list(found.values())


def _claims(
    store: CardStore, settings: Settings, environments: Sequence[str], live: LiveRuns, *, is_building: bool
) -> Claims:
    return Claims(
        projects=frozenset(project_name(name, settings.environment(name)) for name in environments),
        model_ids=known_models(store),
        images=frozenset(
            retained_images(
                store, settings.environments, settings.rollout.retained_releases, is_building=is_building
            )
        ),
        busy_models=live.models,
        is_building=live.is_packaging,
        prefix=settings.build.image_prefix,
        repository=settings.registry.repository,
    )


def _clean_engine(
    engine: Engine,
    claims: Claims,
    settings: Settings,
    is_dry: bool,
    on_line: Callable[[str], None],
    problems: list[str],
) -> list[dict[str, metadata.Cell]]:
    planned = measure(
        engine,
        plan_reaping(
            take_stock(engine), claims, now=engine.now(), min_age_seconds=settings.reaping.min_age_seconds
        ),
    )
    if is_dry:
        return [_row(engine.url, item) for item in planned]
    report = reap(engine, planned, on_line=on_line)
    problems += [f"{engine.url}: {name} stays: {reason}" for name, reason in report.kept.items()]
    return [_row(engine.url, item) for item in report.removed]


def _remove_orphans(
    context: dg.AssetExecutionContext,
    store: CardStore,
    settings: Settings,
    engines: EngineResource,
    problems: list[str],
) -> list[dict[str, metadata.Cell]]:
    """Drain and remove services that no row wants, and none ever did."""
    rows: list[dict[str, metadata.Cell]] = []
    for name in settings.environments:
        try:
            environment = Environment(name, settings, engines.of_environment(name))
            slugs = {slug_of(row.model_name) for row in store.wanted(name, include_deleted=True)}
            engine, project = environment.engine, project_name(name, settings.environment(name))
            orphans = find_orphans(
                take_stock(engine),
                project,
                slugs,
                now=engine.now(),
                min_age_seconds=settings.reaping.min_age_seconds,
            )
            for slug, model in orphans.items():
                with environment.leased(
                    store, model, context.run.run_id, context.instance, context.log.info
                ) as lease:
                    done = remove_service(
                        environment.compile(store, context.log.info),
                        slug,
                        engine=engine,
                        settings=environment.own_settings,
                        kept_images=retained_images(
                            store, settings.environments, settings.rollout.retained_releases, is_building=True
                        ),
                        lease=lease,
                        on_line=context.log.info,
                    )
                cause = "no deployment of the card store wants it"
                rows += [
                    _row(engine.url, Leftover("container", item, item, cause)) for item in done.containers
                ]
        except ConstellationError as error:
            problems.append(f"{name}: {error}")
    return rows


def _clean_home(
    store: CardStore, settings: Settings, is_dry: bool, on_line: Callable[[str], None]
) -> list[dict[str, metadata.Cell]]:
    models = [row for row in store.list_models() if isinstance(row, ModelRow)]
    entries = list_cache(settings.home)
    chosen = plan_cache_removal(
        entries,
        living={row.key for row in models},
        needed=read_records(entries, {row.key for row in models if row.published_at is None}),
        now=time.time(),
        cache_seconds=settings.reaping.cache_seconds,
    )
    for entry in () if is_dry else chosen:
        remove_cached(entry)
        on_line(f"removed {entry.kind} {entry.key} from home")
    cause = "no version that waits for its publication needs it"
    return [
        _row("home", Leftover("cache", entry.key, f"{entry.kind} {entry.key}", cause, (), entry.size_bytes))
        for entry in chosen
    ]


def _row(where: str, item: Leftover) -> dict[str, metadata.Cell]:
    return {
        "where": where,
        "what": item.sort,
        "name": item.name,
        "why": item.cause,
        "freed (MB)": metadata.megabytes(item.size_bytes),
    }


def _model_of(partition: str) -> str:
    return partition.partition("|")[2] or partition.rpartition("@")[0]
