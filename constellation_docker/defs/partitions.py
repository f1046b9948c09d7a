"""What the assets are divided by: model versions, environments, and environment × model."""

from __future__ import annotations

import warnings

import dagster as dg

from constellation_docker.errors import InvalidInput

MODEL_VERSIONS = dg.DynamicPartitionsDefinition(name="model_versions")
"""`name@version`, one for every row of the card store. Keys are never reused for other content."""

MODELS = dg.DynamicPartitionsDefinition(name="models")
"""Model names that have at least one published version."""


def environments_partitions(names: list[str]) -> dg.StaticPartitionsDefinition:
    """One partition for each environment of the settings."""
    return dg.StaticPartitionsDefinition(sorted(names))


def services_partitions(environments: dg.StaticPartitionsDefinition) -> dg.MultiPartitionsDefinition:
    """`environment|model name`: the grid that is the status board of all deployments."""
    return dg.MultiPartitionsDefinition({"environment": environments, "model": MODELS})


ARROW_ONLY = dg.SpecificPartitionsPartitionMapping([])
"""Draws the lineage arrow between assets whose partitions differ, at no cost.

With Dagster's default mapping every such arrow makes the UI and every launch map all partitions on
one side to all on the other. Here a domain function decides what depends on what (the wanted state),
so the arrow is only for people to see.
"""


def partitioned_check(
    name: str,
    asset: str,
    description: str,
    *,
    reads: tuple[str, ...] = (),
    is_blocking: bool = False,
) -> dg.AssetCheckSpec:
    """A check with a verdict for each model version.

    Dagster's checks are asset-level unless they carry partitions, and then one version's failure would show on
    all. `partitions_def` on a check spec is a preview feature of Dagster 1.13, used knowingly.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return dg.AssetCheckSpec(
            name,
            asset=asset,
            description=description,
            additional_deps=reads,
            blocking=is_blocking,
            partitions_def=MODEL_VERSIONS,
        )


def model_version_of(context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext) -> str:
    """The run's `name@version`.

    Raises:
        InvalidInput: The run was launched without a partition, which Dagster lets through.
    """
    if not context.has_partition_key:
        raise InvalidInput(
            "This run was launched without a partition, so it does not know which model version it is for.",
            remedy="Launch it again with a partition: pick one in the UI, or send the tag "
            "dagster/partition=name@version over GraphQL.",
        )
    return str(context.partition_key)


def service_of(context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext) -> tuple[str, str]:
    """The run's environment and model name.

    Raises:
        InvalidInput: The run was launched without a partition, or not with `environment|model`.
    """
    key = context.partition_key if context.has_partition_key else ""
    environment, bar, model = str(key).partition("|")
    if not (environment and bar and model):
        raise InvalidInput(
            "This run was launched without a partition, so it does not know what to deploy where.",
            remedy="Launch it again with a partition: pick a cell in the UI, or send the tag "
            "dagster/partition=environment|model-name over GraphQL.",
        )
    return environment, model
