"""What a model's packaging and its containers write, as it comes.

A build's lines are the messages of its run in Dagster's event log; a replica's are its container's own, read from
the environment's engine. Whoever follows costs no thread while nothing comes.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from datetime import datetime
from typing import Annotated, Literal

import anyio
from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Query
from starlette.requests import Request
from starlette.responses import Response

from constellation_docker import run_tags as tags
from constellation_docker.cards.rows import InvalidRow, ModelRow
from constellation_docker.compose import labels
from constellation_docker.engine import Engine
from constellation_docker.engine.errors import NotFound
from constellation_docker.errors import ConstellationError
from constellation_docker.gateway.access.guard import guard
from constellation_docker.gateway.access.permissions import Action
from constellation_docker.gateway.bodies import ModelId
from constellation_docker.gateway.ports import Ports, Provided
from constellation_docker.gateway.rendering import name_and_version
from constellation_docker.gateway.route import GatewayRoute
from constellation_docker.gateway.streams import render_lines, wants_events

router = APIRouter(prefix="/docker/models", tags=["models"], route_class=GatewayRoute)

POLL_SECONDS = 1.0
PAGE = 500
LONGEST_FOLLOWED_SECONDS = 3600.0
LONGEST_LINE = 4000

Source = Literal["build", "deployment", "containers"]


@router.get(
    "/{model_id}/logs/",
    response_class=Response,
    responses={
        200: {
            "description": "Lines as they come: plain text, or server-sent events where `Accept` asks for them.",
            "content": {
                "text/plain": {
                    "schema": {"type": "string"},
                    "example": "Fetching https://git.example/acme/x\n",
                },
                "text/event-stream": {"schema": {"type": "string"}},
            },
        }
    },
    dependencies=[Depends(guard(Action.READ))],
)
def logs(
    request: Request,
    model_id: ModelId,
    ports: Provided,
    source: Annotated[
        Source,
        Query(
            description="Whose lines: the newest packaging's, the newest deployment's, or the replicas' own."
        ),
    ] = "build",
    environment: Annotated[
        str | None, Query(max_length=40, description="Only of this environment; not for `build`.")
    ] = None,
    tail: Annotated[
        int, Query(ge=0, le=10_000, description="At most so many of each replica's last lines.")
    ] = 200,
    follow: Annotated[
        bool, Query(description="Go on as lines come, until the run ends or the caller goes.")
    ] = False,
) -> Response:
    """What packaging, a deployment or the replicas write."""
    row = ports.store.look_up(str(model_id))
    places = _places(ports, row, environment)
    ports.streams.require_room()
    if source == "containers":
        lines = _follow_containers(ports, row, places, tail=tail, follow=follow)
    else:
        lines = _follow_run(ports, row, places if source == "deployment" else None, follow=follow)
    return render_lines(_counted(ports, lines), as_events=wants_events(request))


def _places(ports: Ports, row: ModelRow | InvalidRow, environment: str | None) -> list[str]:
    """The environments whose lines are wanted."""
    if environment is not None:
        ports.settings.environment(environment)
        return [environment]
    name, _ = name_and_version(row)
    wanted = {wish.environment for wish in ports.store.deployments_of(name) if wish.model_id == row.model_id}
    return sorted(place for place in ports.settings.environments if place in wanted)


async def _counted(ports: Ports, lines: AsyncGenerator[str]) -> AsyncIterator[str]:
    """The lines, and after them one sentence where they end for a reason that the caller should know."""
    try:
        async with aclosing(ports.streams.carry(lines)) as carried:
            async for line in carried:
                yield line[:LONGEST_LINE]
    except ConstellationError as error:
        yield f"The log ends here: {type(error).__name__}. Ask again in a moment."


async def _follow_run(
    ports: Ports, row: ModelRow | InvalidRow, places: list[str] | None, *, follow: bool
) -> AsyncGenerator[str]:
    """The messages of the newest packaging, or of the newest deployment to some environments."""
    run_id = await run_sync(_newest_run, ports, row, places)
    if run_id is None:
        return
    cursor: str | None = None
    until = time.monotonic() + LONGEST_FOLLOWED_SECONDS
    while True:
        # Asked before its lines are read: what it wrote last is in the log by then.
        run = await run_sync(ports.dagster.run, run_id)
        is_over = run is None or run.has_ended
        while True:
            entries, cursor = await run_sync(_page, ports, run_id, cursor)
            for entry in entries:
                for line in entry.splitlines():
                    yield line
            if not entries:
                break
        if is_over or not follow or time.monotonic() > until:
            return
        await anyio.sleep(POLL_SECONDS)


def _newest_run(ports: Ports, row: ModelRow | InvalidRow, places: list[str] | None) -> str | None:
    if places is None:
        found = ports.dagster.runs({tags.PARTITION: row.key}, limit=1)
    else:
        of_model = {tags.MODEL_ID: row.model_id, tags.ACTION: "deploy"}
        found = ports.dagster.runs(of_model, limit=20)
        found = [run for run in found if run.tags.get(tags.ENVIRONMENT) in places]
    return found[0].run_id if found else None


def _page(ports: Ports, run_id: str, cursor: str | None) -> tuple[list[str], str | None]:
    """The messages after a cursor. Where a page holds no message worth telling, the next one is read."""
    while True:
        entries, following = ports.dagster.logs(run_id, cursor=cursor, limit=PAGE)
        if not entries:
            return [], following
        told = [entry.message for entry in entries if entry.message]
        if told:
            return told, following
        cursor = following


async def _follow_containers(
    ports: Ports, row: ModelRow | InvalidRow, places: list[str], *, tail: int, follow: bool
) -> AsyncGenerator[str]:
    """The replicas' lines, each with its replica's name before it.

    New lines are asked for by time instead of being followed container by container: a replica that a rollout
    starts meanwhile is heard, too, and no thread waits for any.
    """
    seen: dict[str, str] = {}
    until = time.monotonic() + LONGEST_FOLLOWED_SECONDS
    while True:
        for place in places:
            for line in await run_sync(_read_containers, ports, row, place, tail, seen):
                yield line
        if not follow or time.monotonic() > until:
            return
        await anyio.sleep(POLL_SECONDS)


def _read_containers(
    ports: Ports, row: ModelRow | InvalidRow, place: str, tail: int, seen: dict[str, str]
) -> list[str]:
    engine = ports.engine_of(place)
    wanted = {labels.ENVIRONMENT: place, labels.MODEL_ID: row.model_id}
    found: list[str] = []
    for container in engine.list_containers(labels=wanted, all=True):
        name = str(container["Names"][0]).lstrip("/")
        found += [f"{place} {name} | {line}" for line in _new_lines(engine, container["Id"], tail, seen)]
    return found


def _new_lines(engine: Engine, container: str, tail: int, seen: dict[str, str]) -> Iterator[str]:
    """A container's lines that were not read yet. Each begins with its time, to the nanosecond."""
    last = seen.get(container)
    since = None if last is None else _seconds(last)
    try:
        text = engine.logs(container, tail=tail if last is None else None, since=since, timestamps=True)
    except NotFound:
        return
    for line in text.splitlines():
        moment, _, words = line.partition(" ")
        if last is not None and moment <= last:
            continue
        seen[container] = max(moment, seen.get(container, ""))
        yield words


def _seconds(moment: str) -> float:
    """Docker's time stamp (`2026-01-31T12:00:00.123456789Z`) as seconds since 1970, cut to the whole second."""
    return datetime.fromisoformat(f"{moment[:19]}+00:00").timestamp()
