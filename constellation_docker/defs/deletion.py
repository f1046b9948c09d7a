"""The job delete_model: a model, or one version of it, leaves every environment and the store."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

import dagster as dg
from pydantic import Field

from constellation_docker.cards import (
    CardNotFound,
    CardStore,
    InvalidCard,
    InvalidRow,
    ModelRow,
    SlugTaken,
    slug_of,
)
from constellation_docker.compose import labels
from constellation_docker.defs import metadata, tags
from constellation_docker.defs.environment import Environment
from constellation_docker.defs.failures import explained
from constellation_docker.defs.jobs import deploy_model, package_model
from constellation_docker.defs.partitions import MODEL_VERSIONS, MODELS
from constellation_docker.defs.past_runs import runs_on
from constellation_docker.defs.resources import CardStoreResource, EngineResource, SettingsResource
from constellation_docker.engine import Engine, ImageSummary
from constellation_docker.errors import InvalidInput
from constellation_docker.rollout import RemovalResult, remove_service, remove_unused_images


class DeleteConfig(dg.Config):
    """What to delete: all versions of a model, or one of them."""

    model: str | None = Field(None, description="The model's name: all its versions go.")
    version: str | None = Field(None, description="Together with `model`: only this version.")
    model_id: str | None = Field(None, description="The id of one version, instead of `model`.")


@dg.op(tags={"kind": "docker"})
def delete_model_op(
    context: dg.OpExecutionContext,
    config: DeleteConfig,
    settings: SettingsResource,
    engines: EngineResource,
    cards: CardStoreResource,
) -> None:
    """Drain and remove containers and routes, remove images that no one else uses, mark the rows.

    Launched again it goes on where it was; what is gone already is no error. Images in a registry stay:
    other sites may run them.
    """
    subject = config.model or config.model_id or "a model"
    with explained(context, subject, "deleting"), cards.open() as store:
        rows = _rows_of(store, config, context.log.warning)
        name = rows[0].model_name
        tags.identify_run(context, {tags.MODEL: name, tags.ACTION: "delete"})
        if len(rows) == 1:
            tags.identify_run(context, {tags.MODEL_ID: rows[0].model_id, tags.VERSION: rows[0].model_version})
        ids = {row.model_id for row in rows}
        removed: list[dict[str, str]] = []
        for wanted in store.deployments_of(name):
            place = wanted.environment
            if place is None or wanted.model_id not in ids:
                continue
            if place not in settings.load().environments:
                context.log.warning(f"{wanted.key} stays: no environment has that name any more.")
                continue
            if isinstance(wanted, InvalidRow):
                context.log.warning(f"The row of {wanted.key} cannot be used: {wanted.error}")
            environment = Environment(place, settings.load(), engines.of_environment(place))
            has_slug = not (isinstance(wanted, InvalidRow) and isinstance(wanted.error, SlugTaken))
            result = _remove_deployment(context, store, environment, name, ids, has_slug=has_slug)
            removed += [{"environment": place, "removed": item} for item in result.containers]
        images = _remove_images(engines.building(), store, rows, context.log.info)
        removed += [{"environment": "(building engine)", "removed": image} for image in images]
        for row in rows:
            store.remove(row.model_id)
            context.log.info(f"{row.key} is marked as removed.")
        _remove_partitions(context.instance, store, rows)
    context.add_output_metadata({"removed": metadata.table(removed), "versions": len(rows)})


@dg.job(
    tags={tags.ACTION: "delete"},
    description="Delete a model or one version of it: containers, routes, images that no one else uses, rows.",
)
def delete_model() -> None:
    """Delete a model or one version of it."""
    delete_model_op()


@dataclass(frozen=True)
class Version:
    """A model version that is to go, whether its row can be used or not."""

    model_id: str
    model_name: str
    model_version: str

    @classmethod
    def of(cls, row: ModelRow | InvalidRow) -> Self:
        """The version that a row is about."""
        if isinstance(row, InvalidRow):
            return cls(row.model_id, row.model_name, row.model_version)
        return cls(row.model_id, row.card.model_name, row.card.model_version)

    @property
    def key(self) -> str:
        """Its partition key."""
        return f"{self.model_name}@{self.model_version}"


def _rows_of(store: CardStore, config: DeleteConfig, on_line: Callable[[str], None]) -> list[Version]:
    """What is to go. Of a row that cannot be used it is told why; what bears its name goes all the same.

    Raises:
        InvalidInput: The configuration contradicts itself.
        CardNotFound: There is nothing of that name or id.
    """
    if (config.model is None) == (config.model_id is None):
        raise InvalidInput("What is to be deleted is not clear.", remedy="Give either model or model_id.")
    if config.model_id is not None:
        with suppress(InvalidCard, SlugTaken):
            return [Version.of(store.get(config.model_id))]
    found = []
    for row in store.list_models(include_deleted=True, search=config.model):
        version = Version.of(row)
        is_meant = (
            version.model_id == config.model_id
            if config.model is None
            else version.model_name == config.model and config.version in {None, version.model_version}
        )
        if is_meant:
            found.append(version)
            if isinstance(row, InvalidRow):
                on_line(f"The row of {row.title} cannot be used: {row.error}")
    if not found:
        raise CardNotFound(
            f"There is no such model in the card store: {config.model or config.model_id}.",
            remedy="`constellation-docker cards list` shows all.",
        )
    return found


def _remove_deployment(
    context: dg.OpExecutionContext,
    store: CardStore,
    environment: Environment,
    name: str,
    ids: set[str],
    *,
    has_slug: bool,
) -> RemovalResult:
    """Take one service out of one environment, and write down that it is not wanted there.

    Args:
        name: The model.
        ids: The versions that are to go; the images of others stay.
        has_slug: Whether the model's slug is its own; another model's service is not touched.
    """
    result = RemovalResult()
    revision = store.withdraw(environment.name, name, requested_by=tags.requester_of(context))
    with environment.leased(store, name, context.run_id, context.instance, context.log.info) as lease:
        compiled = environment.compile(store, context.log.info)
        if has_slug:
            of_others = [
                image.id
                for image in environment.engine.list_images({labels.MODEL_ID: None})
                if image.labels[labels.MODEL_ID] not in ids
            ]
            result = remove_service(
                compiled,
                slug_of(name),
                engine=environment.engine,
                settings=environment.own_settings,
                kept_images=[*_images_in_use(store, without=ids), *of_others],
                lease=lease,
                on_line=context.log.info,
            )
        environment.write(compiled)
        store.mark_stable(environment.name, name, revision)
    return result


def _images_in_use(store: CardStore, *, without: set[str]) -> list[str]:
    return [
        row.publication.image
        for row in store.list_models()
        if isinstance(row, ModelRow) and row.publication is not None and row.model_id not in without
    ]


def _remove_images(
    engine: Engine, store: CardStore, rows: Sequence[Version], on_line: Callable[[str], None]
) -> tuple[str, ...]:
    """Remove these versions' images from the building engine, unless a container or another version uses them."""
    ids = {
        image.id
        for row in rows
        for image in engine.list_images({labels.MODEL_ID: row.model_id})
        if _is_of(row, image)
    }
    removed = remove_unused_images(engine, ids, _images_in_use(store, without={row.model_id for row in rows}))
    for image in removed:
        on_line(f"Removed the image {image}.")
    return removed


def _is_of(row: Version, image: ImageSummary) -> bool:
    """Whether an image bears the model's own name, or none: what somebody builds upon ours inherits its labels."""
    names = {tag.rpartition(":")[0].rpartition("/")[2] for tag in image.tags}
    return names <= {slug_of(row.model_name)}


def _remove_partitions(instance: dg.DagsterInstance, store: CardStore, rows: Sequence[Version]) -> None:
    """Take removed versions off the board, except where a run is still at work: it would die at its output."""
    busy = {
        run.partition
        for run in runs_on(instance, [row.key for row in rows], package_model.name)
        if run.is_in_progress
    }
    for row in rows:
        if row.key not in busy:
            instance.delete_dynamic_partition(str(MODEL_VERSIONS.name), row.key)
    name = rows[0].model_name
    cells = [row.key for row in store.deployments_of(name)]
    is_busy = any(run.is_in_progress for run in runs_on(instance, cells, deploy_model.name))
    if store.newest_published(name) is None and not is_busy:
        instance.delete_dynamic_partition(str(MODELS.name), name)
