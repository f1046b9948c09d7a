"""What is moved by the rollout benchmark, and the two that move it: our rollouts and stock Compose."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Protocol

from constellation_docker.cards.serving_options import DeployOptions, Resources
from constellation_docker.compose import ComposeFile, WantedService, compile_environment
from constellation_docker.engine import Engine
from constellation_docker.packaging.base_image import ensure_base_image
from constellation_docker.rollout import RolloutFailed, StepRecord, remove_environment, roll_out
from constellation_docker.settings import BaseImageSettings, EnvironmentSettings
from deploy.local_dagster import free_port

IMAGE: Final = "constellation-benchmark/service:1"
IDLE_IMAGE: Final = "constellation-benchmark/service:unchecked"
SLUG: Final = "service"
LABELS: Final = {"constellation.benchmark": "rollout"}
DEADLINES: Final = DeployOptions(
    healthy_deadline="20s",
    progress_deadline="120s",
    min_healthy_time="1s",
    drain_timeout="10s",
    stop_grace_period="10s",
)
_SOURCE: Final = Path(__file__).with_name("rollout_service.py")
_PROBE: Final = """
import socket, sys
s = socket.create_connection(("127.0.0.1", 8080), 2)
s.sendall(b"GET /ready HTTP/1.0\\r\\n\\r\\n")
sys.exit(b" 200 " not in s.recv(64))
"""
# As in the images that we build (packaging/dockerfile.py).
_HEALTH: Final = "HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 CMD"
_COMPOSE_PLACES: Final = (
    "/usr/libexec/docker/cli-plugins/docker-compose",
    "/usr/local/lib/docker/cli-plugins/docker-compose",
)


@dataclass(frozen=True)
class Moved:
    """One change that was carried out.

    Attributes:
        seconds: How long it took.
        outcome: `successful`, `unchanged`, or what a failed rollout came to.
        steps: What our rollout did.
        message: Why it failed.
    """

    seconds: float
    outcome: str
    steps: tuple[StepRecord, ...] = ()
    message: str = ""


@dataclass
class Ground:
    """An environment of its own on a real engine.

    Attributes:
        engine: The engine.
        image: Id of the service's image.
        idle_image: The same without a health check.
        balancer_image: Reference of the balancer's image.
        services: What is wanted, by slug.
    """

    engine: Engine
    image: str
    idle_image: str
    balancer_image: str
    settings: EnvironmentSettings
    services: dict[str, WantedService] = field(default_factory=dict)

    @property
    def project(self) -> str:
        """Its Compose project."""
        assert self.settings.project
        return self.settings.project

    @property
    def file(self) -> ComposeFile:
        """The Compose file of what is wanted."""
        services = list(self.services.values())
        return compile_environment("benchmark", self.settings, services, balancer_image=self.balancer_image)

    def want(self, slug: str = SLUG, **changes: Any) -> WantedService:
        """Change what is wanted of a service; what is not given is as before."""
        before = self.services.get(slug) or WantedService(
            model_name=slug,
            slug=slug,
            model_version="1",
            model_id=str(uuid.uuid4()),
            image=self.image,
            resources=Resources(memory="128m", cpus=1.0, pids=64),
            deploy=DEADLINES,
        )
        version = str(changes.get("model_version", before.model_version))
        env = {"VERSION": version, **changes.pop("env", {})}
        given = before.model_dump() | changes | {"env": env}
        self.services[slug] = WantedService.model_validate(given)
        return self.services[slug]

    def container(self, number: int, slug: str = SLUG) -> str:
        """The name of a replica."""
        return f"{self.project}-{slug}-{number}"


class Mover(Protocol):
    """Brings an environment to what is wanted of one service."""

    name: str

    def move(self) -> Moved:
        """Carry out what is wanted."""

    def move_killed(self, step: str) -> None:
        """Begin, and be killed when it comes to a step."""


class OurMover:
    """Our rollouts."""

    name = "ours"

    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    def move(self) -> Moved:
        """Roll out, in this process."""
        began = time.monotonic()
        ground = self._ground
        try:
            result = roll_out(ground.file, SLUG, engine=ground.engine, settings=ground.settings)
        except RolloutFailed as error:
            return Moved(time.monotonic() - began, error.outcome, message=error.message)
        return Moved(time.monotonic() - began, result.outcome, result.steps)

    def move_killed(self, step: str) -> None:
        """Roll out in a process of its own, which is killed with SIGKILL."""
        ground = self._ground
        order = {
            "settings": ground.settings.model_dump(mode="json"),
            "services": [service.model_dump(mode="json") for service in ground.services.values()],
            "balancer_image": ground.balancer_image,
            "slug": SLUG,
            "engine": ground.engine.url,
        }
        command = [sys.executable, "-m", "benchmarks.one_rollout"]
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=_SOURCE.parents[1],
        ) as process:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(json.dumps(order))
            process.stdin.close()
            for line in process.stdout:
                if line.startswith(f"{step}:"):
                    break
            process.kill()


class ComposeMover:
    """`docker compose up -d` of the same file."""

    name = "compose"

    def __init__(self, ground: Ground, binary: Path, folder: Path) -> None:
        self._ground = ground
        self._binary = binary
        self._path = folder / "compose.yaml"
        self._room = 0

    def move(self) -> Moved:
        """Write the file and run Compose on it; replicas by `--scale`, so that the balancer's room stays."""
        began = time.monotonic()
        done = subprocess.run(self._command(), capture_output=True, text=True, check=False)
        outcome = "successful" if done.returncode == 0 else "failed"
        return Moved(time.monotonic() - began, outcome, message=done.stderr[-300:])

    def move_killed(self, step: str) -> None:
        """Kill Compose when it comes to the service's container, whichever step ours is killed at."""
        command = self._command()
        with subprocess.Popen(
            command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        ) as process:
            assert process.stderr is not None
            for line in process.stderr:
                if self._ground.container(1) in line:
                    break
            process.kill()

    def move_all(self) -> Moved:
        """Run Compose on the whole environment, with the replicas of the file."""
        self._path.write_text(self._ground.file.text, encoding="utf-8")
        began = time.monotonic()
        command = [*self._compose(), "up", "-d"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        outcome = "successful" if done.returncode == 0 else "failed"
        return Moved(time.monotonic() - began, outcome, message=done.stderr[-300:])

    def _compose(self) -> list[str | Path]:
        return [self._binary, "--progress", "plain", "-p", self._ground.project, "-f", self._path]

    def _command(self) -> list[str | Path]:
        ground = self._ground
        wanted = ground.services[SLUG]
        self._room = max(self._room, wanted.replicas, 4)
        # The balancer that finds replicas by DNS has as many places as the file has replicas.
        ground.services[SLUG] = wanted.model_copy(update={"replicas": self._room})
        self._path.write_text(ground.file.text, encoding="utf-8")
        ground.services[SLUG] = wanted
        return [*self._compose(), "up", "-d", "--scale", f"{SLUG}={wanted.replicas}"]


@contextmanager
def open_ground(engine: Engine) -> Iterator[Ground]:
    """An environment that is removed at the end, whatever happened."""
    python = ensure_base_image(engine, "python", BaseImageSettings(), lambda line: None)
    balancer = ensure_base_image(engine, "balancer", BaseImageSettings(), lambda line: None)
    head = f"FROM {python.reference}\nCOPY server.py probe.py /\n"
    command = json.dumps([python.python_path, "-S", "-E", "/server.py"])
    probe = json.dumps([python.python_path, "-S", "-E", "/probe.py"])
    files = {"server.py": _SOURCE.read_text(encoding="utf-8"), "probe.py": _PROBE}
    images = {}
    for tag, check in ((IMAGE, f"{_HEALTH} {probe}\n"), (IDLE_IMAGE, "")):
        context = _pack({**files, "Dockerfile": f"{head}{check}ENTRYPOINT {command}\n"})
        images[tag] = engine.build(context, tag=tag, labels=LABELS).image_id
    project = f"benchmark-{uuid.uuid4().hex[:8]}"
    settings = EnvironmentSettings(project=project, port=free_port())
    try:
        yield Ground(engine, images[IMAGE], images[IDLE_IMAGE], balancer.reference, settings)
    finally:
        remove_environment(engine, project)
        for tag in images:
            engine.remove_image(tag, force=True)


@contextmanager
def open_compose(ground: Ground, binary: Path) -> Iterator[ComposeMover]:
    """Stock Compose on an environment; it takes down at the end what it put up."""
    with TemporaryDirectory(prefix="constellation-benchmark-") as folder:
        try:
            yield ComposeMover(ground, binary, Path(folder))
        finally:
            down: list[str | Path] = [binary, "-p", ground.project, "down", "-t", "1", "--remove-orphans"]
            subprocess.run(down, capture_output=True, check=False)


def find_compose() -> Path | None:
    """Stock Compose: what `COMPOSE_BINARY` names, the CLI's plugin, or the tests' own copy."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "constellation-docker-tests"
    places = [
        *filter(None, [os.environ.get("COMPOSE_BINARY")]),
        *_COMPOSE_PLACES,
        *(f"{cache}/compose-{suite}{_COMPOSE_PLACES[0]}" for suite in ("sid", "trixie")),
    ]
    return next((Path(place) for place in places if Path(place).is_file()), None)


def _pack(files: dict[str, str]) -> io.BytesIO:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for path, text in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    packed.seek(0)
    return packed
