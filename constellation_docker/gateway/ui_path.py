"""Dagster's UI behind the gateway's login: `/ui/…` is passed on to the webserver, which has no login of its own.

Pages and files are passed on to whoever may use the UI. GraphQL is read first (`ui_operations`): questions pass,
a mutation needs the right that the same thing needs over REST (`ui_permissions`), and is written to the audit
trail. Nothing else that changes something is passed on, and nothing that another site's page asked for. The webserver
sees neither our keys nor our cookies.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
from anyio import CancelScope
from anyio.to_thread import run_sync
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from constellation_docker.gateway.access.audit import record
from constellation_docker.gateway.access.errors import Forbidden
from constellation_docker.gateway.access.permissions import Action
from constellation_docker.gateway.access.principal import Principal, Role
from constellation_docker.gateway.dagster_client import DagsterUnavailable
from constellation_docker.gateway.errors import GatewayError, answer
from constellation_docker.gateway.links import UI_PATH
from constellation_docker.gateway.ports import Ports
from constellation_docker.gateway.same_site import refuse_other_sites
from constellation_docker.gateway.ui_operations import (
    UiOperation,
    UnreadableOperation,
    read_json,
    read_operation,
    stamp_requester,
)
from constellation_docker.gateway.ui_permissions import Demand, demands_of, settle_run
from constellation_docker.gateway.ui_viewing import asks_for_permissions, without_permissions
from constellation_docker.gateway.ui_websocket import OpenWebsockets, pass_websocket_on

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 60.0
"""Some of the UI's questions take the webserver long; nothing of ours waits for them."""
MAX_CONNECTIONS = 100
MAX_MUTATION_ANSWER_BYTES = 4 * 1024 * 1024
MAX_PERMISSIONS_BYTES = 64 * 1024 * 1024
"""Assets with their permissions; more than this the webserver does not answer to the gateway's own questions either."""

REQUEST_HEADERS = (
    "accept",
    "accept-encoding",
    "accept-language",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "range",
    "user-agent",
)
"""What of a request the webserver gets to see; everything else is ours, or about this hop only."""
DROPPED_HEADERS = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "date",
        "server",
        "set-cookie",
        "x-dagster-call-counts",
    }
)
"""Headers about one hop only (RFC 9110, 7.6.1), and what the webserver has no business to tell a browser."""


CLOSED_PATHS = frozenset({"/notebook", "/dagit/notebook"})
"""They read any notebook file that the code location can reach, and we have none."""


class NotPassedOn(GatewayError):
    """The webserver has such a path or method, and the gateway keeps it closed."""

    code = "not_passed_on"
    default_status = 405


class UiNotSetUp(GatewayError):
    """The webserver serves its pages under another path than the gateway, so their links would lead nowhere."""

    code = "ui_not_set_up"
    default_status = 503


