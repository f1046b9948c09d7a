"""What the endpoints work with: the settings, the card store, Dagster, the engines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated

from fastapi import Depends
from starlette.requests import Request

from constellation_docker.cards.answered_calls import AnsweredCalls
from constellation_docker.cards.launch_guards import LaunchGuards
from constellation_docker.cards.store import CardStore
from constellation_docker.engine import Engine
from constellation_docker.gateway.access.authentication import Access
from constellation_docker.gateway.dagster_client import DagsterClient
from constellation_docker.gateway.launches import Launches
from constellation_docker.gateway.measures import Metrics
from constellation_docker.gateway.status_changes import StatusChanges
from constellation_docker.gateway.streams import Streams
from constellation_docker.settings import Settings


@dataclass(frozen=True)
class Ports:
    """The doors of one gateway to the rest; all of them may be used by several threads at once.

    Args:
        settings: The settings.
        store: What is wanted.
        dagster: What happened, and who makes it happen.
        engine_of: The engine of an environment, by name; connects anew at each call.
    """

    settings: Settings
    store: CardStore
    dagster: DagsterClient
    engine_of: Callable[[str], Engine] = field(default=lambda _: Engine.connect(None))

    @cached_property
    def access(self) -> Access:
        """Who calls, and whether they may."""
        return Access(self.settings, self.store)

    @cached_property
    def launches(self) -> Launches:
        """Launches runs, each once."""
        known = self.settings.gateway
        return Launches(
            LaunchGuards(self.store.database),
            self.dagster,
            answer_seconds=known.webserver_timeout_seconds,
            deadline_seconds=known.launch_deadline_seconds,
        )

    @cached_property
    def answered_calls(self) -> AnsweredCalls:
        """Calls that came with an Idempotency-Key."""
        return AnsweredCalls(self.store.database)

    @cached_property
    def metrics(self) -> Metrics:
        """How much the gateway is called."""
        return Metrics()

    @cached_property
    def streams(self) -> Streams:
        """The log and event streams that are open."""
        return Streams(self.settings.gateway.max_streams)

    @cached_property
    def changes(self) -> StatusChanges:
        """Changes of status, for all who listen."""
        return StatusChanges(self.store, self.dagster, poll_seconds=self.settings.gateway.event_poll_seconds)

    async def provide(self, request: Request) -> None:
        """The router's dependency: every endpoint finds the ports at its request, in whichever app it is mounted."""
        request.state.ports = self


def engine_of_environment(settings: Settings) -> Callable[[str], Engine]:
    """How to reach the engine of an environment of these settings.

    Raises:
        InvalidInput: There is no such environment.
        EngineUnreachable: Its engine does not answer.
    """
    return lambda name: Engine.connect(settings.environment(name).engine_url or settings.build.engine_url)


def ports_of(request: Request) -> Ports:
    """The ports of the gateway that answers a request."""
    ports: Ports = request.state.ports
    return ports


async def _ports(request: Request) -> Ports:
    return ports_of(request)


Provided = Annotated[Ports, Depends(_ports)]
