"""What stands around the application: allowed hosts, CORS, security headers, the longest body.

Pure ASGI, so streams and disconnects pass through untouched.
"""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from constellation_docker.gateway.access.access_log import AccessLog
from constellation_docker.gateway.access.authentication import Access
from constellation_docker.gateway.access.gate import Gate, path_of
from constellation_docker.gateway.errors import render_error
from constellation_docker.gateway.links import UI_PATH
from constellation_docker.settings import GatewaySettings

# Whoever checks whether we live, calls by address.
PROBES = frozenset({"/health", "/ready"})
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
HSTS = "max-age=31536000"
NO_CONTENT = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
# Dagster's pages bring a policy of their own, or none that we could know; they may be framed by nobody either way.
UI_CONTENT = "frame-ancestors 'none'"

CORS_METHODS = ("GET", "POST", "DELETE")
CORS_REQUEST_HEADERS = (
    "Authorization",
    "X-API-Key",
    "Content-Type",
    "Idempotency-Key",
    "Last-Event-ID",
    "X-Request-ID",
)
CORS_ANSWER_HEADERS = (
    "Retry-After",
    "RateLimit-Limit",
    "RateLimit-Remaining",
    "RateLimit-Reset",
    "X-Request-ID",
)


def surround(app: FastAPI, settings: GatewaySettings, access: Access) -> None:
    """Put everything of this file, and the gate, around an application.

    The innermost first, since each that is added later stands around those before: the longest body, the gate,
    CORS (its preflights carry no key), the allowed hosts, the security headers, the access log.
    """
    app.add_middleware(BodyLimit, longest=settings.max_body_bytes)
    app.add_middleware(Gate, access=access)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=list(CORS_METHODS),
            allow_headers=list(CORS_REQUEST_HEADERS),
            expose_headers=list(CORS_ANSWER_HEADERS),
            allow_credentials=False,
        )
    app.add_middleware(AllowedHosts, names=allowed_hosts(settings))
    app.add_middleware(SecurityHeaders, is_always_secure=(settings.public_url or "").startswith("https://"))
    app.add_middleware(AccessLog)


def allowed_hosts(settings: GatewaySettings) -> tuple[str, ...]:
    """The names under which the gateway may be called."""
    if settings.allowed_hosts:
        return settings.allowed_hosts
    public = urlsplit(settings.public_url or "").hostname
    bound = () if settings.bind in {"0.0.0.0", "::", ""} else (settings.bind,)
    return tuple(dict.fromkeys([*([public] if public else []), *bound, *LOOPBACK_NAMES]))


class AllowedHosts:
    """ASGI middleware that refuses calls under foreign names: a page whose name was bent to our address gets nothing.

    Args:
        app: What lies behind.
        names: Host names; `*.example.org` stands for every name below.
    """

    def __init__(self, app: ASGIApp, names: Collection[str]) -> None:
        self._app = app
        self._names = {name.lower() for name in names if not name.startswith("*.")}
        self._endings = tuple(name[1:].lower() for name in names if name.startswith("*."))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one call."""
        if scope["type"] not in {"http", "websocket"} or self._is_allowed(scope):
            await self._app(scope, receive, send)
            return
        response = render_error(
            400,
            code="wrong_host",
            message="The gateway is not called by this host name. Whoever runs it sets gateway.allowed_hosts.",
        )
        if scope["type"] == "websocket":
            await WebSocket(scope, receive, send).send_denial_response(response)
        else:
            await response(scope, receive, send)

    def _is_allowed(self, scope: Scope) -> bool:
        if path_of(scope) in PROBES:
            return True
        given = Headers(scope=scope).getlist("host")
        if len(given) != 1:
            return False
        try:
            name = urlsplit(f"//{given[0]}").hostname or ""
        except ValueError:
            return False
        return name in self._names or name.endswith(self._endings)


class SecurityHeaders:
    """ASGI middleware that tells browsers to be careful. A page may bring a content policy of its own.

    Args:
        app: What lies behind.
        is_always_secure: Whether browsers reach us over TLS only, whatever the last hop speaks.
    """

    def __init__(self, app: ASGIApp, *, is_always_secure: bool = False) -> None:
        self._app = app
        self._is_always_secure = is_always_secure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one call."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_secure = self._is_always_secure or HTTPConnection(scope).url.scheme == "https"
        path = path_of(scope)
        is_ui = path == UI_PATH or path.startswith(f"{UI_PATH}/")

        async def send_carefully(message: Message) -> None:
            if message["type"] == "http.response.start":
                _add(MutableHeaders(scope=message), is_secure=is_secure, is_ui=is_ui)
            await send(message)

        await self._app(scope, receive, send_carefully)


def _add(headers: MutableHeaders, *, is_secure: bool, is_ui: bool) -> None:
    headers["X-Content-Type-Options"] = "nosniff"
    headers["X-Frame-Options"] = "DENY"
    headers["Referrer-Policy"] = "same-origin"
    headers["Cross-Origin-Opener-Policy"] = "same-origin"
    headers["Cross-Origin-Resource-Policy"] = "same-origin"
    if is_ui:
        headers.append("Content-Security-Policy", UI_CONTENT)
    else:
        headers.setdefault("Content-Security-Policy", NO_CONTENT)
        headers.setdefault("Cache-Control", "no-store")
    if is_secure:
        headers["Strict-Transport-Security"] = HSTS


class BodyLimit:
    """ASGI middleware that stops reading a body once it is too long, whether or not its length was announced.

    Args:
        app: What lies behind; it may answer the 413 that it meets while it reads in its own form.
        longest: Bytes.
    """

    def __init__(self, app: ASGIApp, longest: int) -> None:
        self._app = app
        self._longest = longest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one call."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("Content-Length", "0")
        if announced.isdecimal() and int(announced) > self._longest:
            response = render_error(
                413,
                code="body_too_large",
                message=f"The body is longer than {self._longest} bytes.",
                details={"limit_bytes": self._longest},
                headers={"Connection": "close"},
            )
            await response(scope, receive, send)
            return
        taken = 0

        async def receive_so_much() -> Message:
            nonlocal taken
            message = await receive()
            if message["type"] == "http.request":
                taken += len(message.get("body", b""))
                if taken > self._longest:
                    # The framework turns any other error while it reads into a 400.
                    raise HTTPException(413)
            return message

        await self._app(scope, receive_so_much, send)
