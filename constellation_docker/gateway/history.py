"""What was wanted of a model version, and what was done for it."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query

from constellation_docker import run_tags as tags
from constellation_docker.gateway.access.guard import guard
from constellation_docker.gateway.access.permissions import Action
from constellation_docker.gateway.bodies import ModelId
from constellation_docker.gateway.ports import Ports, Provided
from constellation_docker.gateway.rendering import name_and_version, render_run
from constellation_docker.gateway.replies import HistoricRelease, ModelHistory
from constellation_docker.gateway.route import GatewayRoute

router = APIRouter(prefix="/docker/models", tags=["models"], route_class=GatewayRoute)

RELEASES_PER_ENVIRONMENT = 100


@router.get("/{model_id}/history/", dependencies=[Depends(guard(Action.READ))])
def history(
    model_id: ModelId,
    ports: Provided,
    limit: Annotated[int, Query(ge=1, le=200, description="Most runs of a page.")] = 50,
    cursor: Annotated[UUID | None, Query(description="`next_cursor` of the page before.")] = None,
) -> ModelHistory:
    """The releases that wanted a model version, and the runs that worked on it; newest first."""
    row = ports.store.look_up(str(model_id))
    name, _ = name_and_version(row)
    releases = [] if cursor is not None else _releases(ports, row.model_id, name)
    runs = ports.dagster.runs(
        {tags.MODEL_ID: row.model_id}, limit=limit + 1, cursor=str(cursor) if cursor else None
    )
    shown = runs[:limit]
    return ModelHistory(
        model_id=row.model_id,
        releases=releases,
        runs=[render_run(ports.settings, run) for run in shown],
        next_cursor=shown[-1].run_id if len(runs) > limit else None,
    )


def _releases(ports: Ports, model_id: str, name: str) -> list[HistoricRelease]:
    environments = sorted(
        {trace.environment for trace in ports.store.traces_of([name]) if trace.model_id == model_id}
    )
    found = [
        release
        for environment in environments
        for release in ports.store.releases(environment, name, limit=RELEASES_PER_ENVIRONMENT)
        if release.model_id == model_id
    ]
    return [
        HistoricRelease(
            environment=release.environment,
            revision=release.revision,
            image=release.image,
            replicas=release.replicas,
            state=release.state,
            requested_by=release.requested_by,
            at=release.at,
            stable_at=release.stable_at,
        )
        for release in sorted(found, key=lambda release: release.at, reverse=True)
    ]
