"""Model versions: registering, deploying, looking, deleting."""

from __future__ import annotations

from fastapi import APIRouter

from constellation_docker.cards import ModelCard
from constellation_docker.gateway.bodies import Accepted, Registration
from constellation_docker.gateway.ports import Provided
from constellation_docker.gateway.route import GatewayRoute

router = APIRouter(prefix="/docker/models", tags=["models"], route_class=GatewayRoute)


@router.post("/", status_code=202)
def register(body: Registration, ports: Provided) -> Accepted:
    """Register a model version and package it."""
    row = ports.store.add(ModelCard.from_registration(body.model_dump(exclude_unset=True)))
    return Accepted(model_id=row.model_id)
