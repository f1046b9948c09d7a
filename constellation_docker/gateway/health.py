"""Whether the gateway lives, and whether it can do its work. The two calls that need no login."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Response

from constellation_docker.errors import ConstellationError
from constellation_docker.gateway.ports import Provided
from constellation_docker.gateway.replies import Reply
from constellation_docker.gateway.route import GatewayRoute

router = APIRouter(tags=["operation"], route_class=GatewayRoute)


class Health(Reply):
    """The gateway lives."""

    status: Literal["ok"] = "ok"


class Readiness(Reply):
    """Whether each part that the gateway needs answers."""

    status: Literal["ready", "not_ready"]
    store: bool
    dagster: bool


@router.get("/health")
async def health() -> Health:
    """Whether the gateway lives."""
    return Health()


@router.get("/ready", responses={503: {"model": Readiness, "description": "A part does not answer."}})
def ready(ports: Provided, response: Response) -> Readiness:
    """Whether the card store and Dagster answer, so that calls can be taken."""
    store, dagster = _answers(ports.store.schema_version), _answers(ports.dagster.is_ready)
    is_ready = store and dagster
    response.status_code = 200 if is_ready else 503
    return Readiness(status="ready" if is_ready else "not_ready", store=store, dagster=dagster)


def _answers(question: object) -> bool:
    try:
        return bool(question())  # type: ignore[operator]
    except ConstellationError:
        return False
