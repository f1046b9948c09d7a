"""Whole launches: a row, a launch over GraphQL, Dagster's queue and process, and the materialized image."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from benchmarks.workbench import MODEL, PREFIX, LaunchTimes, Workbench
from constellation_docker.cards import CardStore, ModelCard
from constellation_docker.gateway import DagsterClient, LogEntry, Run
from constellation_docker.settings import Settings, load_settings
from deploy.local_dagster import LocalDagster, free_port

RUN_DEADLINE_SECONDS = 900
LOOK_SECONDS = 0.2
FIRST_STEP = "model_card"
IMAGE_STEP = "model_image"


class DagsterLaunches:
    """Launches through a webserver and a daemon of their own, as the backend submits them.

    Args:
        client: A client of the webserver.
        settings: What the code location was started with.
        bench: Whose images it cleans up.
    """

    def __init__(self, client: DagsterClient, settings: Settings, bench: Workbench) -> None:
        self._client = client
        self._settings = settings
        self._bench = bench

    def launch(self, version: str, repository: Path, *, runtime: str) -> LaunchTimes:
        """Register a version, launch its packaging, and wait for the end of the run.

        Returns:
            How long it took until `model_image` was materialized, by the events' own times.
        """
        card = self._bench.card_of(version, repository, runtime=runtime)
        store = CardStore.open(self._settings.store_url)
        try:
            store.add(card)
        finally:
            store.close()
        submitted = time.time()
        self._client.package(card.key, tags={"user": "benchmark"})
        runs = self._wait(card)
        self._bench.tags.append(f"{PREFIX}/{card.slug}:{card.image_tag}")
        for run in runs:
            begun = self._moments(run, "ExecutionStepStartEvent", FIRST_STEP)
            materialized = self._moments(run, "MaterializationEvent", IMAGE_STEP)
            if begun and materialized:
                return LaunchTimes(
                    seconds=min(materialized) - submitted, start_seconds=min(begun) - submitted
                )
        raise RuntimeError(f"{card.key} was not packaged: {self._complaints(runs)}")

    def _wait(self, card: ModelCard) -> list[Run]:
        """All runs of a version, once they have ended: the row sensor may have been as quick as we were."""
        deadline = time.monotonic() + RUN_DEADLINE_SECONDS
        while time.monotonic() < deadline:
            runs = self._client.runs({"dagster/partition": card.key})
            if runs and all(run.has_ended for run in runs):
                return runs
            time.sleep(LOOK_SECONDS)
        raise TimeoutError(f"The packaging of {card.key} did not end within {RUN_DEADLINE_SECONDS} s.")

    def _moments(self, run: Run, kind: str, step: str) -> list[float]:
        return [
            float(entry.raw["timestamp"]) / 1000
            for entry in self._log(run)
            if entry.kind == kind and entry.step == step
        ]

    def _complaints(self, runs: list[Run]) -> str:
        """What the runs say of themselves, down to one that ended before its first step."""
        return "; ".join(
            str((entry.raw.get("error") or {}).get("message") or entry.message)
            for run in runs
            for entry in self._log(run)
            if entry.kind in {"ExecutionStepFailureEvent", "RunFailureEvent", "RunCanceledEvent"}
        )

    def _log(self, run: Run) -> list[LogEntry]:
        entries: list[LogEntry] = []
        cursor: str | None = None
        while True:
            page, cursor = self._client.logs(run.run_id, cursor=cursor)
            if not page:
                return entries
            entries += page


@contextmanager
def open_launches(bench: Workbench) -> Iterator[DagsterLaunches]:
    """Start the code location with the workbench's store and image names, and stop it at the end."""
    variables = {
        "CONSTELLATION_HOME": str(bench.home),
        "CONSTELLATION_SOURCE__ALLOWED_SCHEMES": json.dumps(["file"]),
        "CONSTELLATION_BUILD__IMAGE_PREFIX": PREFIX,
        "DOCKER_HOST": bench.engine.url,
    }
    with patch.dict(os.environ, variables):
        settings = load_settings()
    bench.say(f"Starting Dagster, to launch versions of {MODEL}")
    dagster = LocalDagster(home=bench.home / "dagster", port=free_port(), environment=variables)
    try:
        dagster.start()
        with DagsterClient(dagster.url) as client:
            yield DagsterLaunches(client, settings, bench)
    finally:
        dagster.stop()
