"""Answers that come bit by bit: how many there may be at once, in which form they go out, and when they end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Literal, TypeVar

from anyio import CancelScope
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from constellation_docker.errors import ConstellationError
from constellation_docker.gateway.errors import GatewayError

PING_SECONDS = 15

T = TypeVar("T")


class TooManyStreams(GatewayError):
    """So many listen already that one more would cost the others."""

    code = "too_many_streams"
    default_status = 429


class ServerStopping(ConstellationError):
    """The stream ends because its server does."""

    code = "server_stopping"


class Streams:
    """The streams that are open. One for each gateway; safe to share between threads.

    Args:
        most: How many there may be.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: set[asyncio.Event] = set()
        self._is_ending = False
        self._lock = threading.Lock()

    def require_room(self) -> None:
        """Go on only where there is room for one more.

        Raises:
            TooManyStreams: There is none.
        """
        with self._lock:
            if len(self._open) >= self._most:
                raise TooManyStreams(
                    "Too many streams are open.", remedy="Try again later.", headers={"Retry-After": "10"}
                )

    async def carry(self, items: AsyncGenerator[T]) -> AsyncGenerator[T]:
        """The items as they come, counted as one open stream.

        Raises:
            ServerStopping: `end` was called, which is not waited for.
        """
        ending = asyncio.Event()
        with self._lock:
            self._open.add(ending)
        if self._is_ending:
            ending.set()
        stop = asyncio.create_task(ending.wait())
        try:
            async with aclosing(items):
                while (item := await _next_before(stop, items)) is not None:
                    yield item
        finally:
            stop.cancel()
            with self._lock:
                self._open.discard(ending)

    def end(self) -> None:
        """End all streams, and each one that begins from now on. Call it in the server's own loop."""
        self._is_ending = True
        with self._lock:
            for ending in self._open:
                ending.set()


async def _next_before(stop: asyncio.Task[Literal[True]], items: AsyncGenerator[T]) -> T | None:
    """The next item; None after the last.

    Raises:
        ServerStopping: `stop` was done before.
    """
    coming = asyncio.ensure_future(_next(items))
    try:
        await asyncio.wait({coming, stop}, return_when=asyncio.FIRST_COMPLETED)
        if stop.done():
            raise ServerStopping("The gateway is stopping.", remedy="Ask again in a moment.")
        return coming.result()
    finally:
        if coming.cancel():
            # It must have let go of the items before they can be closed.
            with CancelScope(shield=True):
                await asyncio.wait({coming})


async def _next(items: AsyncGenerator[T]) -> T | None:
    return await anext(items, None)


def wants_events(request: Request) -> bool:
    """Whether the caller asks for server-sent events rather than for plain text."""
    return "text/event-stream" in request.headers.get("Accept", "")


def render_lines(lines: AsyncIterator[str], *, as_events: bool) -> Response:
    """Lines as text, or each as a server-sent event, as they come."""
    if as_events:
        events = (ServerSentEvent(data=line, event="line") async for line in lines)
        return EventSourceResponse(events, ping=PING_SECONDS)
    text = (f"{line}\n".encode() async for line in lines)
    return StreamingResponse(text, media_type="text/plain; charset=utf-8")
