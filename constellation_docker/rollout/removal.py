"""Taking away: one service, or a whole environment. What belongs to others stays."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass

from constellation_docker.compose import ComposeFile, labels
from constellation_docker.engine import Conflict, Engine
from constellation_docker.rollout.executor import StepRecord
from constellation_docker.rollout.observed import observe
from constellation_docker.rollout.pace import Lease, never
from constellation_docker.rollout.rollout import roll_out
from constellation_docker.settings import EnvironmentSettings

_QUICK_GRACE_SECONDS = 10


@dataclass(frozen=True)
class RemovalResult:
    """What was removed.

    Attributes:
        containers: Names of the containers.
        images: Ids of the images.
        networks: Names of the networks.
        steps: What was done, where requests were drained first.
    """

    containers: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    steps: tuple[StepRecord, ...] = ()


def remove_service(
    compose_file: ComposeFile,
    slug: str,
    *,
    engine: Engine,
    settings: EnvironmentSettings,
    kept_images: Collection[str] = (),
    lease: Lease | None = None,
    on_line: Callable[[str], None] = lambda line: None,
    is_cancelled: Callable[[], bool] = never,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> RemovalResult:
    """Drain and remove one service: its route, its containers, and the images that nobody else uses.

    Args:
        compose_file: The environment's Compose file, with or without the service.
        slug: The service.
        engine: The environment's engine.
        settings: The environment's settings.
        kept_images: References or ids of images that must stay, such as those of other model versions.
        lease: The right to work on the service.
        on_line: Told of every step.
        is_cancelled: Asked several times a second.
        clock: Seconds that only grow.
        sleep: Waits so many seconds.
    """
    before = observe(engine, compose_file.project).replicas(slug)
    without = ComposeFile(
        environment=compose_file.environment,
        project=compose_file.project,
        services={name: item for name, item in compose_file.services.items() if name != slug},
        balancer=compose_file.balancer,
        balancer_hash=compose_file.balancer_hash,
        document=compose_file.document,
        text=compose_file.text,
        balancer_options=compose_file.balancer_options,
    )
    done = roll_out(
        without,
        slug,
        engine=engine,
        settings=settings,
        lease=lease,
        on_line=on_line,
        is_cancelled=is_cancelled,
        clock=clock,
        sleep=sleep,
    )
    kept = {*kept_images, *(item.service.image for item in without.services.values())}
    images = remove_unused_images(engine, {replica.image for replica in before}, kept)
    return RemovalResult(tuple(replica.name for replica in before), images, (), done.steps)


def remove_environment(
    engine: Engine, project: str, *, on_line: Callable[[str], None] = lambda line: None
) -> RemovalResult:
    """Remove everything of ours from an environment at once, without draining. Images stay.

    Args:
        engine: The environment's engine.
        project: Its Compose project.
        on_line: Told of everything that is removed.
    """
    containers = []
    for container in engine.list_containers({labels.COMPOSE_PROJECT: project, labels.ROLE: None}):
        name = container["Names"][0].lstrip("/")
        on_line(f"removing {name}")
        if container["State"] == "running":
            engine.stop(container["Id"], grace_seconds=_QUICK_GRACE_SECONDS)
        engine.remove(container["Id"], force=True)
        containers.append(name)
    networks = []
    for network in engine.list_networks({labels.COMPOSE_PROJECT: project}):
        # Somebody else's container in it keeps it alive.
        with suppress(Conflict):
            on_line(f"removing network {network['Name']}")
            engine.remove_network(network["Id"])
            networks.append(network["Name"])
    return RemovalResult(tuple(containers), (), tuple(networks))


def remove_unused_images(engine: Engine, images: Collection[str], kept: Collection[str]) -> tuple[str, ...]:
    """Remove images that no container uses.

    Args:
        engine: The engine.
        images: Ids of the images in question.
        kept: References or ids that must stay.

    Returns:
        Ids of those that were removed.
    """
    stay = {facts.id for reference in kept if (facts := engine.image(reference)) is not None}
    used = {container.get("ImageID") for container in engine.list_containers()}
    removed = []
    for image in sorted(set(images) - stay - used):
        facts = engine.image(image) if image else None
        if facts is None:
            continue
        # An id with several names cannot be removed at once without force.
        with suppress(Conflict):
            for name in [*facts.tags, *facts.repo_digests]:
                engine.remove_image(name)
            engine.remove_image(image)
            removed.append(image)
    return tuple(removed)
