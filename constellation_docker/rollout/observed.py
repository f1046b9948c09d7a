"""What runs in an environment, found out from the engine's containers and the balancer. Labels are all it goes by."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from constellation_docker.compose import labels
from constellation_docker.compose.balancer_config import DEFAULT_TIMEOUT_SECONDS, PORT
from constellation_docker.engine import Engine
from constellation_docker.rollout.balancer import BalancerState, Member
from constellation_docker.rollout.errors import BalancerUnavailable
from constellation_docker.rollout.haproxy import HaproxyBalancer

Health = Literal["healthy", "starting", "unhealthy", "none"]
_HEALTH = re.compile(r"\((?:health: )?(healthy|starting|unhealthy)\)")


@dataclass(frozen=True)
class Replica:
    """One container of a service.

    Attributes:
        id: Its id.
        name: Its name.
        number: Its number within the service, from 1.
        host: Its name in the environment's network.
        state: The engine's word: created, running, restarting, paused, exited, dead, removing; or `disconnected`, where it
            runs and somebody took it off its network, so that nothing reaches it.
        health: What Docker's own health check found; `none` where it has no check.
        spec_hash: Our hash of what it was created from; empty where nobody knows.
        image: Id of the image that it runs.
        port: Port on which it listens.
        ready_path: Answers 200 once it can answer.
        timeout_seconds: Longest for one request.
        stop_grace_seconds: From SIGTERM to SIGKILL.
        address: Its address in the environment's network; None while it does not run.
        version: The model's version.
        model_id: The version's id.
        revision: The deployment's revision that created it; None where stock Compose did.
        created: When, in seconds since 1970.
        alterations: What somebody changed of it in place, in words that follow its name, as far as that was looked at.
    """

    id: str
    name: str
    number: int
    host: str
    state: str
    health: Health
    spec_hash: str
    image: str = ""
    port: int = 8080
    ready_path: str = "/ready"
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    stop_grace_seconds: float = 30
    address: str | None = None
    version: str = ""
    model_id: str = ""
    revision: int | None = None
    created: int = 0
    alterations: tuple[str, ...] = ()

    @property
    def is_running(self) -> bool:
        """Whether its process runs."""
        return self.state == "running"

    @property
    def is_healthy(self) -> bool:
        """Whether it runs and Docker finds no fault with it."""
        return self.is_running and self.health in {"healthy", "none"}

    @property
    def is_hopeful(self) -> bool:
        """Whether it is healthy, or may become so without being replaced."""
        if self.alterations:
            return False
        return self.is_healthy or self.state == "created" or (self.is_running and self.health == "starting")

    def member(self) -> Member:
        """How it joins the balancer."""
        return Member(self.host, self.port, self.ready_path, address=self.address, version=self.version)


@dataclass(frozen=True)
class ObservedBalancer:
    """The balancer's container.

    Attributes:
        id: The container's id.
        name: Its name.
        state: The engine's word for what it does, or `disconnected`, where it runs and was taken off its network.
        spec_hash: Our hash of what it was created from.
        answers: Whether HAProxy answers.
        is_ours: Whether our configuration is in force, not the one for stock Compose.
        layout: Which configuration of ours, as `layout_of` names it.
        published_port: Its port on the engine's host, while it runs.
    """

    id: str
    name: str
    state: str
    spec_hash: str
    answers: bool = False
    is_ours: bool = False
    layout: str = ""
    published_port: int | None = None


@dataclass(frozen=True)
class Observed:
    """An environment as it is.

    Attributes:
        project: The Compose project.
        has_network: Whether its network is there.
        balancer: Its balancer; None where there is none.
        state: What the balancer does.
        services: The replicas of each service, by slug, by number.
        foreign: Names of the project's containers that are neither ours nor of a file of ours.
    """

    project: str
    has_network: bool = False
    balancer: ObservedBalancer | None = None
    state: BalancerState = field(default_factory=BalancerState)
    services: Mapping[str, tuple[Replica, ...]] = field(default_factory=dict)
    foreign: tuple[str, ...] = ()

    @property
    def replica_ids(self) -> frozenset[str]:
        """The containers of all services."""
        return frozenset(replica.id for replicas in self.services.values() for replica in replicas)

    def replicas(self, slug: str) -> tuple[Replica, ...]:
        """The replicas of a service."""
        return self.services.get(slug, ())


def balancer_name(project: str) -> str:
    """The name of an environment's balancer container."""
    return f"{project}-balancer-1"


def replica_host(slug: str, number: int) -> str:
    """A replica's name in the network: short enough for DNS, and no slug has a dot."""
    return f"{number}.{slug}"


