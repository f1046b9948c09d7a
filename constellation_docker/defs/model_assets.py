"""The assets of one model version: model_card ▶ model_source ▶ dependency_lock ▶ model_image ▶ published_image.

One run packages one version. Each asset is started again on its own, too: it reads the records of those
before it, and whatever is content-addressed and there already is not made again.
"""

from datetime import UTC, datetime
from typing import Any

import dagster as dg
from pydantic import BaseModel

from constellation_docker.cards import CardNotFound, CardStore, ModelCard, ModelRow, Publication
from constellation_docker.defs import metadata, tags
from constellation_docker.defs.failures import explained
from constellation_docker.defs.launches import model_tags
from constellation_docker.defs.partitions import MODEL_VERSIONS, MODELS, model_version_of
from constellation_docker.defs.resources import (
    CardStoreResource,
    EngineResource,
    SettingsResource,
)
from constellation_docker.defs.verdicts import require_verdicts
from constellation_docker.packaging import (
    BaseImage,
    BuiltImage,
    ContainerUv,
    DependencyLock,
    Export,
    PublishedImage,
    RuntimeChoice,
    Source,
    build_image,
    choose_runtime,
    ensure_base_image,
    export_source,
    fetch_source,
    plan_image,
    publish_image,
    resolve_lock,
)

DATA_VERSION_TAG = "dagster/data_version"
"""How Dagster writes a materialization's data version down; those that it logs itself get it from their result."""


class CardRecord(BaseModel):
    """A row of the card store as it was when its packaging began.

    Args:
        model_id, revision, created_at: The row's.
        registration: The card, in the form in which it was registered.
        publication: What packaging learned before, where the version is published.
    """

    model_id: str
    revision: int
    created_at: datetime
    registration: dict[str, Any]
    publication: Publication | None

    @property
    def card(self) -> ModelCard:
        """The card itself."""
        return ModelCard.from_registration(self.registration)


class SourceRecord(CardRecord):
    """The pinned source; its card is merged with the one in the repository.

    Args:
        source: None where the card names a ready-made image.
    """

    source: Source | None


class LockRecord(BaseModel):
    """The lock, the runtime that it is for and the base image whose Python it fits.

    Args:
        source: What is served: the repository, or its export to ONNX; None for a ready-made image.
        lock: None where the image brings its own environment.
        export: What became of the export to ONNX; None for a ready-made image.
    """

    source: Source | None
    lock: DependencyLock | None
    choice: RuntimeChoice
    base: BaseImage
    export: Export | None


def _row_of(store: CardStore, key: str) -> ModelRow:
    name, _, version = key.rpartition("@")
    row = store.find(name, version)
    if row is None or row.deleted_at is not None:
        raise CardNotFound(
            f"There is no model version {key} in the card store.",
            remedy="Register it first: `constellation-docker cards add`, or POST /docker/models/.",
            model=key,
        )
    return row


@dg.asset(
    partitions_def=MODEL_VERSIONS,
    group_name="packaging",
    kinds={"huggingface", "markdown"},
    io_manager_key="records",
)
def model_card(
    context: dg.AssetExecutionContext, cards: CardStoreResource
) -> dg.MaterializeResult[CardRecord]:
    """The maintained card of one model version: what its team registered, and what packaging learned.

    Materialized at the start of packaging from the row, and once more when the image is published, then
    with the repository's card, the commit, the lock, the image and the endpoint's configuration.
    """
    with explained(context, context.run.tags.get(tags.PARTITION, "a model"), "reading the model card"):
        key = model_version_of(context)
        with cards.open() as store:
            row = _row_of(store, key)
    tags.identify_run(context, {**model_tags(row), tags.ACTION: "package"})
    record = CardRecord(
        model_id=row.model_id,
        revision=row.revision,
        created_at=row.created_at,
        registration=row.card.to_registration(),
        publication=row.publication,
    )
    return dg.MaterializeResult(
        value=record,
        metadata=metadata.card_metadata(row, row.card),
        data_version=dg.DataVersion(row.card.digest),
    )


@dg.asset(
    partitions_def=MODEL_VERSIONS,
    group_name="packaging",
    kinds={"git", "huggingface"},
    io_manager_key="records",
)
def model_source(
    context: dg.AssetExecutionContext, settings: SettingsResource, model_card: CardRecord
) -> dg.MaterializeResult[SourceRecord]:
    """The repository at one commit, with a content digest, in the content-addressed store.

    A published version stays at the commit that it was published from, wherever its branch has moved.
    """
    known, card = settings.load(), model_card.card
    with explained(context, card.key, "fetching the repository"):
        source = None
        if card.serving.runtime != "image":
            source = fetch_source(
                card.repo_url,
                model_card.publication.commit if model_card.publication else card.branch,
                settings=known.source,
                ca_bundle=known.index.ca_bundle,
                store=known.home,
                model=card.key,
                on_line=context.log.info,
            )
        merged = card.merged_with(source.readme) if source and source.readme else card
    for note in merged.notes:
        context.log.warning(note)
    record = SourceRecord(
        **model_card.model_dump(exclude={"registration"}),
        registration=merged.to_registration(),
        source=source,
    )
    return dg.MaterializeResult(
        value=record,
        metadata=metadata.source_metadata(source, merged),
        data_version=dg.DataVersion(source.digest if source else merged.digest),
    )


