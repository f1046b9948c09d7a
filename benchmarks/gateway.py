"""The gateway: requests per second and latency of list and status, and a launch beside a bare GraphQL launch.

    python -m benchmarks.gateway             # writes its section of benchmarks/RESULTS.md
    python -m benchmarks.gateway --no-record --models 200 --launches 10

A real webserver without a daemon, so that runs are queued and none takes the processor; a gateway in a process of
its own, as it is run; both with SQLite.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import httpx

from benchmarks.http_load import LoadResult, apply_requests, render_question
from benchmarks.results import describe_machine, record_section, render_table
from constellation_docker.cards import CardStore, ModelCard, Publication
from constellation_docker.gateway.dagster_client import LOCATION, REPOSITORY
from constellation_docker.gateway.dagster_operations import ADD_PARTITION, LAUNCH
from constellation_docker.gateway.paging import write_cursor
from constellation_docker.run_tags import PARTITION, REQUESTED_BY
from constellation_docker.settings import Settings, load_settings
from deploy.local_dagster import LocalDagster, free_port
from deploy.local_gateway import LocalGateway

TITLE = "The gateway"
ENVIRONMENT = "dev"
PAGE = 50
BUSY = "busy"
"""Whose models are launched. It comes behind the others, so a page behind its name shows nothing else."""
PROMISED_RATIO = 1.2
SELECTOR = {"repositoryLocationName": LOCATION, "repositoryName": REPOSITORY}
UNLIMITED = {"CONSTELLATION_GATEWAY__RATE_LIMITS__PER_CALLER": "100000000/minute"}


@dataclass(frozen=True)
class Bench:
    """Dagster, the gateway before it, and the models in the store.

    Attributes:
        dagster: The webserver.
        gateway: The gateway.
        models: Name and id of each model; all are deployed, and have reached what is wanted.
        spare: The same of published models that nobody has deployed yet.
    """

    dagster: LocalDagster
    gateway: LocalGateway
    models: list[tuple[str, str]]
    spare: list[tuple[str, str]]

    @property
    def headers(self) -> dict[str, str]:
        """What lets a caller in."""
        return {"Authorization": f"Bearer {self.gateway.key()}"}


@dataclass(frozen=True)
class LaunchTimes:
    """Seconds of one launch each, taken in turns.

    Attributes:
        bare: `launchRun` of `deploy_model` alone, over GraphQL.
        with_partition: `addDynamicPartition` and that, as every backend must.
        gateway: A deployment over the gateway, for a model that was never deployed.
        bare_package: `launchRun` of `package_model` alone, over GraphQL.
        package: A registration over the gateway.
    """

    bare: list[float]
    with_partition: list[float]
    gateway: list[float]
    bare_package: list[float]
    package: list[float]


@contextmanager
def open_bench(models: int, spare: int) -> Iterator[Bench]:
    """Start everything in a temporary directory, and stop it at the end."""
    with TemporaryDirectory(prefix="gateway-benchmark-") as directory:
        home = Path(directory)
        variables = {
            "CONSTELLATION_HOME": str(home / "constellation"),
            "CONSTELLATION_ENVIRONMENTS": json.dumps({ENVIRONMENT: {"port": free_port()}}),
        }
        with patch.dict(os.environ, variables):
            settings = load_settings()
        deployed = fill_store(settings, "bench", models, is_deployed=True)
        published = fill_store(settings, BUSY, spare)
        dagster = LocalDagster(
            home=home / "dagster", port=free_port(), environment=variables, has_daemon=False
        )
        # It is never ready without a daemon, and answers all the same.
        gateway = LocalGateway(
            home=home / "gateway",
            port=free_port(),
            environment={**variables, **UNLIMITED, "CONSTELLATION_GATEWAY__WEBSERVER_URL": dagster.url},
            probe="/health",
        )
        try:
            dagster.start()
            gateway.start()
            yield Bench(dagster, gateway, deployed, published)
        finally:
            gateway.stop()
            dagster.stop()


def fill_store(
    settings: Settings, owner: str, count: int, *, is_deployed: bool = False
) -> list[tuple[str, str]]:
    """Register and publish so many models, and deploy them if asked; name and id of each."""
    made = []
    with CardStore.open(settings.store_url) as store:
        for number in range(count):
            row = store.add(ModelCard.from_registration(registration(f"{owner}/model-{number}")))
            publication = Publication(
                model_id=row.model_id,
                commit="0" * 40,
                source_digest="sha256:" + "0" * 64,
                image=f"registry.example/bench@sha256:{number:064x}",
                image_size_bytes=1,
                runtime="onnx",
                published_at=datetime.now(UTC),
            )
            store.publish(row.model_id, publication)
            if is_deployed:
                wish = store.want(ENVIRONMENT, row.card.model_name, model_id=row.model_id)
                store.mark_stable(ENVIRONMENT, row.card.model_name, wish.revision)
            made.append((row.card.model_name, row.model_id))
    return made


def registration(name: str) -> dict[str, object]:
    """The body that registers a model."""
    return {
        "model_name": name,
        "model_version": "1.0.0",
        "repo_url": "https://git.example/bench/model",
        "branch": "main",
        "model_card": {"description": "A classifier.", "data_used": "Reviews.", "dependencies": []},
    }


def measure_launches(bench: Bench, count: int) -> LaunchTimes:
    """Launch in turns, so that whatever slows the machine slows all; the first of each is not counted."""
    times = LaunchTimes([], [], [], [], [])
    with httpx.Client(trust_env=False, timeout=60) as http:
        for number, (name, model_id) in enumerate(bench.spare[: count + 1]):
            taken = (
                (times.bare, lambda key=name: _launch(bench, http, "deploy_model", f"{ENVIRONMENT}|{key}")),
                (times.with_partition, lambda key=name: _add_and_launch(bench, http, key)),
                (times.gateway, lambda key=model_id: _deploy(bench, http, key)),
                (
                    times.bare_package,
                    lambda key=name: _launch(bench, http, "package_model", f"{key}@1.0.0"),
                ),
                (times.package, lambda key=name: _register(bench, http, f"{key}-new")),
            )
            for seconds, act in taken:
                began = time.perf_counter()
                act()
                if number:
                    seconds.append(time.perf_counter() - began)
    return times


def _add_and_launch(bench: Bench, http: httpx.Client, name: str) -> None:
    variables = {"repository": SELECTOR, "definition": "models", "key": f"{name}-bare"}
    _ask(bench, http, ADD_PARTITION, variables)
    _launch(bench, http, "deploy_model", f"{ENVIRONMENT}|{name}-bare")


def _launch(bench: Bench, http: httpx.Client, job: str, partition: str) -> None:
    tags = {PARTITION: partition, REQUESTED_BY: "benchmark"}
    execution = {
        "selector": {**SELECTOR, "pipelineName": job},
        "mode": "default",
        "runConfigData": {},
        "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in tags.items()]},
    }
    answer = _ask(bench, http, LAUNCH, {"execution": execution})
    assert answer["launchRun"]["__typename"] == "LaunchRunSuccess", answer


def _ask(bench: Bench, http: httpx.Client, document: str, variables: object) -> dict[str, dict[str, str]]:
    answer = http.post(f"{bench.dagster.url}/graphql", json={"query": document, "variables": variables})
    data: dict[str, dict[str, str]] = answer.raise_for_status().json()["data"]
    return data


def _deploy(bench: Bench, http: httpx.Client, model_id: str) -> None:
    url = f"{bench.gateway.url}/docker/models/{model_id}/deploy/"
    answer = http.post(url, json={"environment": ENVIRONMENT}, headers=bench.headers)
    assert answer.status_code == 202, answer.text


def _register(bench: Bench, http: httpx.Client, name: str) -> None:
    answer = http.post(f"{bench.gateway.url}/docker/models/", json=registration(name), headers=bench.headers)
    assert answer.status_code == 202, answer.text


def measure_reads(bench: Bench, *, clients: int, seconds: float) -> dict[str, LoadResult]:
    """Load of list and status: the usual page, the worst one, and single models."""
    usual = [f"/docker/models/?limit={PAGE}"]
    worst = [f"/docker/models/?limit={PAGE}&cursor={write_cursor(f'{BUSY}/@')}"]
    statuses = [f"/docker/models/{model_id}/status/" for _, model_id in bench.models[:100]]
    return {
        name: apply_requests(
            bench.gateway.port,
            [render_question(path, bench.headers) for path in paths],
            clients=clients,
            seconds=seconds,
        )
        for name, paths in (
            (f"list, {PAGE} models, all deployed", usual),
            (f"list, {PAGE} models, a run under way for each", worst),
            ("status", statuses),
        )
    }


def render_report(
    times: LaunchTimes, reads: dict[int, dict[str, LoadResult]], models: int, machine: str
) -> str:
    """The section of RESULTS.md."""
    rows = [
        (
            name,
            f"{1000 * statistics.median(seconds):.0f} ms",
            f"{1000 * max(seconds):.0f} ms",
            f"{ratio_of(seconds, bare):.2f} ×" if seconds is not bare else "",
            promise,
        )
        for name, seconds, bare, promise in (
            ("`launchRun` of `deploy_model` over GraphQL", times.bare, times.bare, ""),
            ("· with `addDynamicPartition` before it", times.with_partition, times.bare, ""),
            ("· `POST …/deploy/` over the gateway", times.gateway, times.bare, f"≤ {PROMISED_RATIO} ×"),
            ("`launchRun` of `package_model` over GraphQL", times.bare_package, times.bare_package, ""),
            (
                "· `POST /docker/models/` over the gateway",
                times.package,
                times.bare_package,
                f"≤ {PROMISED_RATIO} ×",
            ),
        )
    ]
    loads = [
        (
            name,
            clients,
            f"{load.requests_per_second:.0f}",
            f"{load.median_ms:.1f} ms",
            f"{load.p99_ms:.1f} ms",
            load.failures,
        )
        for clients, found in reads.items()
        for name, load in found.items()
    ]
    return "\n".join(
        (
            machine,
            f"A launch, {len(times.bare)} of each in turns; a webserver without a daemon; SQLite.\n",
            render_table(("launch", "median", "slowest", "beside the bare launch", "promised"), rows),
            f"Reading, with {models:,} deployed models and the runs of the launches above in the store.\n",
            render_table(("call", "clients", "requests/s", "median", "p99", "failures"), loads),
        )
    )


def ratio_of(seconds: list[float], bare: list[float]) -> float:
    """How much longer the one took than the other: the median of the ratios of each turn."""
    return statistics.median(one / other for one, other in zip(seconds, bare, strict=True))


def is_kept(times: LaunchTimes) -> bool:
    """Whether a launch over the gateway costs no more than promised beside a bare one."""
    pairs = ((times.gateway, times.bare), (times.package, times.bare_package))
    return all(ratio_of(seconds, bare) <= PROMISED_RATIO for seconds, bare in pairs)


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and record."""
    parser = argparse.ArgumentParser(description="Measure the gateway.")
    parser.add_argument("--models", type=int, default=1000, help="models in the store")
    parser.add_argument("--launches", type=int, default=40, help="launches of each kind")
    parser.add_argument("--seconds", type=float, default=10, help="seconds of each load")
    parser.add_argument("--no-record", action="store_true", help="leave RESULTS.md as it is")
    arguments = parser.parse_args(argv)

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    machine = describe_machine()
    say("Filling the store, starting the webserver and the gateway")
    with open_bench(arguments.models, arguments.launches + 1) as bench:
        say("Launches")
        times = measure_launches(bench, arguments.launches)
        say("List and status")
        reads = {
            clients: measure_reads(bench, clients=clients, seconds=arguments.seconds) for clients in (1, 16)
        }
    report = render_report(times, reads, arguments.models, machine)
    print(report)
    if not arguments.no_record:
        record_section(TITLE, report)
        say("Wrote benchmarks/RESULTS.md")
    return 0 if is_kept(times) else 1


if __name__ == "__main__":
    sys.exit(main())
