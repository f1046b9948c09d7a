"""The UI's websocket: GraphQL subscriptions, passed on message by message, each one read before.

The webserver speaks `graphql-ws` in its older form
(https://github.com/apollographql/subscriptions-transport-ws/blob/master/PROTOCOL.md). Mutations never go this way:
the UI sends none here, so nobody's do.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import websockets
from anyio.to_thread import run_sync
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState
from websockets.asyncio.client import ClientConnection, connect

from constellation_docker.gateway.access.audit import SCOPE_KEY, record
from constellation_docker.gateway.access.permissions import Action
from constellation_docker.gateway.errors import GatewayError, answer
from constellation_docker.gateway.ui_operations import UnreadableOperation, read_json, read_operation

PROTOCOL = "graphql-ws"
CONNECT_SECONDS = 5.0
LONGEST_ANSWER_BYTES = 16 * 1024 * 1024
RECHECK_SECONDS = 30.0
"""How long a session that has ended, or a key that was revoked, may go on listening."""

RETRY_LATER = {"Retry-After": "10"}

POLICY_VIOLATION, TRY_AGAIN_LATER, NORMAL = 1008, 1013, 1000


class TooManyWebsockets(GatewayError):
    """So many are open already that one more would cost the webserver and the others."""

    code = "too_many_websockets"
    default_status = 429


class OpenWebsockets:
    """The websockets that are open, and whose. Used in one event loop.

    Args:
        most: How many there may be in all.
        most_of_one: How many one caller may have.
    """

    def __init__(self, most: int, most_of_one: int) -> None:
        self._most = most
        self._most_of_one = most_of_one
        self._open: Counter[str] = Counter()

    @contextmanager
    def counted(self, caller: str) -> Iterator[None]:
        """Count one more during the block.

        Args:
            caller: What tells callers apart.

        Raises:
            TooManyWebsockets: The caller (429) or all together (503) have as many as there may be.
        """
        if self._open[caller] >= self._most_of_one:
            raise TooManyWebsockets(
                f"You have {self._most_of_one} websockets open, which is as many as one caller may have.",
                remedy="Close some of the UI's tabs.",
                headers=RETRY_LATER,
            )
        if self._open.total() >= self._most:
            raise TooManyWebsockets(
                "Too many websockets are open.", remedy="Try again later.", status=503, headers=RETRY_LATER
            )
        self._open[caller] += 1
        try:
            yield
        finally:
            self._open[caller] -= 1
            self._open += Counter()  # forgets those who have none


class _Refused(Exception):
    """The conversation ends here: a close code and its reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


async def pass_websocket_on(
    websocket: WebSocket,
    url: str,
    *,
    longest_message: int,
    admit: Callable[[HTTPConnection], Any],
    recheck_seconds: float = RECHECK_SECONDS,
) -> None:
    """Connect a browser's websocket, whose caller was let in, with the webserver's, until either ends.

    Args:
        websocket: The browser's; not yet accepted.
        url: The webserver's, `ws://…/graphql`.
        longest_message: Most bytes of a message from the browser.
        admit: Asked again and again whether the caller may still be here; raises GatewayError if not.
        recheck_seconds: How often.
    """
    try:
        upstream = await connect(
            url,
            subprotocols=[websockets.Subprotocol(PROTOCOL)],
            open_timeout=CONNECT_SECONDS,
            close_timeout=CONNECT_SECONDS,
            max_size=LONGEST_ANSWER_BYTES,
            proxy=None,
        )
    except (OSError, TimeoutError, websockets.WebSocketException):
        await websocket.close(TRY_AGAIN_LATER)
        return
    async with upstream:
        offered = websocket.scope.get("subprotocols", [])
        await websocket.accept(subprotocol=PROTOCOL if PROTOCOL in offered else None)
        tasks = [
            asyncio.create_task(_listen_to_browser(websocket, upstream, longest_message)),
            asyncio.create_task(_listen_to_webserver(websocket, upstream)),
            asyncio.create_task(_look_again(websocket, admit, recheck_seconds)),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
    code, reason = _ending([results[tasks.index(task)] for task in done])
    if websocket.application_state is WebSocketState.CONNECTED is websocket.client_state:
        await websocket.close(code, reason)


async def _listen_to_browser(websocket: WebSocket, upstream: ClientConnection, longest: int) -> None:
    while True:
        text = await websocket.receive_text()
        if len(text.encode()) > longest:
            raise _Refused(1009, "The message is too long.")
        try:
            message = read_json(text)
            kind = message.get("type") if isinstance(message, dict) else None
            if kind == "start":
                await _start(websocket, upstream, message)
            elif kind == "connection_init":
                await upstream.send(json.dumps({"type": kind}))
            elif kind == "stop":
                await upstream.send(json.dumps({"type": kind, "id": message.get("id")}))
            elif kind == "connection_terminate":
                raise _Refused(NORMAL, "")
        except UnreadableOperation as error:
            raise _Refused(POLICY_VIOLATION, error.message[:100]) from None


async def _start(websocket: WebSocket, upstream: ClientConnection, message: dict[str, Any]) -> None:
    identity = message.get("id")
    operation = await run_sync(read_operation, message.get("payload"))
    if operation.is_mutation:
        reason = "Mutations are not taken over the websocket."
        record(websocket, Action.CHANGE_IN_UI, operation.name, outcome="denied", reason=reason)
        refusal = {"type": "error", "id": identity, "payload": {"message": reason}}
        await websocket.send_text(json.dumps(refusal))
        return
    payload = json.loads(operation.body())
    # The webserver reads the name in this spelling here.
    payload["operation_name"] = payload["operationName"]
    await upstream.send(json.dumps({"type": "start", "id": identity, "payload": payload}))


async def _listen_to_webserver(websocket: WebSocket, upstream: ClientConnection) -> None:
    async for message in upstream:
        if isinstance(message, str):
            await websocket.send_text(message)


async def _look_again(
    websocket: WebSocket, admit: Callable[[HTTPConnection], Any], recheck_seconds: float
) -> None:
    while True:
        await asyncio.sleep(recheck_seconds)
        websocket.scope.pop(SCOPE_KEY, None)
        try:
            await run_sync(admit, websocket)
        except GatewayError as error:
            raise _Refused(POLICY_VIOLATION, error.message[:100]) from None


def _ending(results: list[object]) -> tuple[int, str]:
    """How to close the browser's side, from what became of the tasks that ended first."""
    for result in results:
        if isinstance(result, _Refused):
            return result.code, result.reason
        if isinstance(result, websockets.ConnectionClosedError | OSError):
            return TRY_AGAIN_LATER, ""
        if isinstance(result, Exception) and not isinstance(
            result, WebSocketDisconnect | websockets.ConnectionClosed
        ):
            answer(result)
            return 1011, ""
    return NORMAL, ""
