"""Everything on PostgreSQL: Dagster's storage, the card store and the gateway before them."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from constellation_docker.engine import Engine
from constellation_docker_tests.fixtures.deadline import wait_for
from constellation_docker_tests.fixtures.lifecycle import SCRIPTS, gateway_before, run_script
from constellation_docker_tests.fixtures.location import (
    Location,
    running_location,
    variables_for,
    variables_of,
)
from constellation_docker_tests.fixtures.postgres import PostgresCluster
from constellation_docker_tests.fixtures.registry import RegistryServer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def databases(postgres: PostgresCluster) -> Iterator[dict[str, str]]:
    """An empty database for Dagster and one for the card store, by the variables that name them."""
    names = {"DAGSTER_PG_URL": "everything_dagster", "CONSTELLATION_DATABASE_URL": "everything_cards"}
    for name in names.values():
        postgres.execute(f"CREATE DATABASE {name}")
    yield {variable: postgres.url(name) for variable, name in names.items()}
    for name in names.values():
        postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def location_on_postgresql(
    engine: Engine,
    registry: RegistryServer,
    databases: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Location]:
    """A location that keeps nothing in SQLite."""
    home: Path = tmp_path_factory.mktemp("postgresql")
    variables = variables_of(home, **variables_for(registry), **databases)
    yield from running_location(home, variables, engine, instance="deploy/dagster.postgres.yaml")
    assert not list(home.rglob("*.db")), "something was kept in SQLite"


def test_a_model_lives_and_a_killed_run_is_followed_by_one_that_ends_right(
    location_on_postgresql: Location, lifecycle_repositories: list[str]
) -> None:
    location = location_on_postgresql
    with gateway_before(location) as gateway:
        first, second = lifecycle_repositories
        script = [sys.executable, str(SCRIPTS / "lifecycle.py"), "--name", "postgresql/lives"]
        said = run_script(gateway, *script, "--repository", first, "--second-repository", second)
        assert "/status/ is deleted" in said

        with gateway.client() as client:
            body = {"model_name": "postgresql/killed", "model_version": "1", "repo_url": first}
            model_id = client.post("/docker/models/", json=body).raise_for_status().json()["model_id"]
            run_id = client.get(f"/docker/models/{model_id}/status/").json()["run"]["run_id"]
            (process_id,) = wait_for(
                lambda: re.findall(
                    r"Started process for run \(pid: (\d+)\)",
                    "\n".join(entry.message for entry in location.log(run_id)),
                ),
                seconds=60,
                what="the run's process",
            )
            with suppress(ProcessLookupError):
                os.kill(int(process_id), signal.SIGKILL)
            wait_for(
                lambda: (run := location.client.run(run_id)) is not None and run.has_ended,
                seconds=120,
                what="the end of the killed run",
            )
            location.succeed(location.client.package("postgresql/killed@1"))
            assert client.get(f"/docker/models/{model_id}/status/").json()["status"] == "packaged"