class UiPath:
    """The reverse path to Dagster's webserver.

    Args:
        ports: The gateway's settings, its access and its client of the webserver.
    """

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        known = ports.settings.gateway
        self._url = known.webserver_url.rstrip("/")
        self._open_websockets = OpenWebsockets(known.max_websockets, known.max_websockets_per_caller)
        self._http = httpx.AsyncClient(
            timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS, pool=CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=20),
            follow_redirects=False,
            trust_env=False,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Closes the connections to the webserver at the end of the block."""
        async with self._http:
            yield

    def routes(self) -> list[BaseRoute]:
        """The routes to add to an application."""
        methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
        return [
            WebSocketRoute(f"{UI_PATH}/graphql", self._websocket),
            Route(UI_PATH, self._answer, methods=methods, include_in_schema=False),
            Route(f"{UI_PATH}/{{path:path}}", self._answer, methods=methods, include_in_schema=False),
        ]

    async def _answer(self, request: Request) -> Response:
        principal = await run_sync(self._admit, request)
        path = _checked_path(request)
        if path == "/graphql":
            return await self._graphql(request, principal)
        if request.method not in {"GET", "HEAD"}:
            raise NotPassedOn(
                f"{request.method} is not passed on to {path}.",
                remedy="In the UI everything that changes something goes to /ui/graphql.",
                headers={"Allow": "GET, HEAD"},
            )
        query = f"?{request.url.query}" if request.url.query else ""
        return await self._pass_on(request, request.method, quote(path, safe="/~@:!$&'()*+,;=") + query)

    def _admit(self, connection: HTTPConnection) -> Principal:
        """Who it is; nobody gets further from another site's page, or without the right to use the UI."""
        refuse_other_sites(connection)
        principal = self._ports.access.identify(connection)
        self._ports.access.demand(connection, principal, Action.USE_UI)
        if not urlsplit(self._url).path == UI_PATH:
            raise UiNotSetUp(
                f"Dagster's UI is not set up to be shown under {UI_PATH}.",
                remedy=f"Start dagster-webserver with `--path-prefix {UI_PATH}`, and let gateway.webserver_url end in {UI_PATH}.",
            )
        return principal

    async def _graphql(self, request: Request, principal: Principal) -> Response:
        if request.method == "GET" and "text/html" in request.headers.get("Accept", ""):
            return await self._pass_on(request, "GET", "/graphql")
        if request.method == "GET":
            operation = await run_sync(read_operation, dict(request.query_params))
            if operation.is_mutation:
                self._deny(request, operation, "Mutations are not taken over GET, from nobody.")
                raise NotPassedOn(
                    "Mutations are not taken over GET.", remedy="Send POST.", headers={"Allow": "POST"}
                )
        elif request.method == "POST":
            operation = await run_sync(read_operation, await self._json_body(request))
        else:
            raise NotPassedOn("GraphQL takes GET and POST.", headers={"Allow": "GET, POST"})
        if operation.is_mutation:
            return await self._change(request, principal, operation)
        response = await self._pass_on(request, "POST", "/graphql", body=operation.body())
        if principal.role is Role.VIEWER and asks_for_permissions(operation.query):
            content = without_permissions(await response.whole(MAX_PERMISSIONS_BYTES))
            return self._rewritten(response, content)
        return response

    async def _change(self, request: Request, principal: Principal, operation: UiOperation) -> Response:
        """Pass a mutation on for somebody who may, in their name, and say so in the audit trail."""
        try:
            demands = await run_sync(self._demand_all, request, principal, operation)
        except Forbidden as error:
            return _with_graphql_errors(error)
        stamp_requester(operation, principal.name)
        environments = ", ".join(sorted({item.environment for item in demands if item.environment})) or None
        subject = f"{operation.name}: {', '.join(sorted({item.what for item in demands}))}"
        record(request, Action.CHANGE_IN_UI, subject, outcome="allowed", environment=environments)
        response = await self._pass_on(request, "POST", "/graphql", body=operation.body())
        content = await response.whole(MAX_MUTATION_ANSWER_BYTES)
        for run_id in _runs_in(content):
            done = {"run_id": run_id, "environment": environments}
            record(request, Action.CHANGE_IN_UI, subject, outcome="done", **done)
        return self._rewritten(response, content)

    def _rewritten(self, response: PassedOn, content: bytes) -> Response:
        headers = _headers_back(response.upstream, self._url)
        headers.pop("content-length", None)
        return Response(content, response.status_code, headers=headers)

    def _demand_all(self, request: Request, principal: Principal, operation: UiOperation) -> list[Demand]:
        settled: list[Demand] = []
        for demand in demands_of(operation.mutations()):
            settled += self._settled(demand)
        for demand in settled:
            self._ports.access.demand(request, principal, demand.action, demand.environment)
        return settled

    def _settled(self, demand: Demand) -> list[Demand]:
        if demand.run_id is None:
            return [demand]
        run = self._ports.dagster.run(demand.run_id)
        return settle_run(demand, run.job if run else None, run.tags if run else {})

    def _deny(self, request: Request, operation: UiOperation, reason: str) -> None:
        record(request, Action.CHANGE_IN_UI, operation.name, outcome="denied", reason=reason)

    async def _json_body(self, request: Request) -> Any:
        media_type = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if media_type != "application/json":
            raise UnreadableOperation(
                "GraphQL is taken as application/json only.", remedy="Send JSON.", status=415
            )
        longest = self._ports.settings.gateway.max_body_bytes
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > longest:
                raise UnreadableOperation(
                    f"The body is longer than {longest} bytes.", remedy="Send less.", status=413
                )
        return read_json(body)

    async def _pass_on(
        self, request: Request, method: str, path: str, *, body: bytes | None = None
    ) -> PassedOn:
        headers = {name: request.headers[name] for name in REQUEST_HEADERS if name in request.headers}
        if body is not None:
            headers |= {"content-type": "application/json", "accept-encoding": "identity"}
        headers.setdefault("accept-encoding", "identity")
        message = self._http.build_request(method, self._url + path, headers=headers, content=body)
        try:
            upstream = await self._http.send(message, stream=True)
        except httpx.HTTPError as error:
            raise DagsterUnavailable(
                f"Dagster's webserver does not answer at {self._url}.", cause=type(error).__name__
            ) from error
        return PassedOn(upstream, _headers_back(upstream, self._url))

    async def _websocket(self, websocket: WebSocket) -> None:
        """Subscriptions: the UI's live logs."""
        with ExitStack() as held:
            try:
                principal = await run_sync(self._admit, websocket)
                held.enter_context(self._open_websockets.counted(principal.id))
            except GatewayError as error:
                await websocket.send_denial_response(answer(error))
                return
            await pass_websocket_on(
                websocket,
                f"{self._url.replace('http', 'ws', 1)}/graphql",
                longest_message=self._ports.settings.gateway.max_body_bytes,
                admit=self._admit,
            )


