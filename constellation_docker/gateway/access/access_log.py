"""The access log: one JSON line for every call, on the logger `constellation.access`. No query, no header, no body."""

from __future__ import annotations

import json
import logging
import time
from datetime import UTC, datetime

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from constellation_docker.gateway.access.audit import LONGEST_VALUE, SCOPE_KEY, without_secrets
from constellation_docker.gateway.access.principal import Principal
from constellation_docker.gateway.request_id import request_id

LOGGER = "constellation.access"
# What of a call that was cut off, or a websocket that was never accepted.
NO_STATUS = 0

_log = logging.getLogger(LOGGER)


class AccessLog:
    """ASGI middleware that writes the line when the answer is complete or broken off."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one call."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        began, status, sent_bytes = time.perf_counter(), NO_STATUS, 0

        async def send_and_note(message: Message) -> None:
            nonlocal status, sent_bytes
            if message["type"] in {"http.response.start", "websocket.http.response.start"}:
                status = message["status"]
            elif message["type"] == "websocket.accept":
                status = 101
            sent_bytes += len(message.get("body") or b"")
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        finally:
            _write(scope, status, sent_bytes, time.perf_counter() - began)


def _write(scope: Scope, status: int, sent_bytes: int, seconds: float) -> None:
    principal: Principal | None = scope.get(SCOPE_KEY)
    client = scope.get("client")
    line = {
        "log": "access",
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "method": scope.get("method", "WEBSOCKET"),
        "path": without_secrets(scope["path"])[:LONGEST_VALUE],
        "status": status,
        "milliseconds": round(seconds * 1000, 1),
        "bytes": sent_bytes,
        "who": principal.name if principal else None,
        "address": client[0] if client else None,
        "request_id": request_id(),
    }
    _log.info("%s", json.dumps(line, ensure_ascii=True))
