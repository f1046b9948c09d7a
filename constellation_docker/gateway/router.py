"""All endpoints as one router, to be served by ourselves or mounted in the Constellation backend."""

from __future__ import annotations

from fastapi import APIRouter, Depends

from constellation_docker.gateway import (
    deployments,
    environments,
    events,
    health,
    history,
    images,
    logs,
    metrics,
    models,
    schemas,
)
from constellation_docker.gateway.ports import Ports
from constellation_docker.gateway.replies import ProblemReply
from constellation_docker.gateway.route import GatewayRoute

ERRORS = {
    401: "Nobody is logged in.",
    403: "The caller may not do this.",
    404: "There is no such thing.",
    409: "What is there already stands against it.",
    422: "A field is missing or wrong; `details.problems` names each.",
    429: "Too many calls; come back after `Retry-After` seconds.",
    503: "A part does not answer now; come back after `Retry-After` seconds.",
}


def create_router(ports: Ports) -> APIRouter:
    """The REST contract as a router: `app.include_router(create_router(ports))`.

    It brings its errors, request ids and access checks along; what a server adds around them (limits, security
    headers, Dagster's UI) is `create_app`'s.

    Args:
        ports: What it works with; whoever mounts it closes the store and the client.
    """
    router = APIRouter(
        dependencies=[Depends(ports.provide)],
        route_class=GatewayRoute,
        responses={
            status: {"model": ProblemReply, "description": description}
            for status, description in ERRORS.items()
        },
    )
    for part in (models, deployments, history, logs, schemas, images, environments, events, health, metrics):
        router.include_router(part.router)
    return router
