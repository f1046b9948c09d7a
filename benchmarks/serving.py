"""Our inference server beside LitServe, BentoML and FastAPI, with the same weights, in one run.

    python -m benchmarks.serving                       about ten minutes; longer where nothing is cached yet
    python -m benchmarks.serving --only servers --contestants constellation-onnx litserve --seconds 2
    python -m benchmarks.serving --only containers

Then our images themselves: container start to first answer, memory, size by layer, and ten stops with 32 requests in
flight. The section of `RESULTS.md` is replaced only by a run that measured everything that the section holds.

LitServe and BentoML serve the same ONNX graph with the same tokenizer, with their batching on, each in a virtual
environment of its own; FastAPI serves a transformers pipeline. Servers get all cores but the last, the clients the
last, so that neither takes the other's time. The figures compare servers on a small model: with a large one all of
them wait for the same arithmetic.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from benchmarks.http_load import LoadResult, apply_load, render_request
from benchmarks.results import describe_machine, record_section, render_table
from benchmarks.serving_containers import STOPS, ContainerTimes, measure_container, render_containers
from benchmarks.workbench import open_workbench

TITLE: Final = "Serving"
ROOT: Final = Path(__file__).resolve().parent.parent
PEERS: Final = Path(__file__).with_name("peers")
ENVIRONMENTS: Final = ROOT / ".constellation" / "benchmarks"
MODEL: Final = ROOT / "examples" / "sentiment"
CLIENTS: Final = (1, 8, 32)
MIB: Final = 1024 * 1024
START_SECONDS: Final = 180
TEXTS: Final = [
    "I love this product, it is wonderful",
    "This was a terrible experience and I want my money back",
    "The service was okay but the food arrived cold and late",
    "An absolute delight from the first minute to the last",
]


@dataclass(frozen=True)
class Contestant:
    """A server to measure.

    Args:
        name: What the table calls it.
        command: How it starts; the first word is an interpreter or a script.
        packages: What its virtual environment holds; empty: it runs in this one.
        path: Where it takes requests.
        is_ours: Whether it is this project's.
        runtime: For ours: `onnx` or `transformers`.
        takes_list: Whether its API wants a list of texts.
    """

    name: str
    command: tuple[str, ...]
    packages: tuple[str, ...] = ()
    path: str = "/predict"
    is_ours: bool = False
    runtime: str = ""
    takes_list: bool = False


@dataclass
class Measured:
    """What came out for one contestant: a list of results for each number of clients, one a round."""

    start_seconds: list[float] = field(default_factory=list)
    resident_bytes: list[int] = field(default_factory=list)
    loads: dict[int, list[LoadResult]] = field(default_factory=lambda: {clients: [] for clients in CLIENTS})

    def median(self, clients: int, attribute: str) -> float:
        """The median over the rounds."""
        return statistics.median(getattr(load, attribute) for load in self.loads[clients])

    @property
    def failures(self) -> int:
        """All of them."""
        return sum(load.failures for loads in self.loads.values() for load in loads)


ONNX_PACKAGES: Final = ("onnxruntime", "tokenizers", "numpy")
OURS: Final = ("python", "-m", "constellation_docker.serving")
CONTESTANTS: Final = (
    Contestant("constellation-onnx", OURS, path="/", is_ours=True, runtime="onnx"),
    Contestant("litserve", ("python", "litserve_peer.py"), ("litserve==0.2.19", *ONNX_PACKAGES)),
    Contestant(
        "bentoml",
        ("bentoml", "serve", "bentoml_peer:Sentiment"),
        ("bentoml==1.4.39", *ONNX_PACKAGES),
        takes_list=True,
    ),
    Contestant("constellation-transformers", OURS, path="/", is_ours=True, runtime="transformers"),
    Contestant("fastapi-pipeline", ("python", "fastapi_peer.py")),
)


def prepare_environment(contestant: Contestant) -> Path:
    """The directory of a contestant's programs; its virtual environment is made when it is not there."""
    if not contestant.packages:
        return Path(sys.executable).parent
    directory = ENVIRONMENTS / contestant.name
    marker = directory / "packages.json"
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    wanted = json.dumps([python, *contestant.packages])
    if not marker.exists() or marker.read_text() != wanted:
        shutil.rmtree(directory, ignore_errors=True)
        uv = str(Path(sys.executable).parent / "uv")
        print(f"Making the environment of {contestant.name}", file=sys.stderr, flush=True)
        subprocess.run([uv, "venv", "--quiet", "--python", python, str(directory)], check=True)
        install = [uv, "pip", "install", "--quiet", "--python", str(directory / "bin" / "python")]
        subprocess.run([*install, *contestant.packages], check=True)
        marker.write_text(wanted)
    return directory / "bin"


