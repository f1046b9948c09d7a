"""How what runs in an environment differs from what is wanted, in words. Pure: it looks at what was observed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from constellation_docker.compose import CompiledService, ComposeFile
from constellation_docker.rollout.balancer import Route
from constellation_docker.rollout.draft import is_outlier, is_ready
from constellation_docker.rollout.observed import Observed, Replica
from constellation_docker.rollout.operation import Action, Kind
from constellation_docker.rollout.outliers import SPARED, mark_outliers
from constellation_docker.rollout.plan import assume_state, plan_environment

_GROUND = frozenset({Kind.CREATE_NETWORK, Kind.CREATE_BALANCER, Kind.START_BALANCER})
"""What an environment needs before any service of it can answer. A balancer whose image or port changed, or that stock
Compose started, answers all the same: the next deployment sees to it."""

_STARTING = "starting"


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
            is_settling=bool(faults) and all(fault.endswith(f" is {_STARTING}") for fault in faults),
        )
    return DriftReport(
        services,
        tuple(operation.cause for operation in plan.operations if operation.kind in _GROUND),
        observed.foreign,
    )


def describe_faults(
    compiled: CompiledService | None,
    replicas: Sequence[Replica],
    route: Route | None,
    outliers: Mapping[str, str] | None = None,
) -> tuple[str, ...]:
    """What is wrong with a service.

    Args:
        compiled: What is wanted; None: that it is gone.
        replicas: Its containers.
        route: What the balancer does for it.
        outliers: What makes replicas outliers, by host, where that is known.
    """
    findings = outliers or {}
    if compiled is None or compiled.wanted.replicas == 0:
        return tuple(f"{replica.name} is not wanted" for replica in replicas)
    members = {member.host: member for member in (route.members if route else ())}
    faults = []
    for replica in replicas:
        if replica.spec_hash != compiled.spec_hash:
            faults.append(f"{replica.name} is of another release")
        elif not replica.is_running:
            faults.append(f"{replica.name} is {replica.state}")
        elif replica.alterations:
            faults += [f"{replica.name} {alteration}" for alteration in replica.alterations]
        elif not replica.is_healthy:
            faults.append(f"{replica.name} is {replica.health}")
        elif is_outlier(replica, members):
            faults.append(f"{replica.name} {findings.get(replica.host, SPARED)}")
        elif not is_ready(replica, members):
            faults.append(f"the balancer gives {replica.name} no requests")
    missing = compiled.wanted.replicas - len(replicas)
    if missing > 0:
        faults.append(
            f"{missing} of {compiled.wanted.replicas} replicas {'is' if missing == 1 else 'are'} missing"
        )
    hosts = {replica.host for replica in replicas}
    faults += [f"the balancer knows {host}, which is gone" for host in sorted(set(members) - hosts)]
    return tuple(faults)
