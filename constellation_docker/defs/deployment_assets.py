"""The assets of an environment: compose_file (what would run, and the plan) and deployment (one service of it)."""

from collections.abc import Callable
from contextlib import suppress

import dagster as dg
from pydantic import Field

from constellation_docker.cards import (
    CardNotFound,
    CardStore,
    DeploymentNotFound,
    DeploymentRow,
    ModelRow,
    Publication,
    Release,
)
from constellation_docker.cards.store import KEEP
from constellation_docker.compose import NotPublished
from constellation_docker.defs import metadata, tags
from constellation_docker.defs.environment import Environment
from constellation_docker.defs.failures import explained
from constellation_docker.defs.partitions import (
    ARROW_ONLY,
    environments_partitions,
    service_of,
    services_partitions,
)
from constellation_docker.defs.resources import CardStoreResource, EngineResource, SettingsResource
from constellation_docker.errors import InvalidInput
from constellation_docker.packaging import deliver_image
from constellation_docker.rollout import RolloutFailed, inspect_replicas, observe, plan_environment, roll_out


class DeployConfig(dg.Config):
    """What to deploy; with nothing given, what is wanted already, or else the newest published version.

    With nothing given a service that is wanted stopped or deleted stays so; a version, or a release to go back to,
    starts it.
    """

    version: str | None = Field(None, description="Version of the model, such as 1.0.0.")
    model_id: str | None = Field(None, description="The version's id, instead of `version`.")
    to: str | None = Field(None, description="`previous`, or a revision number: go back to that release.")
    replicas: int | None = Field(
        None, description="How many replicas; not given: as now, or as the card says."
    )


def deployment_assets(environments: list[str]) -> list[dg.AssetsDefinition]:
    """Both assets, partitioned by the environments of the settings."""
    by_environment = environments_partitions(environments)

    @dg.asset(
        partitions_def=by_environment,
        deps=[dg.AssetDep("published_image", partition_mapping=ARROW_ONLY)],
        group_name="deployment",
        kinds={"docker", "yaml"},
    )
    def compose_file(
        context: dg.AssetExecutionContext,
        settings: SettingsResource,
        engines: EngineResource,
        cards: CardStoreResource,
    ) -> dg.MaterializeResult[None]:
        """A preview: the environment's Compose file, and the plan that would bring it about. Touches nothing."""
        name = context.partition_key if context.has_partition_key else ""
        with (
            explained(context, name or "an environment", "compiling the Compose file"),
            cards.open() as store,
        ):
            environment = Environment(name, settings.load(), engines.of_environment(name))
            tags.identify_run(context, {tags.ENVIRONMENT: name, tags.ACTION: "preview"})
            compiled = environment.compile(store, context.log.info)
            environment.write(compiled)
            observed = observe(environment.engine, compiled.project)
            plan = plan_environment(
                inspect_replicas(environment.engine, observed, compiled, observed.replica_ids), compiled
            )
        return dg.MaterializeResult(
            metadata=metadata.compose_metadata(compiled)
            | {
                "changes": metadata.table(plan.change_rows()),
                "plan": metadata.table(plan.rows()),
                "steps": dg.MetadataValue.int(len(plan.operations)),
            }
        )

    @dg.asset(
        partitions_def=services_partitions(by_environment),
        deps=[
            dg.AssetDep("published_image", partition_mapping=ARROW_ONLY),
            dg.AssetDep("compose_file", partition_mapping=ARROW_ONLY),
        ],
        group_name="deployment",
        kinds={"docker", "haproxy"},
    )
    def deployment(
        context: dg.AssetExecutionContext,
        config: DeployConfig,
        settings: SettingsResource,
        engines: EngineResource,
        cards: CardStoreResource,
    ) -> dg.MaterializeResult[None]:
        """One model in one environment, brought to what is wanted with no request dropped.

        New replicas come up beside the old, take over when they are healthy, and are watched for a while.
        Where they do not become healthy the old ones never stopped serving, and the run fails with their log.
        What is wanted stopped or deleted is drained, and its containers and its route are removed.
        """
        partition = context.run.tags.get(tags.PARTITION, "a service")
        with explained(context, partition, "deploying"), cards.open() as store:
            name, model = service_of(context)
            environment = Environment(name, settings.load(), engines.of_environment(name))
            tags.identify_run(context, {tags.ENVIRONMENT: name, tags.MODEL: model, tags.ACTION: "deploy"})
            _identify(context, _want(store, environment, model, config, tags.requester_of(context)))
            with environment.leased(
                store, model, context.run.run_id, context.instance, context.log.info
            ) as lease:
                # Whoever held the lease before may have changed the wish: a deletion does.
                row = store.deployment(name, model)
                _identify(context, row)
                if row.state != "running":
                    context.log.info(f"{row.key} is wanted {row.state}: what runs of it is taken away.")
                else:
                    deliver_image(
                        _publication_of(row.row, name),
                        to=environment.engine,
                        built_on=engines.building(),
                        registry=environment.settings.registry,
                        on_line=context.log.info,
                    )
                compiled = environment.compile(store, context.log.info)
                path = environment.write(compiled)
                context.log_event(
                    dg.AssetMaterialization(
                        asset_key="compose_file",
                        partition=name,
                        description=f"Compiled to deploy {model}.",
                        metadata=metadata.compose_metadata(compiled),
                    )
                )
                try:
                    result = roll_out(
                        compiled,
                        row.row.card.slug,
                        engine=environment.engine,
                        settings=environment.own_settings,
                        lease=lease,
                        run_id=context.run.run_id,
                        compose_path=str(path),
                        on_line=context.log.info,
                    )
                except RolloutFailed as failure:
                    tags.identify_run(context, {tags.OUTCOME: failure.outcome})
                    _settle_for_the_last_stable(store, row, failure, context.log.warning)
                    raise
                store.mark_stable(name, model, row.revision)
        return dg.MaterializeResult(
            metadata=metadata.rollout_metadata(result, row),
            data_version=dg.DataVersion(result.spec_hash or row.state),
        )

    return [compose_file, deployment]


