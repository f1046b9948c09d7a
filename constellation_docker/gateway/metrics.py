"""How much the gateway is called, how it answers and how long that takes, for Prometheus."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, Depends
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from constellation_docker.gateway.access.guard import guard
from constellation_docker.gateway.access.permissions import Action
from constellation_docker.gateway.measures import Metrics
from constellation_docker.gateway.ports import Provided
from constellation_docker.gateway.route import GatewayRoute

router = APIRouter(tags=["operation"], route_class=GatewayRoute)

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Measured:
    """ASGI middleware that counts calls, by their route and never by their path: ids would make a series each."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one call."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        told: dict[str, Any] = {"status": 500, "is_stream": False}

        async def note(message: Message) -> None:
            if message["type"] == "http.response.start":
                told["status"] = message["status"]
                names = {name.lower() for name, _ in message.get("headers", ())}
                told["is_stream"] = b"content-length" not in names
            await send(message)

        self._metrics.running.inc()
        try:
            await self._app(scope, receive, note)
        finally:
            self._metrics.running.dec()
            route = getattr(scope.get("route"), "path", None) or "(other)"
            method = scope["method"] if scope["method"] in METHODS else "(other)"
            self._metrics.calls.labels(method, route, str(told["status"])).inc()
            if not told["is_stream"]:
                self._metrics.seconds.labels(method, route).observe(time.perf_counter() - began)


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Metrics."}},
    dependencies=[Depends(guard(Action.READ_METRICS))],
)
def metrics(ports: Provided) -> Response:
    """How much the gateway is called and how it answers, in Prometheus's text format."""
    return Response(ports.metrics.render(), media_type=CONTENT_TYPE_PLAIN_0_0_4)
