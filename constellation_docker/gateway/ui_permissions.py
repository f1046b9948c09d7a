"""What a mutation from the UI asks for, in the words of the one table of permissions.

A launch in the UI does what one of our own calls does, so it needs that call's right, in that environment. A
mutation that is none of these (deleting runs, wiping assets, stopping sensors, reporting events) reaches
every environment and needs `change_in_ui`. Whatever cannot be told apart counts as reaching everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from constellation_docker.gateway.access.permissions import Action
from constellation_docker.gateway.ui_operations import LAUNCH_ARGUMENTS, Mutation, listed
from constellation_docker.run_tags import PARTITION

ENVIRONMENT_TAG = f"{PARTITION}/environment"
RANGE_TAGS = frozenset({"dagster/asset_partition_range_start", "dagster/asset_partition_range_end"})

PACKAGING = frozenset({"model_card", "model_source", "dependency_lock", "model_image", "published_image"})
PREVIEW = "compose_file"
DEPLOYMENT = "deployment"
ASSET_JOB = "__ASSET_JOB"

JOBS: Mapping[str, Action] = {
    "package_model": Action.REGISTER,
    "deploy_model": Action.DEPLOY,
    "pull_image": Action.PULL_IMAGE,
    "push_image": Action.PUSH_IMAGE,
}
ANYBODYS = frozenset({"addDynamicPartition", "reloadRepositoryLocation", "reloadWorkspace"})
"""Mutations that change nothing that runs; whoever may register a model may use them."""
ENDINGS = frozenset({"terminateRun", "terminatePipelineExecution", "terminateRuns"})


@dataclass(frozen=True)
class Demand:
    """One thing that somebody must be allowed.

    Args:
        action: What.
        environment: Where; None where the action knows no environment.
        run_id: A run that says where: the caller looks up what its tags name.
        what: The action's subject, for the audit line.
    """

    action: Action
    environment: str | None = None
    run_id: str | None = None
    what: str = ""


def demands_of(mutations: Iterable[Mutation]) -> list[Demand]:
    """Everything that must be allowed before these mutations are passed on."""
    return [demand for mutation in mutations for demand in _of_one(mutation)]


def environments_of_tags(tags: Iterable[tuple[str, str]]) -> set[str] | None:
    """The environments that a run's tags name; None where they do not say.

    Dagster believes the tag of one dimension more than the one of the whole partition, so both count.
    """
    found: set[str] = set()
    for key, value in tags:
        if key in RANGE_TAGS:
            return None
        if key == PARTITION and "@" not in value.partition("|")[0]:
            found.add(value.partition("|")[0])
        elif key == ENVIRONMENT_TAG:
            found.add(value)
    return found or None


def _of_one(mutation: Mutation) -> list[Demand]:
    name = mutation.field
    if name in ANYBODYS:
        return [Demand(Action.REGISTER, what=name)]
    if name in ENDINGS:
        runs = [*listed(mutation.arguments.get("runId")), *listed(mutation.arguments.get("runIds"))]
        return [Demand(Action.CANCEL, run_id=str(run), what=name) for run in runs] or [_everywhere(name)]
    if name in LAUNCH_ARGUMENTS:
        given = [
            (argument, launch)
            for argument in LAUNCH_ARGUMENTS[name]
            for launch in listed(mutation.arguments.get(argument))
        ]
        found = [demand for argument, launch in given for demand in _of_launch(name, argument, launch)]
        return found or [_everywhere(name)]
    return [_everywhere(name)]


def _of_launch(name: str, argument: str, launch: Any) -> list[Demand]:
    if not isinstance(launch, dict) or name == "reexecutePartitionBackfill":
        return [_everywhere(name)]
    if argument == "reexecutionParams":
        # Further tags may name another partition than the parent run's.
        if any(key.startswith("dagster/") for key, _ in _pairs(launch.get("extraTags"))):
            return [_everywhere(name)]
        return [Demand(Action.DEPLOY, run_id=str(launch.get("parentRunId")), what=name)]
    if argument == "backfillParams":
        return _of_backfill(name, launch)
    selector = launch.get("selector")
    selector = selector if isinstance(selector, dict) else {}
    action = _action(selector)
    if action is not Action.DEPLOY:
        return [Demand(action, what=name)]
    metadata = launch.get("executionMetadata")
    pairs = _pairs(metadata.get("tags") if isinstance(metadata, dict) else None)
    return _in_each(name, environments_of_tags(pairs))


def _of_backfill(name: str, launch: Mapping[str, Any]) -> list[Demand]:
    """A backfill: several cells that were selected in the grid of partitions."""
    assets = _assets(launch)
    partitions = [str(item) for item in listed(launch.get("partitionNames"))]
    is_by_name = bool(partitions) and not launch.get("allPartitions") and not launch.get("partitionsByAssets")
    if launch.get("selector") or not assets or not is_by_name:
        return [_everywhere(name)]
    if assets <= PACKAGING:
        return [Demand(Action.REGISTER, what=name)]
    if assets <= {DEPLOYMENT, PREVIEW}:
        return _in_each(
            name, {item for part in partitions for item in environments_of_tags([(PARTITION, part)]) or {""}}
        )
    return [_everywhere(name)]


def _action(selector: Mapping[str, Any]) -> Action:
    job = selector.get("pipelineName") or selector.get("jobName")
    if selector.get("pipelineName") and selector.get("jobName"):
        return Action.CHANGE_IN_UI
    if job in JOBS:
        return JOBS[str(job)]
    assets = _assets(selector)
    if assets and assets <= PACKAGING:
        return Action.REGISTER
    if assets and assets <= {DEPLOYMENT, PREVIEW}:
        return Action.DEPLOY
    return Action.CHANGE_IN_UI


def _assets(launch: Mapping[str, Any]) -> set[str]:
    """The assets that are selected; one that cannot be read has no name of ours."""
    selected: set[str] = set()
    for item in listed(launch.get("assetSelection")):
        path = item.get("path") if isinstance(item, dict) else None
        selected.add("/".join(str(part) for part in listed(path)))
    return selected


def _pairs(tags: Any) -> list[tuple[str, str]]:
    return [
        (str(tag.get("key")), str(tag.get("value"))) if isinstance(tag, dict) else ("", "")
        for tag in listed(tags)
    ]


def _in_each(name: str, environments: set[str] | None) -> list[Demand]:
    if not environments:
        return [_everywhere(name)]
    return [Demand(Action.DEPLOY, environment, what=name) for environment in sorted(environments)]


def _everywhere(name: str) -> Demand:
    return Demand(Action.CHANGE_IN_UI, what=name)


def settle_run(demand: Demand, job: str | None, tags: Mapping[str, str]) -> list[Demand]:
    """What a demand about a run comes to, once the run is known.

    Args:
        demand: It names a run.
        job: The run's job; None where there is no such run.
        tags: The run's tags.
    """
    partition = tags.get(PARTITION, "")
    is_packaging = job in {"package_model", ASSET_JOB} and "@" in partition and "|" not in partition
    is_ending = demand.action is Action.CANCEL
    own = JOBS.get(job or "", Action.DEPLOY)
    if own is not Action.DEPLOY:
        return [Demand(Action.CANCEL if is_ending else own, what=demand.what)]
    if is_packaging:
        return [Demand(Action.CANCEL if is_ending else Action.REGISTER, what=demand.what)]
    environments = environments_of_tags(tags.items())
    if job is None or not environments:
        return [_everywhere(demand.what)]
    return [Demand(demand.action, environment, what=demand.what) for environment in sorted(environments)]
