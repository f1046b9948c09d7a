"""Deploying a model version, going back, and cancelling what is under way."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter, Depends

from constellation_docker import run_tags as tags
from constellation_docker.cards import CardNotFound
from constellation_docker.cards.launch_guards import deployment_subject
from constellation_docker.cards.rows import DeploymentRow, ModelRow
from constellation_docker.cards.store import KEEP
from constellation_docker.gateway.access.guard import guard
from constellation_docker.gateway.access.permissions import Action
from constellation_docker.gateway.bodies import Cancellation, Deployment, ModelId, Rollback
from constellation_docker.gateway.calls import Call, Called
from constellation_docker.gateway.dagster_client import LaunchRefused, Run, RunSelection
from constellation_docker.gateway.errors import GatewayError
from constellation_docker.gateway.launches import Launch
from constellation_docker.gateway.links import run_link
from constellation_docker.gateway.overview import IN_PROGRESS
from constellation_docker.gateway.ports import Ports
from constellation_docker.gateway.purposes import deployment_launch
from constellation_docker.gateway.replies import CancellationAccepted, DeploymentAccepted, RollbackAccepted
from constellation_docker.gateway.route import GatewayRoute

router = APIRouter(prefix="/docker/models", tags=["deployments"], route_class=GatewayRoute)


class NotDeployed(GatewayError):
    """The version is not what the environment wants."""

    code = "not_deployed"
    default_status = 409


class NothingToCancel(GatewayError):
    """No run works on the version."""

    code = "nothing_to_cancel"
    default_status = 409


@router.post("/{model_id}/deploy/", status_code=202, dependencies=[Depends(guard(Action.DEPLOY))])
def deploy(model_id: ModelId, body: Deployment, call: Called) -> DeploymentAccepted:
    """Deploy a model version to an environment.

    The wish is written down and a run carries it out; a version that is not packaged yet is deployed as soon as it
    is. The same call again starts nothing twice.
    """
    row = _living(call.ports, str(model_id))
    call.ports.settings.environment(body.environment)
    call.require(Action.DEPLOY, body.environment)
    return call.once(body, DeploymentAccepted, lambda: _deploy(row, body, call))


def _deploy(row: ModelRow, body: Deployment, call: Call) -> DeploymentAccepted:
    def want() -> DeploymentRow:
        return call.ports.store.want(
            body.environment,
            row.card.model_name,
            model_id=row.model_id,
            replicas=KEEP if body.replicas is None else body.replicas,
            resources=KEEP if body.resources is None else body.resources,
            requested_by=call.principal.name,
        )

    wish, run_id = _bring_about(row, body.environment, Action.DEPLOY, call, want)
    return DeploymentAccepted(
        model_id=row.model_id,
        environment=body.environment,
        revision=wish.revision,
        run=run_link(call.ports.settings, run_id),
    )


@router.post("/{model_id}/rollback/", status_code=202, dependencies=[Depends(guard(Action.ROLLBACK))])
def rollback(model_id: ModelId, body: Rollback, call: Called) -> RollbackAccepted:
    """Go back from a model version to an earlier release, in one environment.

    Asked of the version that is wanted there now, so that the same call again does not go back twice.
    """
    row = _living(call.ports, str(model_id))
    call.ports.settings.environment(body.environment)
    call.require(Action.ROLLBACK, body.environment)
    return call.once(body, RollbackAccepted, lambda: _roll_back(row, body, call))


def _roll_back(row: ModelRow, body: Rollback, call: Call) -> RollbackAccepted:
    store, name = call.ports.store, row.card.model_name

    def want() -> DeploymentRow:
        present = store.deployment(body.environment, name)
        if present.model_id != row.model_id:
            _require_rolled_back(call.ports, row, present)
            return present
        release = store.release(body.environment, name, body.to)
        return store.want(
            body.environment,
            name,
            model_id=release.model_id,
            replicas=release.replicas,
            resources=release.resources,
            requested_by=call.principal.name,
        )

    wish, run_id = _bring_about(row, body.environment, Action.ROLLBACK, call, want)
    return RollbackAccepted(
        model_id=row.model_id,
        environment=body.environment,
        revision=wish.revision,
        to_model_id=wish.model_id,
        to_version=wish.row.card.model_version,
        run=run_link(call.ports.settings, run_id),
    )


def _require_rolled_back(ports: Ports, row: ModelRow, present: DeploymentRow) -> None:
    """Go on only where the version was rolled back already: then the call came twice.

    Raises:
        NotDeployed: Another version is wanted there for another reason.
    """
    for trace in ports.store.traces_of([present.model_name]):
        is_meant = trace.environment == present.environment and trace.model_id == row.model_id
        if is_meant and trace.was_rolled_back:
            return
    raise NotDeployed(
        f"{present.environment} does not want {row.key} but {present.row.key}, so there is nothing to go back from.",
        remedy=f"Ask for the rollback of {present.model_id}.",
        wanted_model_id=present.model_id,
    )


@router.post("/{model_id}/cancel/", status_code=202, dependencies=[Depends(guard(Action.CANCEL))])
def cancel(model_id: ModelId, body: Cancellation, call: Called) -> CancellationAccepted:
    """End the runs that work on a model version: its packaging, and its deployments or one of them.

    A build stops on the engine, too; a rollout puts back what ran before.
    """
    row = _living(call.ports, str(model_id))
    if body.environment is not None:
        call.ports.settings.environment(body.environment)
        call.require(Action.CANCEL, body.environment)
    return call.once(body, CancellationAccepted, lambda: _cancel(row, body, call))


def _cancel(row: ModelRow, body: Cancellation, call: Call) -> CancellationAccepted:
    runs = _runs_under_way(call.ports, row, body.environment)
    for run in runs:
        call.require(Action.CANCEL, run.tags.get(tags.ENVIRONMENT))
    ended: list[Run] = []
    for run in runs:
        with call.audited(Action.CANCEL, row.key, run.tags.get(tags.ENVIRONMENT)) as line:
            line.run_id = run.run_id
            if _terminate(call.ports, run):
                ended.append(run)
    if not ended:
        raise NothingToCancel(
            f"Nothing works on {row.key} now.", remedy="GET …/status/ tells what became of it."
        )
    links = [link for run in ended if (link := run_link(call.ports.settings, run.run_id)) is not None]
    return CancellationAccepted(model_id=row.model_id, runs=links)


def _runs_under_way(ports: Ports, row: ModelRow, environment: str | None) -> list[Run]:
    places = [
        wish.environment
        for wish in ports.store.deployments_of(row.card.model_name)
        if wish.model_id == row.model_id and environment in {None, wish.environment}
    ]
    partitions = [f"{place}|{row.card.model_name}" for place in places]
    if environment is None:
        partitions.append(row.key)
    found = ports.dagster.several_runs(
        [RunSelection({tags.PARTITION: partition}, statuses=IN_PROGRESS) for partition in partitions]
    )
    return [run for runs in found for run in runs]


def _terminate(ports: Ports, run: Run) -> bool:
    """End a run. Whether there was still something to end."""
    try:
        ports.dagster.terminate(run.run_id)
    except LaunchRefused:
        now = ports.dagster.run(run.run_id)
        if now is None or now.has_ended:
            return False
        raise
    return True


def _bring_about(
    row: ModelRow, environment: str, action: Action, call: Call, want: Callable[[], DeploymentRow]
) -> tuple[DeploymentRow, str | None]:
    """Write down a wish and see to it that a run carries it out; none where nothing is left to do, or not yet."""
    store, name = call.ports.store, row.card.model_name
    wishes: list[DeploymentRow] = []

    def prepare() -> Launch | None:
        before = store.revision_of(environment, name)
        wish = want()
        wishes.append(wish)
        is_settled = wish.stable_revision == wish.revision
        if is_settled or wish.row.publication is None:
            return None
        is_first = before != wish.revision
        return deployment_launch(wish, requested_by=call.principal.name, is_first=is_first)

    with call.audited(action, row.key, environment) as line:
        subject = deployment_subject(f"{environment}|{name}")
        line.run_id = call.ports.launches.start(subject, prepare, arrived=call.arrived)
    return wishes[0], line.run_id


def _living(ports: Ports, model_id: str) -> ModelRow:
    """A version that may be worked with.

    Raises:
        CardNotFound: There is none, or it was deleted.
    """
    row = ports.store.get(model_id)
    if row.deleted_at is not None:
        raise CardNotFound(f"{row.key} was deleted.", remedy="Register it again.", model_id=model_id)
    return row
