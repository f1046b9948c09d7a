"""Changes of status as server-sent events, so that nobody polls."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query
from sse_starlette import EventSourceResponse, ServerSentEvent

from constellation_docker.gateway.access.guard import guard
from constellation_docker.gateway.access.permissions import Action
from constellation_docker.gateway.errors import GatewayError
from constellation_docker.gateway.ports import Ports, Provided
from constellation_docker.gateway.rendering import render_status
from constellation_docker.gateway.route import GatewayRoute
from constellation_docker.gateway.status_changes import StatusChange
from constellation_docker.gateway.streams import PING_SECONDS, ServerStopping

router = APIRouter(prefix="/docker/events", tags=["events"], route_class=GatewayRoute)


class InvalidEventId(GatewayError):
    """A Last-Event-ID that no event had."""

    code = "invalid_event_id"
    default_status = 422


@router.get(
    "/",
    response_class=EventSourceResponse,
    responses={
        200: {
            "description": "One event `status` for each change; its data is what GET …/status/ answers.",
            "content": {
                "text/event-stream": {
                    "schema": {"type": "string"},
                    "example": 'id: 1769860800.0\nevent: status\ndata: {"model_id": "7f9c…", "status": "deployed"}\n\n',
                }
            },
        }
    },
    dependencies=[Depends(guard(Action.READ))],
)
async def events(
    ports: Provided,
    last_event_id: Annotated[
        str | None,
        Header(max_length=40, description="The id of the last event: what changed since is told first."),
    ] = None,
    model_id: Annotated[str | None, Query(max_length=40, description="Only changes of this version.")] = None,
) -> EventSourceResponse:
    """Changes of status as they happen. Each event tells the whole status, so a lost one is no harm."""
    since = _moment(last_event_id)
    ports.streams.require_room()
    changes = _events(ports, ports.changes.listen(since), model_id)
    return EventSourceResponse(changes, ping=PING_SECONDS)


async def _events(
    ports: Ports, changes: AsyncGenerator[StatusChange], model_id: str | None
) -> AsyncIterator[ServerSentEvent]:
    with suppress(ServerStopping):  # browsers come back by themselves, with the last event's id
        async with aclosing(ports.streams.carry(changes)) as carried:
            async for change in carried:
                if model_id in {None, change.row.model_id}:
                    known = render_status(ports.settings, change.row, change.status)
                    yield ServerSentEvent(
                        data=known.model_dump_json(), event="status", id=str(change.moment.timestamp())
                    )


def _moment(event_id: str | None) -> datetime | None:
    if event_id is None or event_id == "":
        return None
    try:
        return datetime.fromtimestamp(float(event_id), UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise InvalidEventId(
            "The Last-Event-ID is not one that an event had.", remedy="Leave it out to hear what comes."
        ) from error
