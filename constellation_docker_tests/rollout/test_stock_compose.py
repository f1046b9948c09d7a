"""The Compose file without us, and stock Compose on what we deployed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from constellation_docker.rollout import observe, plan_environment
from constellation_docker_tests.fixtures.tiny_service import Environment

pytestmark = pytest.mark.slow


def run(binary: Path, environment: Environment, path: Path, *words: str) -> str:
    """Stock Compose on the environment's file; gives what it said."""
    path.write_text(environment.file.text)
    command = [binary, "-p", environment.project, "-f", path, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_the_file_stands_alone_and_a_rollout_takes_over_from_stock_compose(
    compose: Path, environment: Environment, tmp_path: Path
) -> None:
    path = tmp_path / "compose.yaml"
    environment.want("one", replicas=2)
    environment.want("two")
    run(compose, environment, path, "up", "-d", "--wait")
    for slug in ("one", "two"):
        answer = httpx.post(environment.url(slug) + "predict", content=b"12345")
        assert (answer.status_code, answer.json()["path"]) == (200, "/predict")
    assert httpx.get(environment.url("three")).status_code == 404
    before = environment.containers("one")
    result = environment.roll_out("one")
    assert [step.kind for step in result.steps] == ["take over balancer"]
    assert environment.containers("one") == before
    environment.want("two", model_version="2")
    environment.roll_out("two")
    assert httpx.post(environment.url("two")).json()["version"] == "2"
    assert httpx.post(environment.url("one")).json()["version"] == "1"
    plan = plan_environment(observe(environment.engine, environment.project), environment.file)
    assert plan.is_empty, plan.rows()


@pytest.mark.parametrize("suite", ["sid", "trixie"])
def test_stock_compose_sees_what_we_deployed_and_recreates_nothing(
    suite: str, compose_binary: Callable[[str], Path], environment: Environment, tmp_path: Path
) -> None:
    binary, path = compose_binary(suite), tmp_path / "compose.yaml"
    environment.want("one", replicas=2)
    environment.want("two")
    environment.roll_out("one", compose_path=str(path))
    environment.roll_out("two", compose_path=str(path))
    ours = ids(environment)
    listed = json.loads(run(binary, environment, path, "ls", "--format", "json"))
    entry = next(item for item in listed if item["Name"] == environment.project)
    assert entry["Status"] == "running(4)"
    assert entry["ConfigFiles"] == str(path)
    shown = run(binary, environment, path, "ps", "--format", "{{.Name}} {{.Service}} {{.State}}")
    assert f"{environment.project}-one-2 one running" in shown
    assert "listening" in run(binary, environment, path, "logs", "two")
    run(binary, environment, path, "up", "-d", "--wait")
    assert ids(environment) == ours
    run(binary, environment, path, "down")
    assert ids(environment) == set()
    assert environment.engine.network(f"{environment.project}_default") is None


def ids(environment: Environment) -> set[str]:
    found = environment.engine.list_containers({"com.docker.compose.project": environment.project})
    return {row["Id"] for row in found}
