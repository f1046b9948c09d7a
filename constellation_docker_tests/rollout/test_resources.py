"""Limits and reservations: what we ask of the engine is what stock Compose asks of it for the same file."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from constellation_docker.cards.serving_options import Reservations, Resources
from constellation_docker.rollout.generation import render_container
from constellation_docker_tests.fixtures.tiny_service import Environment

pytestmark = pytest.mark.slow

_FACTS = ("Memory", "MemoryReservation", "NanoCpus", "CpuShares", "PidsLimit", "DeviceRequests", "ShmSize")


@pytest.mark.parametrize(
    "resources",
    [
        Resources(memory="256m", cpus=0.5, pids=40),
        Resources(memory="256m", reservations=Reservations(memory="64m", cpus=0.25)),
        # The engine looks for GPUs only when a container is started.
        Resources(memory="256m", gpus=2),
        Resources(memory="256m", gpus=1, reservations=Reservations(memory="128m")),
    ],
    ids=["limits", "reservations", "gpus", "gpu and reservation"],
)
def test_the_engine_is_asked_for_what_stock_compose_asks_for(
    resources: Resources, compose: Path, environment: Environment, tmp_path: Path
) -> None:
    environment.want(resources=resources)
    path = tmp_path / "compose.yaml"
    path.write_text(environment.file.text)
    command: list[str | Path] = [compose, "-p", environment.project, "-f", path, "create", "tiny"]
    subprocess.run(command, check=True, capture_output=True)
    engine, (theirs,) = environment.engine, environment.containers()
    body = render_container(
        environment.file.services["tiny"].service,
        project=environment.project,
        name=f"{environment.project}-ours",
        number=2,
        secrets={},
        image_id=environment.image,
        compose_path=str(path),
        own_labels={},
    )
    ours = engine.create_container(f"{environment.project}-ours", body)
    assert facts(environment, ours) == facts(environment, theirs)


def facts(environment: Environment, container: str) -> dict[str, Any]:
    """What a container may use, as the engine has it."""
    config = (environment.engine.container(container) or {})["HostConfig"]
    return {name: config.get(name) for name in _FACTS}
