"""What a rollout costs beside its container's own start, and what many services cost while nothing is to be done."""

from __future__ import annotations

import gc
import http.client
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any, Final
from unittest.mock import patch

from benchmarks.compose_scale import BALANCER, many_services
from benchmarks.rollout_ground import DEADLINES, SLUG, ComposeMover, Ground, OurMover
from benchmarks.steady_load import SteadyLoad
from benchmarks.workbench import Say
from constellation_docker.cards.serving_options import Resources
from constellation_docker.compose import ComposeFile, compile_environment
from constellation_docker.engine.client import EngineClient
from constellation_docker.rollout import (
    BalancerState,
    Kind,
    Observed,
    ObservedBalancer,
    Replica,
    Route,
    observe,
    plan_environment,
    roll_out,
)
from constellation_docker.rollout.haproxy_config import layout_of
from constellation_docker.rollout.observed import balancer_name, replica_host
from constellation_docker.settings import EnvironmentSettings

_SIDE_BY_SIDE: Final = 4
_READY_SECONDS: Final = 60.0
_AS_SET: Final = (Kind.WAIT_DRAINED.value, Kind.MONITOR.value)


@dataclass
class Durations:
    """Rollouts of a container that loads for a while.

    Attributes:
        load_seconds: For how long it is made to load.
        ready: Seconds from creating such a container, alone, to its first 200 from `/ready`.
        rollouts: Seconds of whole rollouts, without what draining and monitoring took.
        failed: Requests that failed meanwhile.
    """

    load_seconds: float
    ready: list[float] = field(default_factory=list)
    rollouts: list[float] = field(default_factory=list)
    failed: int = 0

    @property
    def ratio(self) -> float:
        """A rollout's own time over the container's own time."""
        return median(self.rollouts) / median(self.ready)


def measure_durations(
    ground: Ground, *, load_seconds: float, count: int, clients: int, say: Say
) -> Durations:
    """New versions of a service that loads for a while, under load, each after one container alone."""
    measured = Durations(load_seconds)
    mover = OurMover(ground)
    ground.services.clear()
    ground.want(model_version="first")
    mover.move()
    with SteadyLoad(ground.settings.port, f"/{SLUG}", clients=clients) as load:
        for number in range(count):
            ground.want(model_version=f"loads-{number}", env={"READY_AFTER": str(load_seconds)})
            measured.ready.append(_ready_seconds(ground))
            moved = mover.move()
            as_set = sum(step.seconds for step in moved.steps if step.kind in _AS_SET)
            measured.rollouts.append(moved.seconds - as_set)
            say(
                f"rollout {number + 1} of {count}: {measured.rollouts[-1]:.2f} s, "
                f"the container alone {measured.ready[-1]:.2f} s"
            )
    measured.failed = load.failed
    return measured


def _ready_seconds(ground: Ground) -> float:
    """Seconds from creating the wanted container, by itself, to its first good answer."""
    wanted = ground.services[SLUG]
    environment = [f"{key}={value}" for key, value in wanted.env.items()]
    body = {"Image": wanted.image, "Env": environment, "User": wanted.user}
    began = time.monotonic()
    with ground.engine.temporary_container(f"{ground.project}-alone", body) as container:
        ground.engine.start(container)
        facts: dict[str, Any] = ground.engine.container(container) or {}
        (network,) = facts["NetworkSettings"]["Networks"].values()
        while time.monotonic() - began < _READY_SECONDS:
            if _answers(network["IPAddress"]):
                return time.monotonic() - began
            time.sleep(0.02)
    raise TimeoutError("the container alone does not get ready")