@contextmanager
def running(
    contestant: Contestant, port: int, cores: set[int]
) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """Start a server and yield it with the seconds to its first answer; end it and its children after."""
    programs = prepare_environment(contestant)
    program, *arguments = contestant.command
    with TemporaryDirectory() as directory:
        config = Path(directory, "serving.json")
        document = {"task": "text-classification", "runtime": contestant.runtime, "model_path": str(MODEL)}
        config.write_text(json.dumps({"model_name": "sentiment", "model_version": "1", **document}))
        environ = {
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "CONSTELLATION_SERVING_CONFIG": str(config),
            "SERVING_HOST": "127.0.0.1",
            "SERVING_PORT": str(port),
            "PEER_PORT": str(port),
            "PEER_MODEL": str(MODEL),
            "PEER_THREADS": str(len(cores)),
            "BENTOML_PORT": str(port),
            "BENTOML_HOME": directory,
            "BENTOML_DO_NOT_TRACK": "True",
            "PYTHONPATH": str(ROOT if contestant.is_ours else PEERS),
        }
        if program == "bentoml":
            arguments += ["--host", "127.0.0.1", "--port", str(port)]
        began = time.perf_counter()
        own_cores = os.sched_getaffinity(0)
        os.sched_setaffinity(0, cores)  # the child inherits it
        log = Path(directory, "log")
        with log.open("wb") as output:
            process = subprocess.Popen(
                [str(programs / program), *arguments],
                cwd=ROOT if contestant.is_ours else PEERS,
                env=environ,
                stdout=subprocess.DEVNULL,
                stderr=output,
                start_new_session=True,
            )
        os.sched_setaffinity(0, own_cores)
        try:
            try:
                wait_for_answer(contestant, port, process)
            except TimeoutError as problem:
                tail = log.read_text(errors="replace")[-2000:]
                raise SystemExit(f"{problem}; the end of what it said:\n{tail}") from None
            yield process, time.perf_counter() - began
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(15)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def make_body(contestant: Contestant, text: str) -> Any:
    """The request in the contestant's form."""
    return {"inputs": [text]} if contestant.takes_list else {"inputs": text}


def wait_for_answer(contestant: Contestant, port: int, process: subprocess.Popen[bytes]) -> None:
    """Ask until the answer is right."""
    deadline = time.monotonic() + START_SECONDS
    request = render_request(contestant.path, make_body(contestant, TEXTS[0]))
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise TimeoutError(f"{contestant.name} ended with {process.returncode}")
        try:
            with socket.create_connection(("127.0.0.1", port), 5) as connection:
                connection.settimeout(30)
                connection.sendall(request)
                answer = connection.recv(65536)
                while b"\r\n\r\n" not in answer or answer.endswith(b"\r\n\r\n"):
                    piece = connection.recv(65536)
                    if not piece:
                        break
                    answer += piece
                if b" 200 " in answer[:16] and b"POSITIVE" in answer:
                    return
        except OSError:
            pass
        time.sleep(0.02)
    raise TimeoutError(f"{contestant.name} did not answer within {START_SECONDS} s")


