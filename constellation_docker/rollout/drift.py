"""How what runs in an environment differs from what is wanted, in words. Pure: it looks at what was observed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from constellation_docker.compose import ComposeFile
from constellation_docker.rollout.faults import STARTING, describe_faults
from constellation_docker.rollout.observed import Observed
from constellation_docker.rollout.operation import Action, Kind
from constellation_docker.rollout.outliers import mark_outliers
from constellation_docker.rollout.plan import assume_state, plan_environment

_GROUND = frozenset({Kind.CREATE_NETWORK, Kind.CREATE_BALANCER, Kind.START_BALANCER})
"""What an environment needs before any service of it can answer. A balancer whose image or port changed, or that stock
Compose started, answers all the same: the next deployment sees to it."""


@dataclass(frozen=True)
class Drift:
    """How one service differs.

    Attributes:
        slug: The service.
        action: What a deployment of it would do.
        running: What runs, in words.
        wanted: What is wanted, in words.
        faults: What is wrong with it, one sentence for each replica or route.
        is_settling: Docker has started it anew and has not said yet how it is.
    """

    slug: str
    action: Action
    running: str
    wanted: str
    faults: tuple[str, ...]
    is_settling: bool = False


@dataclass(frozen=True)
class DriftReport:
    """How an environment differs.

    Attributes:
        services: The services that differ, by slug.
        ground: What is wrong with its network and balancer; empty where nothing is.
        foreign: Names of the project's containers that are not ours. Nobody touches them.
    """

    services: Mapping[str, Drift] = field(default_factory=dict)
    ground: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()


def find_drift(
    observed: Observed, compose_file: ComposeFile, outliers: Mapping[str, str] | None = None
) -> DriftReport:
    """Compare an environment as it is with its Compose file.

    Args:
        observed: As it is.
        compose_file: As it is to be. What it keeps as it runs is no drift.
        outliers: What makes replicas outliers that fail requests, by host; others the balancer has marked.
    """
    observed = mark_outliers(observed, outliers or {})
    plan = plan_environment(observed, compose_file)
    state = assume_state(observed)
    services = {}
    for change in plan.changes:
        if change.action == "keep":
            continue
        slug = change.service
        compiled, replicas = compose_file.services.get(slug), observed.replicas(slug)
        faults = describe_faults(compiled, replicas, state.routes.get(slug), outliers)
        services[slug] = Drift(
            slug,
            change.action,
            change.running,
            change.wanted,
            faults or (change.cause,),
            is_settling=bool(faults) and all(fault.endswith(f" is {STARTING}") for fault in faults),
        )
    return DriftReport(
        services,
        tuple(operation.cause for operation in plan.operations if operation.kind in _GROUND),
        observed.foreign,
    )
