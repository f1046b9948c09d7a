"""Any image: pulling it to the building engine, pushing it from there, and how far that is."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Path

from constellation_docker import run_tags as tags
from constellation_docker.gateway.access.guard import guard
from constellation_docker.gateway.access.permissions import Action
from constellation_docker.gateway.bodies import Pull, Push
from constellation_docker.gateway.calls import Call, Called
from constellation_docker.gateway.errors import GatewayError
from constellation_docker.gateway.image_replies import ImageStatus, PullAccepted, PushAccepted
from constellation_docker.gateway.launches import Launch
from constellation_docker.gateway.links import Link, run_link
from constellation_docker.gateway.ports import Provided
from constellation_docker.gateway.purposes import pull_launch, push_launch
from constellation_docker.gateway.rendering import progress_of
from constellation_docker.gateway.route import GatewayRoute
from constellation_docker.gateway.statuses import error_of, moment_of

router = APIRouter(prefix="/docker/images", tags=["images"], route_class=GatewayRoute)

ImageId = Annotated[UUID, Path(description="The image_id that a pull or push answered.")]
JOBS: dict[str, Literal["pull", "push"]] = {"pull_image": "pull", "push_image": "push"}


class ImageNotFound(GatewayError):
    """No pull or push has this id."""

    code = "image_not_found"
    default_status = 404


@router.post("/pull/", status_code=202, dependencies=[Depends(guard(Action.PULL_IMAGE))])
def pull(body: Pull, call: Called) -> PullAccepted:
    """Pull an image to the building engine. The same pull while one is under way is that one."""

    def act() -> PullAccepted:
        launch = pull_launch(body.repository, body.tag, requested_by=call.principal.name)
        link = _start(launch, Action.PULL_IMAGE, call)
        return PullAccepted(image_id=link.run_id, run=link)

    return call.once(body, PullAccepted, act)


@router.post("/push/", status_code=202, dependencies=[Depends(guard(Action.PUSH_IMAGE))])
def push(body: Push, call: Called) -> PushAccepted:
    """Push an image of the building engine to a registry. The same push while one is under way is that one."""

    def act() -> PushAccepted:
        launch = push_launch(body.image_name, body.tag, body.repository, requested_by=call.principal.name)
        link = _start(launch, Action.PUSH_IMAGE, call)
        return PushAccepted(image_id=link.run_id, run=link)

    return call.once(body, PushAccepted, act)


@router.get("/{image_id}/status/", dependencies=[Depends(guard(Action.READ))])
def image_status(image_id: ImageId, ports: Provided) -> ImageStatus:
    """How far a pull or push is."""
    run = ports.dagster.run(str(image_id))
    link = run_link(ports.settings, str(image_id))
    if run is None or run.job not in JOBS or link is None:
        raise ImageNotFound(
            f"There is no pull or push {image_id}.", remedy="Use the image_id that the call answered."
        )
    progress = progress_of(run)
    has_failed = progress in {"failed", "cancelled"}
    return ImageStatus(
        image_id=run.run_id,
        action=JOBS[run.job],
        image=run.tags.get(tags.IMAGE),
        status="failed" if progress == "cancelled" else progress,
        last_updated=moment_of(run),
        last_error=error_of(run) if has_failed else None,
        run=link,
    )


def _start(launch: Launch, action: Action, call: Call) -> Link:
    what = launch.tags[tags.IMAGE]
    with call.audited(action, what) as line:
        line.run_id = call.ports.launches.start(f"{action} {what}", lambda: launch, arrived=call.arrived)
    link = run_link(call.ports.settings, line.run_id)
    assert link is not None
    return link
