"""An id for every call: in the answer, in errors, in the log; one that the caller sends is kept."""

from __future__ import annotations

import re
import uuid
from contextvars import ContextVar

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = "X-Request-ID"

_ACCEPTED = re.compile(r"[A-Za-z0-9._-]{1,64}")
_present: ContextVar[str] = ContextVar("request_id", default="")


def request_id() -> str:
    """The id of the call that is being answered; empty outside of one."""
    return _present.get()


def begin_request(given: str | None) -> str:
    """Choose the id of a call and make it the present one.

    Args:
        given: What the caller sent. Kept where it is short and plain; otherwise a new one is made.
    """
    chosen = given if given and _ACCEPTED.fullmatch(given) else uuid.uuid4().hex
    _present.set(chosen)
    return chosen


class RequestIds:
    """ASGI middleware that gives every HTTP call its id and sends it back."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one call."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        chosen = begin_request(Headers(scope=scope).get(HEADER))

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[HEADER] = chosen
            await send(message)

        await self._app(scope, receive, send_with_id)
