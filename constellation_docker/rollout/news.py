"""What an engine tells of one environment since the last look: a bounded question, however long ago that was."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from constellation_docker.compose import labels
from constellation_docker.engine import Engine, Event
from constellation_docker.rollout.balancer import BalancerState
from constellation_docker.rollout.errors import BalancerUnavailable
from constellation_docker.rollout.haproxy import HaproxyBalancer
from constellation_docker.rollout.observed import balancer_name

BUFFERED_EVENTS = 256
"""How many events an engine remembers (moby, daemon/events/events.go, `eventsLimit`). So many may be all that is left
of more: every health check of every container makes three."""

_OF_CONTAINERS = frozenset(
    {"create", "start", "die", "oom", "health_status", "destroy", "pause", "unpause", "update", "rename"}
)
_IN_PLACE = frozenset({"die", "oom", "pause", "unpause", "update", "rename", "disconnect"})
_OF_NETWORKS = frozenset({"disconnect", "destroy"})


@dataclass(frozen=True)
class News:
    """What happened in an environment.

    Attributes:
        until: Up to when, by the engine's clock, in seconds since 1970: where the next look begins.
        events: What happened, in words; empty where nothing did that could matter.
        fingerprint: Of its containers' states, where the engine may have forgotten events; else empty.
        altered: Ids of the containers that crashed, or that somebody may have changed in place.
        traffic: What its balancer does, with what it counted; None where that was not asked, or it does not answer.
    """

    until: float
    events: tuple[str, ...] = ()
    fingerprint: str = ""
    altered: tuple[str, ...] = ()
    traffic: BalancerState | None = None


def read_news(engine: Engine, project: str, since: float | None, *, is_traffic_wanted: bool = False) -> News:
    """Ask an engine what happened in an environment.

    It takes three calls, a fourth where the engine may have forgotten some of it, and three more for the traffic. None
    waits for anything, and their number does not grow with what runs.

    Args:
        engine: The environment's engine.
        project: Its Compose project.
        since: Where the last look ended, by the engine's clock; None: there was none.
        is_traffic_wanted: Ask the balancer what became of requests, too.

    Raises:
        EngineUnreachable: The engine does not answer.
    """
    until = engine.now()
    if since is None or since >= until:
        return News(until)
    events = list(engine.events(since=since, until=until))
    has_gap = len(events) >= BUFFERED_EVENTS
    return News(
        until,
        choose_news(events, project),
        take_fingerprint(engine, project) if has_gap else "",
        choose_altered(events, project),
        read_traffic(engine, project) if is_traffic_wanted else None,
    )


def read_traffic(engine: Engine, project: str) -> BalancerState | None:
    """What an environment's balancer does, with what became of requests; None where it does not answer."""
    try:
        return HaproxyBalancer(engine, balancer_name(project)).look()[0]
    except BalancerUnavailable:
        return None


def choose_news(events: Sequence[Event], project: str) -> tuple[str, ...]:
    """Of an engine's events those that may have changed an environment, in words, each once."""
    found = [
        f"{event.action} of {event.attributes.get('name', event.id[:12])}"
        for event in events
        if _matters(event, project)
    ]
    return tuple(dict.fromkeys(found))


def choose_altered(events: Sequence[Event], project: str) -> tuple[str, ...]:
    """Ids of the containers that an engine's events say crashed or were changed in place, each once."""
    found = [
        event.attributes.get("container", "") if event.type == "network" else event.id
        for event in events
        if _matters(event, project) and event.action in _IN_PLACE
    ]
    return tuple(dict.fromkeys(found))


def take_fingerprint(engine: Engine, project: str) -> str:
    """A short text that changes with any change of the states of an environment's containers, in one call."""
    states = sorted(
        # "Up 5 minutes (healthy)": what stands before the bracket changes by itself.
        f"{container['Id']} {container['State']} {container.get('Status', '').partition('(')[2]}"
        if container["State"] == "running"
        else f"{container['Id']} {container['State']}"
        for container in engine.list_containers({labels.COMPOSE_PROJECT: project})
    )
    return hashlib.sha256("\n".join(states).encode()).hexdigest()[:16]


def _matters(event: Event, project: str) -> bool:
    action = event.action.partition(":")[0]
    if event.type == "container":
        return action in _OF_CONTAINERS and event.attributes.get(labels.COMPOSE_PROJECT) == project
    return (
        event.type == "network"
        and action in _OF_NETWORKS
        and event.attributes.get("name") == f"{project}_default"
    )
