"""Our images as they run: start to first answer, memory, size by layer, and stops with requests in flight."""

from __future__ import annotations

import http.client
import json
import secrets
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final

from benchmarks.naive_build import LABELS
from benchmarks.results import render_table
from benchmarks.workbench import Workbench
from constellation_docker.engine import Engine
from constellation_docker.packaging.image import BuiltImage

MIB: Final = 1024 * 1024
TEXT: Final = "I love this product, it is wonderful"
OCCUPANT_TEXTS: Final = 2048
"""Texts of the request that keeps the model busy while the others arrive; the most that one may hold."""
IN_FLIGHT: Final = 32
STOPS: Final = 10
GRACE_SECONDS: Final = 60
ANSWER_SECONDS: Final = 120.0
START_SECONDS: Final = 600.0


@dataclass
class ContainerTimes:
    """What was measured of one runtime's image.

    Attributes:
        runtime: `onnx` or `transformers`.
        start_seconds: From the engine's call that starts the container to the first answer, one a start.
        resident_bytes: The server's memory after its first answers, one a start.
        size_bytes: The image, unpacked.
        layer_bytes: Its layers, unpacked, by what they hold.
        stops: For each stop, how many of the requests in flight failed, and the exit code.
    """

    runtime: str
    start_seconds: list[float] = field(default_factory=list)
    resident_bytes: list[int] = field(default_factory=list)
    size_bytes: int = 0
    layer_bytes: dict[str, int] = field(default_factory=dict)
    stops: list[tuple[int, int]] = field(default_factory=list)

    @property
    def failed_stops(self) -> int:
        """Requests that failed over all stops; a wrong exit code counts as one."""
        return sum(failed + (code != 0) for failed, code in self.stops)


def measure_container(bench: Workbench, runtime: str, *, starts: int, stops: int) -> ContainerTimes:
    """Package a version of the sentiment example and run its image.

    Args:
        bench: Where; it removes the image in the end.
        runtime: `onnx` or `transformers`.
        starts: How often to start it.
        stops: How often to stop it with requests in flight.
    """
    bench.say(f"{runtime}: packaging")
    image = bench.package(*bench.new_version(), runtime=runtime).image
    times = ContainerTimes(runtime, size_bytes=image.size_bytes)
    times.layer_bytes = {layer.name: layer.size_bytes for layer in image.layers}
    for number in range(starts):
        bench.say(f"{runtime}: start {number + 1} of {starts}")
        with running_container(bench.engine, image) as (server, seconds, _):
            times.start_seconds.append(seconds)
            for _ in range(50):
                server.ask(TEXT)
            times.resident_bytes.append(int(server.metric("process_resident_memory_bytes")))
    for number in range(stops):
        bench.say(f"{runtime}: stop {number + 1} of {stops}, with {IN_FLIGHT} requests in flight")
        with running_container(bench.engine, image) as (server, _, container):
            times.stops.append(stop_under_load(bench.engine, container, server))
    return times


@dataclass(frozen=True)
class ContainerServer:
    """A server in a container, at the container's own address: no proxy of the engine's is between."""

    host: str
    port: int

    def ask(self, inputs: str | list[str]) -> int:
        """Send one request on a connection of its own. Returns the status; 0 where none came."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=ANSWER_SECONDS)
        try:
            connection.request("POST", "/", json.dumps({"inputs": inputs}))
            response = connection.getresponse()
            is_whole = response.read().endswith(b"]]")
            return response.status if is_whole or response.status != 200 else 0
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()

    def metric(self, name: str) -> float:
        """One number of `/metrics`."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=ANSWER_SECONDS)
        try:
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        finally:
            connection.close()
        return float(next(line.split()[1] for line in text.splitlines() if line.startswith(f"{name} ")))


@contextmanager
def running_container(engine: Engine, image: BuiltImage) -> Iterator[tuple[ContainerServer, float, str]]:
    """Start an image and give its server, the seconds to its first answer, and the container."""
    config: dict[str, Any] = {
        "Image": image.tag,
        "Labels": LABELS,
        "Env": [f"SERVING_GRACE_SECONDS={GRACE_SECONDS}"],
        "HostConfig": {"ReadonlyRootfs": True, "CapDrop": ["ALL"], "Tmpfs": {"/tmp": ""}},
    }
    container = engine.create_container(f"constellation-benchmark-{secrets.token_hex(6)}", config)
    try:
        began = time.perf_counter()
        engine.start(container)
        facts = engine.container(container) or {}
        networks = facts["NetworkSettings"]["Networks"].values()
        server = ContainerServer(next(item["IPAddress"] for item in networks), image.port)
        while server.ask(TEXT) != 200:
            is_running = (engine.container(container) or {})["State"]["Running"]
            if not is_running or time.perf_counter() - began > START_SECONDS:
                raise TimeoutError(
                    f"The container of {image.tag} does not answer at {server.host}:{server.port}:\n"
                    f"{engine.logs(container)[-2000:]}"
                )
            time.sleep(0.02)
        yield server, time.perf_counter() - began, container
    finally:
        engine.remove(container, force=True)


def stop_under_load(engine: Engine, container: str, server: ContainerServer) -> tuple[int, int]:
    """Send SIGTERM while 32 requests are in flight. Returns how many failed, and the server's exit code."""
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        occupant = [f"{TEXT}, {number}, " + f"and {TEXT}, " * 8 for number in range(OCCUPANT_TEXTS)]
        asked = [pool.submit(server.ask, occupant)]
        _wait_for_in_flight(server, 1)
        asked += [pool.submit(server.ask, TEXT) for _ in range(IN_FLIGHT - 1)]
        _wait_for_in_flight(server, IN_FLIGHT)
        engine.kill(container, "SIGTERM")
        statuses = [one.result() for one in asked]
    code = engine.wait(container, timeout_seconds=2 * GRACE_SECONDS)
    return sum(status != 200 for status in statuses), code


def _wait_for_in_flight(server: ContainerServer, number: int) -> None:
    deadline = time.monotonic() + ANSWER_SECONDS
    while server.metric("constellation_in_flight") != number:
        if time.monotonic() > deadline:
            raise TimeoutError(f"There were never {number} requests in flight at once.")
        time.sleep(0.005)


def render_containers(measured: Sequence[ContainerTimes]) -> str:
    """The tables of the containers: what a start and a stop come to, and the image's layers."""

    def row(name: str, cells: Sequence[str]) -> tuple[str, ...]:
        return (name, *cells)

    rows = [
        row(
            "container start to first answer",
            [
                f"{median(times.start_seconds):.2f} s ({min(times.start_seconds):.2f}–{max(times.start_seconds):.2f})"
                for times in measured
            ],
        ),
        row(
            "resident memory",
            [f"{median(times.resident_bytes) / MIB:.0f} MiB" for times in measured],
        ),
        row(
            f"stops with {IN_FLIGHT} requests in flight: failed requests",
            [
                f"{times.failed_stops} in {len(times.stops)} stops" if times.stops else "–"
                for times in measured
            ],
        ),
        row("image", [f"{times.size_bytes / MIB:.0f} MiB" for times in measured]),
        *(
            row(f"· layer {name}", [f"{times.layer_bytes.get(name, 0) / MIB:.1f} MiB" for times in measured])
            for name in measured[0].layer_bytes
        ),
    ]
    return render_table(("our image", *(times.runtime for times in measured)), rows)