def observe(engine: Engine, project: str) -> Observed:
    """Look at an environment. The number of engine calls does not grow with what runs in it.

    Args:
        engine: The engine that it runs on.
        project: Its Compose project.

    Raises:
        EngineUnreachable: The engine does not answer.
    """
    services: dict[str, list[Replica]] = {}
    balancer: ObservedBalancer | None = None
    foreign: list[str] = []
    for container in engine.list_containers({labels.COMPOSE_PROJECT: project}):
        found = container.get("Labels") or {}
        role = found.get(labels.ROLE)
        if role == labels.LOCK_ROLE:
            continue
        if role == labels.BALANCER_ROLE:
            balancer = _observed_balancer(container)
        elif role != labels.MODEL_ROLE or found.get(labels.COMPOSE_ONEOFF) == "True":
            foreign.append(_name(container))
        else:
            replica = parse_replica(container)
            services.setdefault(found[labels.COMPOSE_SERVICE], []).append(replica)
    state = BalancerState()
    if balancer is not None and balancer.state == "running":
        balancer, state = _ask(engine, balancer)
    networks = engine.list_networks({labels.COMPOSE_PROJECT: project})
    return Observed(
        project=project,
        has_network=any(network["Name"] == f"{project}_default" for network in networks),
        balancer=balancer,
        state=state,
        services={
            slug: tuple(sorted(replicas, key=lambda replica: (replica.number, replica.created)))
            for slug, replicas in services.items()
        },
        foreign=tuple(sorted(foreign)),
    )


def observe_replicas(engine: Engine, project: str, slug: str) -> tuple[Replica, ...]:
    """The replicas of one service, in one engine call."""
    wanted = {labels.COMPOSE_PROJECT: project, labels.COMPOSE_SERVICE: slug, labels.ROLE: labels.MODEL_ROLE}
    return tuple(
        sorted(map(parse_replica, engine.list_containers(wanted)), key=lambda replica: replica.number)
    )


def parse_replica(container: Mapping[str, Any]) -> Replica:
    """A replica from an entry of the engine's list of containers (`GET /containers/json`)."""
    found: Mapping[str, str] = container.get("Labels") or {}
    number = int(found.get(labels.COMPOSE_NUMBER, "1"))
    revision = found.get(labels.REVISION)
    slug = found.get(labels.SLUG) or found[labels.COMPOSE_SERVICE]
    health = _HEALTH.search(container.get("Status") or "")
    name = _name(container)
    networks: Mapping[str, Mapping[str, Any]] = (container.get("NetworkSettings") or {}).get("Networks") or {}
    project = found.get(labels.COMPOSE_PROJECT, "")
    # It may have been connected to other networks too; the balancer reaches it in this one.
    address = (networks.get(f"{project}_default") or {}).get("IPAddress") or None
    is_detached = container["State"] == "running" and "NetworkSettings" in container and not address
    own_name = f"{project}-{found.get(labels.COMPOSE_SERVICE, '')}-{number}"
    return Replica(
        id=container["Id"],
        name=name,
        number=number,
        # Stock Compose gives its containers no name but their own.
        host=replica_host(slug, number) if revision else name,
        state="disconnected" if is_detached else container["State"],
        health=health[1] if health else "none",  # type: ignore[arg-type]
        spec_hash=found.get(labels.SPEC_HASH, ""),
        image=container.get("ImageID", ""),
        port=int(found.get(labels.PORT, "8080")),
        ready_path=found.get(labels.READY_PATH, "/ready"),
        timeout_seconds=float(found.get(labels.TIMEOUT, DEFAULT_TIMEOUT_SECONDS)),
        stop_grace_seconds=float(found.get(labels.STOP_GRACE, "30")),
        address=address,
        version=found.get(labels.VERSION, ""),
        model_id=found.get(labels.MODEL_ID, ""),
        revision=int(revision) if revision else None,
        created=int(container.get("Created", 0)),
        alterations=() if name == own_name else (f"has another name than {own_name}",),
    )


def _observed_balancer(container: Mapping[str, Any]) -> ObservedBalancer:
    ports: Collection[Mapping[str, Any]] = container.get("Ports") or ()
    public = [
        port["PublicPort"] for port in ports if port.get("PublicPort") and port.get("PrivatePort") == PORT
    ]
    networks = (container.get("NetworkSettings") or {}).get("Networks") or {}
    is_detached = container["State"] == "running" and not any(
        network.get("IPAddress") for network in networks.values()
    )
    return ObservedBalancer(
        id=container["Id"],
        name=_name(container),
        state="disconnected" if is_detached else container["State"],
        spec_hash=(container.get("Labels") or {}).get(labels.SPEC_HASH, ""),
        published_port=public[0] if public else None,
    )


def _ask(engine: Engine, balancer: ObservedBalancer) -> tuple[ObservedBalancer, BalancerState]:
    haproxy = HaproxyBalancer(engine, balancer.name)
    try:
        state, layout = haproxy.look()
    except BalancerUnavailable:
        return balancer, BalancerState()
    found = replace(balancer, answers=True, is_ours=state is not None, layout=layout)
    return found, state or BalancerState()


def _name(container: Mapping[str, Any]) -> str:
    names: list[str] = container.get("Names") or [container["Id"][:12]]
    return names[0].lstrip("/")
