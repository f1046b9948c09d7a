"""How each of our routes is answered, in whichever app the router is mounted: with our errors and a request id."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from constellation_docker.gateway.errors import answer
from constellation_docker.gateway.request_id import HEADER, begin_request, request_id

ARRIVED = "constellation.arrived"
"""Where a request's scope says when the call came, before it waited for a thread."""


class GatewayRoute(APIRoute):
    """A route that answers its errors itself, because a foreign app's handlers would answer them otherwise."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The route's handler, with our errors around it."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            request.scope.setdefault(ARRIVED, datetime.now(UTC))
            if not request_id():
                begin_request(request.headers.get(HEADER))
            try:
                response = await handler(request)
            except Exception as error:  # noqa: BLE001 - a process's edge: every error has an answer, and is logged whole
                response = answer(error)
            response.headers[HEADER] = request_id()
            return response

        return handle
