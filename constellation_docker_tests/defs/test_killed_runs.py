"""Runs that are cancelled, or killed with SIGKILL in any step: the next run ends right, and nothing stays behind."""

from __future__ import annotations

import os
import re
import signal
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from constellation_docker.cards import ModelCard, ModelRow
from constellation_docker.engine import Engine
from constellation_docker.packaging import BaseImage
from constellation_docker_tests.fixtures.deadline import wait_for
from constellation_docker_tests.fixtures.location import Location
from examples.make_version import write_version

pytestmark = pytest.mark.slow

STEPS = [
    "model_card",
    "model_source",
    "dependency_lock",
    "model_image",
    "verify_built_image",
    "published_image",
]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of its own, so that nothing that other tests built is taken from a cache."""
    return write_version(tmp_path_factory.mktemp("killed") / "sentiment", version=77)


def add(location: Location, name: str, repository: Path, **card: object) -> ModelRow:
    with location.store() as store:
        return store.add(
            ModelCard.from_registration(
                {
                    "model_name": name,
                    "model_version": "1",
                    "repo_url": repository.as_uri(),
                    "model_card": {"description": "", "data_used": "", "dependencies": [], **card},
                }
            )
        )


def processes_of(mark: str) -> list[int]:
    """The processes whose command line holds a mark, such as the id of the run that they work on."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                if mark.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def newest_run(location: Location, row: ModelRow) -> str:
    """The newest run on the row's partition, once there is one."""
    runs = wait_for(
        lambda: location.client.runs({"dagster/partition": row.key}, limit=1),
        seconds=60,
        what=f"a run of {row.key}",
    )
    return runs[0].run_id


def wait_for_step(location: Location, run_id: str, step: str) -> None:
    """Until the step has begun."""
    wait_for(
        lambda: any(
            entry.kind == "ExecutionStepStartEvent" and entry.step == step for entry in location.log(run_id)
        ),
        seconds=120,
        what=f"the step {step}",
    )


def kill(location: Location, run_id: str) -> str:
    """SIGKILL the run's process, wait until Dagster knows, and return how the run ended."""
    log = "\n".join(entry.message for entry in location.log(run_id))
    (process_id,) = re.findall(r"Started process for run \(pid: (\d+)\)", log)
    with suppress(ProcessLookupError):
        os.kill(int(process_id), signal.SIGKILL)
    wait_for(
        lambda: (run := location.client.run(run_id)) is not None and run.has_ended,
        seconds=120,
        what="the end of the killed run",
    )
    run = location.client.run(run_id)
    assert run is not None
    return run.status


@pytest.fixture
def nothing_left(engine: Engine) -> Iterator[None]:
    """No container of a verification stays."""
    yield
    wait_for(
        lambda: (
            not [
                container
                for container in engine.list_containers({"constellation.role": "verification"})
                if "killed" in str(container["Labels"].get("constellation.subject", ""))
            ]
        ),
        seconds=30,
        what="the removal of verification containers",
    )


@pytest.mark.parametrize("step", STEPS)
def test_a_run_that_is_killed_in_any_step_is_followed_by_one_that_publishes(
    location: Location, repository: Path, step: str, nothing_left: None
) -> None:
    row = add(location, f"killed/in-{step.replace('_', '-')}", repository)
    run_id = newest_run(location, row)
    wait_for_step(location, run_id, step)
    status = kill(location, run_id)
    # Publishing takes a fifth of a second, and may be over before the signal arrives.
    assert status == "FAILURE" or step == STEPS[-1]
    location.succeed(location.client.package(row.key))
    with location.store() as store:
        assert store.get(row.model_id).published_at is not None


def test_a_deployment_that_is_killed_leaves_no_lease_and_the_next_one_serves(
    location: Location, repository: Path
) -> None:
    row = add(location, "killed/deployment", repository)
    location.succeed(newest_run(location, row))
    run_id = location.client.deploy("dev", row.card.model_name)
    wait_for(
        lambda: any("wait until healthy" in entry.message for entry in location.log(run_id)),
        seconds=120,
        what="the rollout",
    )
    assert kill(location, run_id) == "FAILURE"
    location.succeed(location.client.deploy("dev", row.card.model_name))
    assert httpx.get(location.endpoint("dev", row.card.slug) + "ready").status_code == 200


def test_cancelling_a_run_stops_its_build_on_the_engine(
    location: Location, python_base: BaseImage, tmp_path: Path
) -> None:
    mark = uuid.uuid4().hex  # the engine's cache must not know the step
    repository = tmp_path / "slow"
    repository.mkdir()
    (repository / "Dockerfile").write_text(
        f'FROM {python_base.reference}\nRUN ["python3", "-c", "import time; time.sleep(300)", "{mark}"]\n'
    )
    row = add(
        location,
        "killed/slow-build",
        repository,
        constellation={"runtime": "dockerfile", "port": 8000, "health_path": "/health"},
        pipeline_tag="text-classification",
    )
    run_id = newest_run(location, row)
    wait_for(lambda: processes_of(mark), seconds=120, what="the build's sleep")
    location.client.terminate(run_id)
    run = location.wait_for_run(run_id)
    assert run.status == "CANCELED"
    wait_for(lambda: not processes_of(mark), seconds=60, what="the end of the build's sleep")
