"""Our inference server beside LitServe, BentoML and FastAPI, with the same weights, in one run.

    python -m benchmarks.serving                       about three minutes, and as long for the environments at first
    python -m benchmarks.serving --seconds 5 --only constellation-onnx litserve

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

TITLE: Final = "Serving"
ROOT: Final = Path(__file__).resolve().parent.parent
PEERS: Final = Path(__file__).with_name("peers")
ENVIRONMENTS: Final = ROOT / ".constellation" / "benchmarks"
MODEL: Final = ROOT / "examples" / "sentiment"
CLIENTS: Final = (1, 8, 32)
MIB: Final = 1024 * 1024
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
    wanted = json.dumps(contestant.packages)
    if not marker.exists() or marker.read_text() != wanted:
        shutil.rmtree(directory, ignore_errors=True)
        uv = str(Path(sys.executable).parent / "uv")
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
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
        process = subprocess.Popen(
            [str(programs / program), *arguments],
            cwd=ROOT if contestant.is_ours else PEERS,
            env=environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.sched_setaffinity(0, own_cores)
        try:
            wait_for_answer(contestant, port, process)
            yield process, time.perf_counter() - began
        finally:
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
    deadline = time.monotonic() + 180
    request = render_request(contestant.path, make_body(contestant, TEXTS[0]))
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"{contestant.name} ended with {process.returncode}")
        try:
            with socket.create_connection(("127.0.0.1", port), 5) as connection:
                connection.settimeout(30)
                connection.sendall(request)
                answer = connection.recv(65536)
                while b"\r\n\r\n" not in answer or answer.endswith(b"\r\n\r\n"):
                    answer += connection.recv(65536)
                if b" 200 " in answer[:16] and b"POSITIVE" in answer:
                    return
        except OSError:
            pass
        time.sleep(0.02)
    raise SystemExit(f"{contestant.name} did not answer")


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
    results = {contestant.name: Measured() for contestant in contestants}
    available = sorted(os.sched_getaffinity(0))
    servers_cores = set(available[:-1] or available)
    os.sched_setaffinity(0, {available[-1]})
    for number in range(rounds):
        for contestant in contestants:
            measured = results[contestant.name]
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            with running(contestant, port, servers_cores) as (process, start_seconds):
                measured.start_seconds.append(start_seconds)
                for clients in CLIENTS:
                    for warm_up in (True, False):
                        load = apply_load(
                            port,
                            contestant.path,
                            TEXTS,
                            make_body=lambda text, contestant=contestant: make_body(contestant, text),
                            clients=clients,
                            seconds=1 if warm_up else seconds,
                        )
                    measured.loads[clients].append(load)
                measured.resident_bytes.append(read_resident_bytes(process.pid))
            print(f"round {number + 1}: {contestant.name} {measured.loads[32][-1]}", flush=True)
    return results


def render_section(results: Mapping[str, Measured], *, rounds: int, seconds: float) -> str:
    """The section of the results."""
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
    text = describe_machine(f"{rounds} rounds of {seconds:g} s, medians") + "\n" + render_table(head, rows)
    return text + "\n" + render_ratios(results)


def render_ratios(results: Mapping[str, Measured]) -> str:
    """What was promised, and what it came to."""
    ours = results.get("constellation-onnx")
    peers = [measured for name, measured in results.items() if not name.startswith("constellation")]
    if ours is None or not peers:
        return ""
    at_one = min(peer.median(1, "median_ms") for peer in peers) / ours.median(1, "median_ms")
    rate = "requests_per_second"
    at_32 = ours.median(32, rate) / max(peer.median(32, rate) for peer in peers)
    lines = [
        f"* Latency at 1 client: the best peer takes {at_one:.2f} times as long (promised: at least 1).",
        f"* Throughput at 32 clients: {at_32:.2f} times the best peer's (promised: at least 1.5).",
    ]
    theirs = results.get("constellation-transformers")
    if theirs is not None:
        memory = statistics.median(ours.resident_bytes) / statistics.median(theirs.resident_bytes)
        start = statistics.median(ours.start_seconds) / statistics.median(theirs.start_seconds)
        lines.append(
            f"* onnx against transformers, the same model: {memory:.2f} of the memory, {start:.2f} of the time "
            "to the first answer (promised: at most 0.33)."
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, and write the section when everything was measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="*", choices=[one.name for one in CONTESTANTS])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4)
    options = parser.parse_args()
    chosen = [one for one in CONTESTANTS if not options.only or one.name in options.only]
    results = measure(chosen, rounds=options.rounds, seconds=options.seconds)
    section = render_section(results, rounds=options.rounds, seconds=options.seconds)
    print(section)
    if len(chosen) == len(CONTESTANTS):
        record_section(TITLE, section)


if __name__ == "__main__":
    main()
