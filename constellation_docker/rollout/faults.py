"""What is wrong with a service that runs, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from constellation_docker.compose import CompiledService
from constellation_docker.rollout.balancer import Route
from constellation_docker.rollout.draft import is_outlier, is_ready
from constellation_docker.rollout.observed import Replica
from constellation_docker.rollout.outliers import SPARED

STARTING = "starting"
"""Docker's word for a container that has not passed a health check yet."""


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
