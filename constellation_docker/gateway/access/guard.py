"""The guard before an endpoint: `principal: Annotated[Principal, Depends(guard(Action.DEPLOY))]`."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import Security
from fastapi.security import APIKeyHeader, HTTPBearer
from starlette.requests import HTTPConnection, Request

from constellation_docker.gateway.access.audit import SCOPE_KEY
from constellation_docker.gateway.access.permissions import Action
from constellation_docker.gateway.access.principal import Principal
from constellation_docker.gateway.ports import Ports, ports_of

# Only so that OpenAPI tells how to log in; `authentication` reads the headers itself.
_BEARER = HTTPBearer(
    scheme_name="bearer",
    description="An API key or a token (JWT).",
    auto_error=False,
    bearerFormat="API key or JWT",
)
_API_KEY = APIKeyHeader(name="X-API-Key", scheme_name="api_key", description="An API key.", auto_error=False)

Guard = Callable[..., Coroutine[Any, Any, Principal]]


def guard(action: Action) -> Guard:
    """A dependency that lets on who may do `action`, and gives who it is.

    Where the environment decides and only the body or the store tells it, `require` must be asked again.

    Raises (when it is used):
        Unauthenticated: 401.
        Forbidden: 403, with an audit line.
    """

    async def check(
        request: Request,
        _bearer: Annotated[object, Security(_BEARER)],
        _key: Annotated[object, Security(_API_KEY)],
    ) -> Principal:
        access = ports_of(request).access
        principal: Principal | None = request.scope.get(SCOPE_KEY)
        if principal is None:
            principal = await run_sync(access.identify, request)
        access.demand(request, principal, action)
        return principal

    return check


def require(request: HTTPConnection, principal: Principal, action: Action, environment: str | None) -> None:
    """Let somebody on who may do `action` in this environment, and nobody else.

    Raises:
        Forbidden: They may not; an audit line says so.
    """
    ports: Ports = request.state.ports
    ports.access.demand(request, principal, action, environment)