def _answers(address: str) -> bool:
    connection = http.client.HTTPConnection(address, 8080, timeout=2)
    try:
        connection.request("GET", "/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


@dataclass(frozen=True)
class Idleness:
    """An environment in which everything runs as wanted.

    Attributes:
        services: How many.
        seconds: Looking at all of it and finding nothing to do.
        calls: Engine calls that this takes.
        rollout_seconds: A rollout of one of its services that finds nothing to do.
        rollout_calls: Engine calls that this takes.
        compose_seconds: `docker compose up -d` that finds nothing to do; None: not measured.
        touched: Containers that are not the ones they were.
    """

    services: int
    seconds: float
    calls: int
    rollout_seconds: float
    rollout_calls: int
    compose_seconds: float | None
    touched: int


def measure_idleness(
    ground: Ground, counts: tuple[int, ...], *, compose: ComposeMover | None, say: Say
) -> list[Idleness]:
    """Deploy so many services, then more of them, and look each time at what doing nothing costs."""
    ground.services.clear()
    measured = []
    for count in counts:
        new = [f"idle-{number}" for number in range(len(ground.services), count)]
        for slug in new:
            # No check by the engine: a hundred of them would measure the processor.
            ground.want(
                slug,
                image=ground.idle_image,
                resources=Resources(memory="64m", cpus=0.5, pids=32),
                deploy=DEADLINES.model_copy(update={"min_healthy_time": "100ms"}),
            )
        file = ground.file
        say(f"deploying {len(new)} services")
        with ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
            list(pool.map(lambda slug, file=file: _roll_out(ground, file, slug), new))
        measured.append(_look(ground, file, compose))
        say(
            f"{count} services: {measured[-1].seconds:.2f} s in {measured[-1].calls} calls of the engine, "
            f"a rollout {measured[-1].rollout_seconds:.2f} s in {measured[-1].rollout_calls}"
        )
    return measured


def _roll_out(ground: Ground, file: ComposeFile, slug: str) -> None:
    roll_out(file, slug, engine=ground.engine, settings=ground.settings)


def _look(ground: Ground, file: ComposeFile, compose: ComposeMover | None) -> Idleness:
    before = _fingerprints(ground)
    seconds = []
    calls = 0
    for _ in range(3):
        with counted_calls() as counter:
            began = time.monotonic()
            plan = plan_environment(observe(ground.engine, ground.project), file)
            seconds.append(time.monotonic() - began)
        calls = counter["calls"]
        assert plan.is_empty, plan.rows()
    slug = next(iter(ground.services))
    with counted_calls() as counter:
        began = time.monotonic()
        result = roll_out(file, slug, engine=ground.engine, settings=ground.settings)
        rollout_seconds = time.monotonic() - began
    assert result.outcome == "unchanged", result.outcome
    after = _fingerprints(ground)
    compose_seconds = None
    if compose is not None:
        moved = compose.move_all()
        compose_seconds = moved.seconds if moved.outcome == "successful" else None
    return Idleness(
        len(ground.services),
        median(seconds),
        calls,
        rollout_seconds,
        counter["calls"],
        compose_seconds,
        len(before.items() ^ after.items()),
    )


def _fingerprints(ground: Ground) -> dict[str, tuple[str, int]]:
    found = ground.engine.list_containers({"com.docker.compose.project": ground.project})
    return {row["Names"][0]: (row["Id"], row["Created"]) for row in found}


@contextmanager
def counted_calls() -> Iterator[dict[str, int]]:
    """Count the calls of the engine that are made meanwhile, by any thread."""
    counter = {"calls": 0}
    send = EngineClient.send

    def counting(client: EngineClient, *arguments: Any, **options: Any) -> Any:
        counter["calls"] += 1
        return send(client, *arguments, **options)

    with patch.object(EngineClient, "send", counting):
        yield counter


def measure_planning(count: int = 1000, *, repeats: int = 3) -> dict[str, float]:
    """Median processor seconds of planning for so many services: nothing to do, and all of them replaced."""
    settings = EnvironmentSettings(project="planned")
    services = many_services(count)
    file = compile_environment("benchmark", settings, services, balancer_image=BALANCER)
    running = _running(file)
    changed = [service.model_copy(update={"model_version": "9.9.9"}) for service in services]
    other = compile_environment("benchmark", settings, changed, balancer_image=BALANCER)
    measured = {}
    for name, wanted in (("nothing to do", file), ("all replaced", other)):
        seconds = []
        for _ in range(repeats):
            gc.collect()
            began = time.process_time()
            plan = plan_environment(running, wanted)
            seconds.append(time.process_time() - began)
            assert plan.is_empty == (wanted is file)
        measured[name] = median(seconds)
    return measured


def _running(file: ComposeFile) -> Observed:
    """An environment that runs what its file says."""
    services, routes = {}, {}
    for slug, compiled in file.services.items():
        replicas = tuple(
            Replica(
                id=f"{slug}-{number}",
                name=f"{file.project}-{slug}-{number}",
                number=number,
                host=replica_host(slug, number),
                state="running",
                health="healthy",
                spec_hash=compiled.spec_hash,
                revision=1,
            )
            for number in range(1, compiled.wanted.replicas + 1)
        )
        services[slug] = replicas
        members = tuple(replace(replica.member(), state="ready", check="up") for replica in replicas)
        routes[slug] = Route(slug, 300, compiled.wanted.max_body_bytes, members)
    balancer = ObservedBalancer(
        id="id",
        name=balancer_name(file.project),
        state="running",
        spec_hash=file.balancer_hash,
        answers=True,
        is_ours=True,
        layout=layout_of(file.balancer_options),
    )
    return Observed(file.project, True, balancer, BalancerState(routes), services)
