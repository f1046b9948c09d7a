"""The environments: where models run."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends

from constellation_docker.compose import balancer_url
from constellation_docker.gateway.access.guard import guard
from constellation_docker.gateway.access.permissions import Action, is_allowed
from constellation_docker.gateway.access.principal import Principal
from constellation_docker.gateway.ports import Provided
from constellation_docker.gateway.replies import EnvironmentList, KnownEnvironment
from constellation_docker.gateway.route import GatewayRoute

router = APIRouter(prefix="/docker/environments", tags=["environments"], route_class=GatewayRoute)


@router.get("/")
def list_environments(
    ports: Provided, principal: Annotated[Principal, Depends(guard(Action.READ))]
) -> EnvironmentList:
    """The environments, by name: where they answer, how much is wanted there, and whether the caller may deploy."""
    protected = ports.settings.gateway.protected_environments
    counts = ports.store.count_wanted()
    return EnvironmentList(
        environments=[
            KnownEnvironment(
                environment=name,
                url=balancer_url(known),
                is_protected=name in protected,
                may_deploy=is_allowed(principal, Action.DEPLOY, name, protected=protected),
                models=counts.get(name, 0),
            )
            for name, known in sorted(ports.settings.environments.items())
        ]
    )
