"""What happened to a container in place: somebody changed it (`docker update`, `docker network connect`), or it crashes.

The engine's list of containers does not show it, and asking for each container would take a call for each. So the
sensor asks for those that events name, for those that were found altered before, and for a few more at every
comparison, in turn; a rollout asks for those of its own service.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from typing import Any

from constellation_docker.compose import ComposeFile, Service
from constellation_docker.compose.durations import nanoseconds
from constellation_docker.engine import Engine
from constellation_docker.rollout.observed import Observed, Replica

IN_TURN = 10
"""How many containers are asked for at a comparison although nothing was told of them."""

MANY_CRASHES = 3
"""A container that Docker has started anew so often, and now again, does not get well by itself."""

RECENT_SECONDS = 600.0
"""How long after its last start that counts."""

_PARALLEL = 4
_MEBIBYTE = 1 << 20


def inspect_replicas(
    engine: Engine, observed: Observed, compose_file: ComposeFile, chosen: Collection[str]
) -> Observed:
    """An environment with what was altered in some of its containers; one engine call for each of them.

    Args:
        engine: The engine that it runs on.
        observed: As it is.
        compose_file: As it is to be. What is of another release is not asked for: it goes anyway.
        chosen: Ids of the containers.

    Raises:
        EngineUnreachable: The engine went away.
    """
    asked = {
        replica.id: service.service
        for slug, service in compose_file.services.items()
        for replica in observed.replicas(slug)
        if replica.id in chosen and replica.spec_hash == service.spec_hash
    }
    if not asked:
        return observed
    with ThreadPoolExecutor(_PARALLEL, thread_name_prefix="inspect") as pool:
        facts = dict(zip(asked, pool.map(engine.container, asked), strict=True))

    def altered(replica: Replica) -> Replica:
        known = facts.get(replica.id)
        if known is None:
            return replica
        found = find_alterations(
            known, asked[replica.id], compose_file.network, replica.host, now=time.time()
        )
        return replace(replica, alterations=(*replica.alterations, *found))

    return replace(
        observed,
        services={slug: tuple(map(altered, replicas)) for slug, replicas in observed.services.items()},
    )


def find_alterations(
    facts: Mapping[str, Any], service: Service, network: str, host: str, *, now: float
) -> tuple[str, ...]:
    """How a container differs from what it was created from, in words that follow its name.

    Args:
        facts: What the engine knows of it (`GET /containers/{id}/json`).
        service: What it was created from.
        network: The environment's network.
        host: Its name in that network, by which the balancer knows it.
        now: The present, in seconds since 1970.
    """
    config: Mapping[str, Any] = facts.get("HostConfig") or {}
    networks: Mapping[str, Any] = (facts.get("NetworkSettings") or {}).get("Networks") or {}
    found = list(_altered_limits(config, service))
    policy = (config.get("RestartPolicy") or {}).get("Name") or "no"
    if policy != service.restart:
        found.append(f"has the restart policy {policy} instead of {service.restart}")
    endpoint: Mapping[str, Any] = networks.get(network) or {}
    names = {*(endpoint.get("Aliases") or ()), *(endpoint.get("DNSNames") or ())}
    if network not in networks:
        found.append(f"is not in the network {network}")
    elif names and host not in names and host != str(facts.get("Name", "")).lstrip("/"):
        found.append(f"is not known as {host} in the network {network}")
    crashes = int(facts.get("RestartCount") or 0)
    started = str((facts.get("State") or {}).get("StartedAt") or "")
    if crashes >= MANY_CRASHES and now - _seconds(started) < RECENT_SECONDS:
        found.append("crashes again and again")
    return tuple(found)


def choose_inspected(observed: Observed, named: Collection[str], turn: int, count: int) -> frozenset[str]:
    """Ids of the containers to ask for: those that are named, and a few of all in turn.

    Args:
        observed: The environment.
        named: Ids, of which some may be gone or not be replicas.
        turn: How many looks came before this one.
        count: How many further ones.
    """
    replicas = sorted((replica.name, replica.id) for group in observed.services.values() for replica in group)
    ids = [found for _, found in replicas]
    first = turn * count % len(ids) if ids else 0
    return frozenset({*(set(named) & set(ids)), *(ids + ids)[first : first + min(count, len(ids))]})


def altered_ids(observed: Observed) -> tuple[str, ...]:
    """Ids of the containers that were found altered."""
    return tuple(
        replica.id for replicas in observed.services.values() for replica in replicas if replica.alterations
    )


def _seconds(moment: str) -> float:
    """Seconds since 1970 of the engine's RFC 3339 time, which is UTC and has up to nine digits after the second."""
    try:
        return datetime.fromisoformat(f"{moment[:19]}+00:00").timestamp()
    except ValueError:
        return 0.0


def _altered_limits(config: Mapping[str, Any], service: Service) -> Iterator[str]:
    limits = service.limits
    memory = limits.memory or 0
    cpus = nanoseconds(limits.cpus) if limits.cpus else 0
    yield from _differs("of memory", config.get("Memory"), memory, _MEBIBYTE, " MiB")
    reserved = service.reservations.memory or 0
    yield from _differs("of reserved memory", config.get("MemoryReservation"), reserved, _MEBIBYTE, " MiB")
    yield from _differs("processors", config.get("NanoCpus"), cpus, 10**9)
    # Where the engine counts no swap, and where nobody gave a limit, it says -1 or 0 of its own accord.
    if config.get("MemorySwap") not in {None, 0, -1, 2 * memory}:
        yield "has another limit of swap"
    pids = config.get("PidsLimit")
    # None: this engine cannot limit processes.
    if pids is not None and max(0, pids) != (limits.pids or 0):
        yield f"may run {pids if pids > 0 else 'any number of'} processes instead of {limits.pids or 'any number'}"
    given = [
        key
        for key in ("CpuShares", "CpuQuota", "CpuPeriod", "CpusetCpus", "CpusetMems", "BlkioWeight")
        if config.get(key)
    ]
    if given:
        yield f"has limits that nobody asked for: {', '.join(given)}"


def _differs(what: str, found: int | None, wanted: int, unit: int, suffix: str = "") -> Iterator[str]:
    # An engine that cannot set a limit says 0, and no update can take one away.
    if (found or 0) == wanted or not found:
        return
    instead = f"{wanted / unit:g}{suffix}" if wanted else "no limit"
    yield f"has {found / unit:g}{suffix} {what} instead of {instead}"
