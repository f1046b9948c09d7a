"""Model versions: registering, listing, looking, deleting."""

from __future__ import annotations

import time
from typing import Annotated, Any

import anyio
from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Query
from starlette.responses import JSONResponse

from constellation_docker.cards import CardNotFound, ModelCard
from constellation_docker.cards.launch_guards import packaging_subject
from constellation_docker.cards.rows import InvalidRow, ModelRow
from constellation_docker.gateway import paging
from constellation_docker.gateway.access.guard import guard
from constellation_docker.gateway.access.permissions import Action
from constellation_docker.gateway.bodies import ModelId, Registration
from constellation_docker.gateway.calls import Call, Called
from constellation_docker.gateway.dagster_client import Run
from constellation_docker.gateway.errors import GatewayError
from constellation_docker.gateway.launches import Launch
from constellation_docker.gateway.links import run_link
from constellation_docker.gateway.overview import read_facts
from constellation_docker.gateway.ports import Ports, Provided
from constellation_docker.gateway.purposes import deletion_launch, packaging_launch
from constellation_docker.gateway.rendering import render_listed, render_status
from constellation_docker.gateway.replies import Accepted, Deleted, Deleting, ModelList, ModelStatus
from constellation_docker.gateway.route import GatewayRoute
from constellation_docker.gateway.statuses import Status, error_of, resolve_status

router = APIRouter(prefix="/docker/models", tags=["models"], route_class=GatewayRoute)

FIRST_POLL_SECONDS = 0.2
LONGEST_POLL_SECONDS = 1.0


class DeletionFailed(GatewayError):
    """The run that was to delete a model did not end well."""

    code = "deletion_failed"
    default_status = 502


@router.post("/", status_code=202, dependencies=[Depends(guard(Action.REGISTER))])
def register(body: Registration, call: Called) -> Accepted:
    """Register a model version and package it.

    The same body again answers the same and starts nothing twice; where its packaging failed before, it is tried
    again. Another body corrects a version that is not published yet. A published version never changes: 409, and
    `details.differs` names the fields.
    """
    card = ModelCard.from_registration(body.model_dump(mode="json", exclude_unset=True))
    return call.once(body, Accepted, lambda: _register(card, call))


def _register(card: ModelCard, call: Call) -> Accepted:
    ports = call.ports
    added: list[ModelRow] = []

    def prepare() -> Launch | None:
        is_first = not _is_known(ports, card)
        row = ports.store.add(card)
        added.append(row)
        if row.publication is not None:
            return None
        return packaging_launch(row, requested_by=call.principal.name, is_first=is_first)

    with call.audited(Action.REGISTER, card.key) as line:
        line.run_id = ports.launches.start(packaging_subject(card.key), prepare, arrived=call.arrived)
    return Accepted(model_id=added[0].model_id, run=run_link(ports.settings, line.run_id))


def _is_known(ports: Ports, card: ModelCard) -> bool:
    try:
        ports.store.id_of(card.model_name, card.model_version)
    except CardNotFound:
        return False
    return True


@router.get("/", dependencies=[Depends(guard(Action.READ))])
def list_models(
    ports: Provided,
    limit: Annotated[int, Query(ge=1, le=200, description="Most models of a page.")] = 50,
    cursor: Annotated[
        str | None, Query(max_length=1000, description="`next_cursor` of the page before.")
    ] = None,
    name: Annotated[str | None, Query(max_length=200, description="Only versions of this model.")] = None,
    status: Annotated[Status | None, Query(description="Only versions with this status.")] = None,
    environment: Annotated[
        str | None, Query(max_length=40, description="Only versions that are wanted in this environment.")
    ] = None,
    search: Annotated[
        str | None, Query(max_length=200, description="Only what holds this in name, version or description.")
    ] = None,
) -> ModelList:
    """Model versions, by name and version. Removed ones are listed only with `status=deleted`."""
    selection = paging.Selection(name=name, status=status, environment=environment, search=search)
    found, following = paging.read_page(ports, selection, after=paging.read_cursor(cursor), limit=limit)
    return ModelList(
        models=[render_listed(row, known) for row, known in found],
        next_cursor=paging.write_cursor(following) if following else None,
    )


@router.get("/{model_id}/status/", dependencies=[Depends(guard(Action.READ))])
def model_status(model_id: ModelId, ports: Provided) -> ModelStatus:
    """Where a model version is, and in each environment: version, revision, replicas, endpoint, last error, run."""
    row = ports.store.look_up(str(model_id))
    (facts,) = read_facts(ports.store, ports.dagster, [row], is_detailed=True)
    return render_status(ports.settings, row, resolve_status(facts))


@router.delete(
    "/{model_id}/",
    response_model=Deleted,
    responses={202: {"model": Deleting, "description": "It takes longer than a call may wait."}},
    dependencies=[Depends(guard(Action.DELETE))],
)
async def delete(model_id: ModelId, call: Called) -> Any:
    """Delete a model version: its containers and routes everywhere, images that nobody else uses, its row.

    The answer comes when it is gone; what takes longer is answered 202 and goes on. Deleting what is gone already
    answers the same once more.
    """
    run_id = await run_sync(_start_deletion, str(model_id), call)
    if run_id is None:
        return Deleted()
    run = await _wait_for_end(call.ports, run_id)
    if run is not None and run.status == "SUCCESS":
        return Deleted()
    if run is not None and run.has_ended:
        raise DeletionFailed(
            f"The model could not be deleted: {error_of(run)}",
            remedy="Deleting it again goes on where this stopped.",
            run_id=run_id,
        )
    deleting = Deleting(model_id=str(model_id), run=run_link(call.ports.settings, run_id))
    return JSONResponse(deleting.model_dump(mode="json"), status_code=202)


def _start_deletion(model_id: str, call: Call) -> str | None:
    ports = call.ports
    row = ports.store.look_up(model_id)
    if row.deleted_at is not None:
        return None
    name = row.model_name if isinstance(row, InvalidRow) else row.card.model_name
    for wish in ports.store.deployments_of(name):
        if wish.model_id == row.model_id and (isinstance(wish, InvalidRow) or wish.state != "deleted"):
            call.require(Action.DELETE, wish.environment)
    with call.audited(Action.DELETE, row.key) as line:
        line.run_id = ports.launches.start(
            f"deletion {row.model_id}",
            lambda: deletion_launch(row, requested_by=call.principal.name),
            arrived=call.arrived,
        )
    return line.run_id


async def _wait_for_end(ports: Ports, run_id: str) -> Run | None:
    """The run once it has ended, or as it is when the time is over; waiting takes no thread."""
    until = time.monotonic() + ports.settings.gateway.delete_wait_seconds
    pause = FIRST_POLL_SECONDS
    while True:
        run = await run_sync(ports.dagster.run, run_id)
        if (run is not None and run.has_ended) or time.monotonic() + pause > until:
            return run
        await anyio.sleep(pause)
        pause = min(pause * 1.5, LONGEST_POLL_SECONDS)