class PassedOn(Response):
    """An answer of the webserver, passed on while it arrives; its connection is given back in every case."""

    def __init__(self, upstream: httpx.Response, headers: Mapping[str, str]) -> None:
        self.upstream = upstream
        self.status_code = upstream.status_code
        self.background = None
        self.raw_headers = [
            (name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await send(
                {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            )
            async for part in self.upstream.aiter_raw():
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            with CancelScope(shield=True):
                await self.upstream.aclose()

    async def whole(self, longest: int) -> bytes:
        """All of it, as it came over the line.

        Raises:
            DagsterUnavailable: It broke off, or is longer than that.
        """
        content = b""
        try:
            async for part in self.upstream.aiter_raw():
                content += part
                if len(content) > longest:
                    raise DagsterUnavailable("The webserver's answer does not end.")
        except httpx.HTTPError as error:
            raise DagsterUnavailable("The webserver's answer broke off.") from error
        finally:
            with CancelScope(shield=True):
                await self.upstream.aclose()
        return content


def _checked_path(request: Request) -> str:
    """The path below `/ui`, as the webserver will read it."""
    path: str = request.scope["path"].removeprefix(request.scope.get("root_path", "")).removeprefix(UI_PATH)
    path = path or "/"
    has_steps = any(part in {".", ".."} for part in path.split("/"))
    if (
        path in CLOSED_PATHS
        or has_steps
        or "\\" in path
        or any(ord(letter) < 0x20 or ord(letter) == 0x7F for letter in path)
    ):
        raise NotPassedOn("There is no such page.", remedy="Start at /ui/.", status=404)
    return path


def _headers_back(upstream: httpx.Response, url: str) -> dict[str, str]:
    named = {name.strip().lower() for name in upstream.headers.get("connection", "").split(",")}
    kept = {
        name: value
        for name, value in upstream.headers.items()
        if name.lower() not in DROPPED_HEADERS and name.lower() not in named
    }
    if "location" in kept:
        target = urlsplit(kept["location"])
        origin = urlsplit(url)
        if target.netloc == origin.netloc:
            kept["location"] = (target.path or "/") + (f"?{target.query}" if target.query else "")
    return kept


def _with_graphql_errors(error: Forbidden) -> Response:
    """A denial in our form, and in GraphQL's beside it, so that the UI shows the sentence to the person who clicked."""
    response = answer(error)
    content = json.loads(bytes(response.body)) | {"data": None, "errors": [{"message": error.message}]}
    headers = {name: value for name, value in response.headers.items() if name != "content-length"}
    return Response(json.dumps(content), response.status_code, headers=headers)


def _runs_in(content: bytes) -> list[str]:
    """The runs that an answer to a mutation names: whatever is asked of them, the UI asks for their ids."""
    try:
        answered = json.loads(content)
    except ValueError:
        return []
    found: dict[str, None] = {}
    waiting: list[tuple[str, Any]] = [("", answered)]
    while waiting:
        name, item = waiting.pop()
        if isinstance(item, dict):
            run_id = item.get("runId") or (item.get("id") if name == "run" else None)
            if isinstance(run_id, str):
                found[run_id] = None
            waiting += item.items()
        elif isinstance(item, list):
            waiting += [(name, part) for part in item]
    return list(found)
