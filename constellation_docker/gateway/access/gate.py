"""The gate before everything: no call gets further unless it is known who calls, and they have calls left.

Closed by default: a path that somebody adds and forgets to guard is still not open to everyone. Pure ASGI, so
streams and disconnects pass through untouched.
"""

from __future__ import annotations

import time
from urllib.parse import quote

from anyio.to_thread import run_sync
from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from constellation_docker.errors import ConstellationError
from constellation_docker.gateway.access.audit import SCOPE_KEY
from constellation_docker.gateway.access.authentication import Access
from constellation_docker.gateway.access.errors import Forbidden, Unauthenticated
from constellation_docker.gateway.access.rate_limits import Allowance
from constellation_docker.gateway.errors import answer
from constellation_docker.gateway.same_site import CrossSite

LOGIN_PATH = "/login"
OPEN_PATHS = frozenset({"/health", "/ready", LOGIN_PATH, "/logout"})


# A stream may outlive the key or token that opened it by no more than about this.
RECHECK_SECONDS = 30.0


class Gate:
    """ASGI middleware that lets on only calls of somebody known.

    Args:
        app: What lies behind.
        access: Who calls, and how often they may.
        recheck_seconds: How often it is asked again whether whoever reads a stream may still do so.
    """

    def __init__(self, app: ASGIApp, access: Access, recheck_seconds: float = RECHECK_SECONDS) -> None:
        self._app = app
        self._access = access
        self._recheck_seconds = recheck_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one call."""
        if scope["type"] not in {"http", "websocket"} or path_of(scope) in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        try:
            allowance = await run_sync(self._admit, connection)
        except ConstellationError as error:
            await _refuse(error, scope, receive, send)
            return
        checked_at, has_ended = time.monotonic(), False

        async def send_while_known(message: Message) -> None:
            nonlocal checked_at, has_ended
            if has_ended:
                return  # who streams has not heard yet that nobody listens any more
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(allowance.headers)
            if message.get("more_body") and time.monotonic() - checked_at >= self._recheck_seconds:
                checked_at = time.monotonic()
                if not await run_sync(self._is_still_known, scope):
                    has_ended = True
                    message = {"type": "http.response.body", "body": b"", "more_body": False}
            await send(message)

        await self._app(scope, receive, send_while_known)

    def _admit(self, connection: HTTPConnection) -> Allowance:
        return self._access.limits.count_call(self._access.identify(connection).id)

    def _is_still_known(self, scope: Scope) -> bool:
        """Whether a caller would be let in again. An outage of those who could tell ends nobody's stream."""
        try:
            self._access.identify(HTTPConnection({**scope, SCOPE_KEY: None}))
        except (Unauthenticated, Forbidden, CrossSite):
            return False
        except ConstellationError:
            return True
        return True


def path_of(scope: Scope) -> str:
    """A call's path below where the application is mounted."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


async def _refuse(error: ConstellationError, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await WebSocket(scope, receive, send).send_denial_response(answer(error))
        return
    response: Response = answer(error)
    if isinstance(error, Unauthenticated) and _is_page_request(HTTPConnection(scope), scope["method"]):
        query = scope["query_string"].decode("latin-1")
        here = scope["path"] + (f"?{query}" if query else "")
        response = RedirectResponse(f"{LOGIN_PATH}?next={quote(here, safe='')}", 303)
    await response(scope, receive, send)


def _is_page_request(connection: HTTPConnection, method: str) -> bool:
    """Whether a person's browser wants to show the answer; programs get the error itself."""
    headers = connection.headers
    return (
        method == "GET"
        and "text/html" in headers.get("Accept", "")
        and headers.get("Sec-Fetch-Mode", "navigate") == "navigate"
        and "Authorization" not in headers
        and "X-API-Key" not in headers
    )