def _identify(context: dg.AssetExecutionContext, row: DeploymentRow) -> None:
    """Tag the run with the wish that it carries out."""
    tags.identify_run(
        context,
        {
            tags.MODEL_ID: row.model_id,
            tags.VERSION: row.row.card.model_version,
            tags.SERVICE_REVISION: str(row.revision),
        },
    )


def _want(
    store: CardStore, environment: Environment, model: str, config: DeployConfig, requested_by: str
) -> DeploymentRow:
    """Write down what is wanted, from the run's configuration or as it was, and return it.

    Raises:
        CardNotFound, DeploymentNotFound, ReleaseNotFound: There is no such version or release.
        NotPublished: The version has no image yet.
        InvalidInput: The configuration contradicts itself.
    """
    given = [name for name in ("version", "model_id", "to") if getattr(config, name) is not None]
    if len(given) > 1:
        raise InvalidInput(
            f"{model} cannot be deployed by {' and '.join(given)} at once.",
            remedy="Give one of version, model_id, to.",
        )
    if not given:
        with suppress(DeploymentNotFound):
            return _want_as_before(store, environment.name, model, config.replicas, requested_by)
    release: Release | None = None
    if config.to is not None:
        release = store.release(
            environment.name, model, "previous" if config.to == "previous" else _number(config.to)
        )
        row = store.get(release.model_id)
    else:
        row = _chosen_version(store, model, config)
    _publication_of(row, environment.name)
    replicas = config.replicas if config.replicas is not None else (release.replicas if release else KEEP)
    return store.want(
        environment.name,
        model,
        model_id=row.model_id,
        replicas=replicas,
        resources=release.resources if release else KEEP,
        requested_by=requested_by,
    )


def _want_as_before(
    store: CardStore, environment: str, model: str, replicas: int | None, requested_by: str
) -> DeploymentRow:
    """The wish as it stands, at most with another number of replicas: stopped stays stopped.

    Raises:
        DeploymentNotFound: There is no wish yet.
        NotPublished: Its version is to run and has no image yet.
    """
    present = store.deployment(environment, model)
    if present.state == "running":
        _publication_of(present.row, environment)
    return store.want(
        environment,
        model,
        model_id=present.model_id,
        replicas=KEEP if replicas is None else replicas,
        state=present.state,
        requested_by=requested_by,
    )


def _publication_of(row: ModelRow, environment: str) -> Publication:
    if row.publication is None:
        raise NotPublished(
            f"{row.key} cannot be deployed to {environment}: it has no published image.",
            remedy="Launch the job package_model for it, and wait for its end.",
        )
    return row.publication


def _chosen_version(store: CardStore, model: str, config: DeployConfig) -> ModelRow:
    if config.model_id is not None:
        return store.get(config.model_id)
    version = config.version
    row = store.newest_published(model) if version is None else store.find(model, version)
    if row is None:
        what = f"version {config.version}" if config.version else "published version"
        raise CardNotFound(
            f"There is no {what} of {model} in the card store.",
            remedy="Register and package it first: `constellation-docker cards add`.",
            model=model,
        )
    return row


def _number(text: str) -> int:
    if not text.isdecimal():
        raise InvalidInput(
            f"{text!r} is no release.", remedy="Give `previous` or a revision number, such as 3."
        )
    return int(text)


def _settle_for_the_last_stable(
    store: CardStore, row: DeploymentRow, failure: RolloutFailed, on_line: Callable[[str], None]
) -> None:
    """After an automatic rollback want what runs, so that nothing tries the failed release again by itself."""
    if failure.outcome != "rolled_back":
        return
    history = store.releases(row.environment, row.model_name)
    stable = next((item for item in history if item.stable_at and item.state == "running"), None)
    if stable is None:
        return
    wanted = store.want(
        row.environment,
        row.model_name,
        model_id=stable.model_id,
        replicas=stable.replicas,
        resources=stable.resources,
        requested_by=f"automatic rollback from revision {row.revision}",
    )
    store.mark_stable(row.environment, row.model_name, wanted.revision)
    on_line(f"Wanted again is the release of revision {stable.revision}, as revision {wanted.revision}.")