@dg.asset(
    partitions_def=MODEL_VERSIONS,
    group_name="packaging",
    kinds={"uv", "python"},
    io_manager_key="records",
)
def dependency_lock(
    context: dg.AssetExecutionContext,
    settings: SettingsResource,
    engines: EngineResource,
    model_source: SourceRecord,
) -> dg.MaterializeResult[LockRecord]:
    """Every package of the image, resolved for its Python and platform, with hashes.

    Here it is decided what serves the model. A transformers repository without ONNX weights is exported first,
    where its card allows, and served by the small onnx runtime if it answers like the original.
    """
    known, card = settings.load(), model_source.card
    with explained(context, card.key, "locking dependencies"):
        choice = choose_runtime(model_source.source, card)
        context.log.info(f"Runtime {choice.runtime}: {choice.reason}")
        engine = engines.building()
        base = ensure_base_image(engine, "python", known.base_image, on_line=context.log.info)
        source, lock, export = model_source.source, None, None
        if source is not None:
            export = export_source(
                source,
                card,
                choice,
                engine,
                model_id=model_source.model_id,
                base=base,
                settings=known,
                on_line=context.log.info,
            )
            source, choice = export.source, export.choice
            lock = resolve_lock(
                source,
                card,
                choice,
                base=base,
                settings=known.index,
                store=known.home,
                on_line=context.log.info,
                builder=ContainerUv(engine, base, known.index, network=known.build.network),
            )
    for note in choice.notes:
        context.log.warning(note)
    return dg.MaterializeResult(
        value=LockRecord(source=source, lock=lock, choice=choice, base=base, export=export),
        metadata=metadata.lock_metadata(lock, choice, base) | metadata.export_metadata(export),
        data_version=dg.DataVersion(lock.digest if lock else "none"),
    )


@dg.asset(
    partitions_def=MODEL_VERSIONS,
    group_name="packaging",
    kinds={"docker"},
    io_manager_key="records",
    pool="docker_build",
)
def model_image(
    context: dg.AssetExecutionContext,
    settings: SettingsResource,
    engines: EngineResource,
    model_source: SourceRecord,
    dependency_lock: LockRecord,
) -> dg.MaterializeResult[BuiltImage]:
    """The built image: base, locked environment, server, weights, card; nothing is rebuilt that is there already."""
    known, card = settings.load(), model_source.card
    with explained(context, card.key, "building the image"):
        recipe = plan_image(
            card,
            dependency_lock.source,
            dependency_lock.lock,
            dependency_lock.choice,
            dependency_lock.base,
            model_id=model_source.model_id,
            created_at=model_source.created_at,
        )
        built = build_image(recipe, engines.building(), settings=known, on_line=context.log.info)
    context.log.info(
        f"{built.tag}: {built.size_bytes / 1e6:.1f} MB, {'there already' if built.is_cached else 'built'}."
    )
    return dg.MaterializeResult(
        value=built,
        metadata=metadata.image_metadata(built),
        data_version=dg.DataVersion(built.recipe_digest),
    )


@dg.asset(
    partitions_def=MODEL_VERSIONS,
    group_name="packaging",
    kinds={"docker", "oci"},
    io_manager_key="records",
)
def published_image(
    context: dg.AssetExecutionContext,
    settings: SettingsResource,
    engines: EngineResource,
    cards: CardStoreResource,
    model_source: SourceRecord,
    dependency_lock: LockRecord,
    model_image: BuiltImage,
) -> dg.MaterializeResult[PublishedImage]:
    """The image in the registry, pinned by digest; from here on the model version is immutable."""
    known, card = settings.load(), model_source.card
    with explained(context, card.key, "publishing the image"):
        require_verdicts(context.instance, card.key, model_image)
        published = publish_image(
            model_image, card, engines.building(), registry=known.registry, on_line=context.log.info
        )
        publication = _publication(model_source, dependency_lock, model_image, published)
        with cards.open() as store:
            row = store.publish(model_source.model_id, publication, revision=model_source.revision)
    context.instance.add_dynamic_partitions(str(MODELS.name), [card.model_name])
    context.log_event(
        dg.AssetMaterialization(
            asset_key="model_card",
            partition=card.key,
            description="The maintained card, with what packaging learned.",
            metadata=metadata.card_metadata(row, card),
            # The row is the same: with another data version all that was made of it would count as out of date.
            tags={DATA_VERSION_TAG: row.card.digest},
        )
    )
    return dg.MaterializeResult(
        value=published,
        metadata=metadata.publication_metadata(published),
        data_version=dg.DataVersion(published.digest or published.reference),
    )


def _publication(
    source: SourceRecord, lock: LockRecord, built: BuiltImage, published: PublishedImage
) -> Publication:
    """What packaging learned, for the card store."""
    return Publication(
        model_id=source.model_id,
        commit=source.source.commit if source.source else built.image_id,
        source_digest=source.source.digest if source.source else built.image_id,
        lock_digest=lock.lock.digest if lock.lock and lock.lock.packages else None,
        image=published.reference,
        image_digest=published.digest,
        image_size_bytes=built.size_bytes,
        runtime=str(built.runtime),
        task=lock.choice.task,
        port=built.port,
        health_path=source.card.serving.health_path,
        ready_path=built.ready_path,
        server_version=built.server_version,
        is_pushed=published.is_pushed,
        published_at=source.publication.published_at if source.publication else datetime.now(UTC),
    )
