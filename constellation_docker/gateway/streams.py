"""Answers that come bit by bit: how many there may be at once, and in which form they go out."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from constellation_docker.gateway.errors import GatewayError

PING_SECONDS = 15


class TooManyStreams(GatewayError):
    """So many listen already that one more would cost the others."""

    code = "too_many_streams"
    default_status = 429


class Streams:
    """The streams that are open. One for each gateway; safe to share between threads."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open = 0
        self._lock = threading.Lock()

    def require_room(self) -> None:
        """Go on only where there is room for one more.

        Raises:
            TooManyStreams: There is none.
        """
        with self._lock:
            if self._open >= self._most:
                raise TooManyStreams(
                    "Too many streams are open.", remedy="Try again later.", headers={"Retry-After": "10"}
                )

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count one more during the block."""
        with self._lock:
            self._open += 1
        try:
            yield
        finally:
            with self._lock:
                self._open -= 1


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