def read_resident_bytes(group: int) -> int:
    """Resident memory of all processes of a process group."""
    total = 0
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            try:
                if os.getpgid(int(directory.name)) == group:
                    total += int((directory / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            except (ProcessLookupError, FileNotFoundError):
                continue
    return total


def measure(contestants: Sequence[Contestant], *, rounds: int, seconds: float) -> dict[str, Measured]:
    """Measure all contestants, one after the other, in several rounds."""
    for contestant in contestants:
        prepare_environment(contestant)
    results = {contestant.name: Measured() for contestant in contestants}
    available = os.sched_getaffinity(0)
    *others, last = sorted(available)
    os.sched_setaffinity(0, {last})
    try:
        for number in range(rounds):
            for contestant in contestants:
                measured = results[contestant.name]
                measure_once(contestant, set(others) or available, measured, seconds=seconds)
                print(
                    f"round {number + 1}: {contestant.name} {measured.loads[32][-1]}",
                    file=sys.stderr,
                    flush=True,
                )
    finally:
        os.sched_setaffinity(0, available)
    return results


def measure_once(contestant: Contestant, cores: set[int], measured: Measured, *, seconds: float) -> None:
    """Start a contestant, put every load on it, and add what came out."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with running(contestant, port, cores) as (process, start_seconds):
        measured.start_seconds.append(start_seconds)
        for clients in CLIENTS:
            for warm_up in (True, False):
                load = apply_load(
                    port,
                    contestant.path,
                    TEXTS,
                    make_body=lambda text: make_body(contestant, text),
                    clients=clients,
                    seconds=1 if warm_up else seconds,
                )
            measured.loads[clients].append(load)
        measured.resident_bytes.append(read_resident_bytes(process.pid))


@dataclass(frozen=True)
class Figure:
    """A figure that was promised, and what it came to.

    Args:
        name: What it is.
        measured: The ratio or the number.
        promised: What it may be at most, or must be at least.
        is_least: Whether `promised` is the least.
        unit: `×` for ratios.
    """

    name: str
    measured: float
    promised: float
    is_least: bool = False
    unit: str = " ×"

    @property
    def is_kept(self) -> bool:
        """Whether the promise holds."""
        return self.measured >= self.promised if self.is_least else self.measured <= self.promised

    def row(self) -> tuple[str, str, str, str]:
        """The figure as a line of a table."""
        sign = "≥" if self.is_least else "≤"
        kept = "yes" if self.is_kept else "**no**"
        return self.name, f"{self.measured:.3g}{self.unit}", f"{sign} {self.promised:.3g}{self.unit}", kept


def plan_figures(results: Mapping[str, Measured], containers: Mapping[str, ContainerTimes]) -> list[Figure]:
    """The promised figures, as far as what they are made of was measured."""
    figures: list[Figure] = []
    ours = results.get("constellation-onnx")
    peers = [measured for name, measured in results.items() if not name.startswith("constellation")]
    if ours is not None and peers:
        best = min(peer.median(1, "median_ms") for peer in peers)
        figures.append(
            Figure(
                "latency at 1 client: the best peer's / ours", best / ours.median(1, "median_ms"), 1.0, True
            )
        )
        rate = "requests_per_second"
        at_32 = ours.median(32, rate) / max(peer.median(32, rate) for peer in peers)
        figures.append(Figure("throughput at 32 clients: ours / the best peer's", at_32, 1.5, True))
        figures.append(Figure("requests of ours that failed under load", ours.failures, 0, unit=""))
    if {"onnx", "transformers"} <= set(containers):
        onnx, torch = containers["onnx"], containers["transformers"]
        memory = statistics.median(onnx.resident_bytes) / statistics.median(torch.resident_bytes)
        figures.append(Figure("resident memory: onnx / transformers, same model", memory, 1 / 3))
    for runtime, times in containers.items():
        if times.stops:
            name = f"{runtime}: requests failed in {len(times.stops)} stops with 32 in flight"
            figures.append(Figure(name, times.failed_stops, 0, unit=""))
    return figures


def render_section(
    results: Mapping[str, Measured], containers: Mapping[str, ContainerTimes], machine: str
) -> str:
    """The section of the results."""
    figures = [figure.row() for figure in plan_figures(results, containers)]
    parts = [machine, render_table(("figure", "measured", "promised", "kept"), figures)]
    if results:
        parts.append(render_servers(results))
    if containers:
        parts.append(render_containers(list(containers.values())))
    return "\n".join(parts)


def render_servers(results: Mapping[str, Measured]) -> str:
    """The table of the servers."""
    rows = [
        [
            name,
            f"{measured.median(1, 'median_ms'):.2f}",
            *(f"{measured.median(clients, 'requests_per_second'):,.0f}" for clients in CLIENTS[1:]),
            f"{measured.median(32, 'p99_ms'):.1f}",
            f"{statistics.median(measured.start_seconds):.2f}",
            f"{statistics.median(measured.resident_bytes) / MIB:.0f}",
            measured.failures,
        ]
        for name, measured in results.items()
    ]
    head = [
        "server",
        "ms at 1 client",
        "requests/s at 8",
        "requests/s at 32",
        "p99 ms at 32",
        "s to first answer",
        "resident MiB",
        "failures",
    ]
    return (
        "Processes on the same weights, on all cores but the last, which the clients have; medians of the rounds. "
        "litserve and bentoml serve the same ONNX graph with the same tokenizer and with batching on.\n\n"
        + render_table(head, rows)
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and write the section when everything was measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", choices=["servers", "containers"], help="one half only; RESULTS.md stays")
    parser.add_argument("--contestants", nargs="+", choices=[one.name for one in CONTESTANTS])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4, help="of each load")
    parser.add_argument("--stops", type=int, default=STOPS)
    parser.add_argument("--no-record", action="store_true", help="leave RESULTS.md as it is")
    options = parser.parse_args(argv)

    machine = describe_machine(f"{options.rounds} rounds of {options.seconds:g} s")
    chosen = [one for one in CONTESTANTS if one.name in (options.contestants or [one.name])]
    results: dict[str, Measured] = {}
    containers: dict[str, ContainerTimes] = {}
    if options.only != "containers":
        results = measure(chosen, rounds=options.rounds, seconds=options.seconds)
    if options.only != "servers":
        with open_workbench(say=lambda line: print(line, file=sys.stderr, flush=True)) as bench:
            for runtime in ("onnx", "transformers"):
                containers[runtime] = measure_container(
                    bench, runtime, starts=options.rounds, stops=options.stops if runtime == "onnx" else 0
                )
    section = render_section(results, containers, machine)
    print(section)
    if len(results) == len(CONTESTANTS) and containers and not options.no_record:
        record_section(TITLE, section)
        print("Wrote benchmarks/RESULTS.md", file=sys.stderr)
    return 0 if all(figure.is_kept for figure in plan_figures(results, containers)) else 1


if __name__ == "__main__":
    sys.exit(main())
