"""The life of a model over HTTP, by the examples' scripts: a real webserver, daemon, engine and registry."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from constellation_docker_tests.fixtures.gateway import RunningGateway, running_gateway
from constellation_docker_tests.fixtures.location import Location
from constellation_docker_tests.fixtures.registry import RegistryServer
from examples.make_version import commit_repository, write_version

SCRIPTS = Path(__file__).parents[2] / "examples" / "gateway"
LABEL = "POSITIVE"


@pytest.fixture(scope="module")
def served(location: Location) -> Iterator[RunningGateway]:
    """A gateway before the location."""
    known = location.settings.gateway.model_copy(update={"webserver_url": location.dagster.url})
    with (
        pytest.MonkeyPatch.context() as patch,
        running_gateway(location.settings.model_copy(update={"gateway": known})) as gateway,
    ):
        for name in ("TEST_REGISTRY_USER", "TEST_REGISTRY_PASSWORD"):
            patch.setenv(name, location.variables[name])
        yield gateway


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two versions of the example, as git repositories."""
    home = tmp_path_factory.mktemp("versions")
    made = [write_version(home / str(version), version=version) for version in (1, 2)]
    for directory in made:
        commit_repository(directory)
    return [directory.as_uri() for directory in made]


def run_script(gateway: RunningGateway, *command: str, environment: Mapping[str, str] | None = None) -> str:
    """A script's output; it must end well."""
    given = {"CONSTELLATION_URL": gateway.url, "CONSTELLATION_API_KEY": gateway.keys["operator"]}
    done = subprocess.run(
        command,
        env={**os.environ, **given, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("done\n")
    return done.stdout + done.stderr


def test_a_model_lives_from_its_registration_to_its_deletion(
    served: RunningGateway, repositories: list[str]
) -> None:
    script = (sys.executable, str(SCRIPTS / "lifecycle.py"), "--name", "e2e/short")
    said = run_script(served, *script, "--repository", repositories[0])
    assert f"label {LABEL}" in said
    assert "/status/ is deleted" in said
    with served.client("viewer") as client:
        assert client.get("/docker/models/?name=e2e/short").json()["models"] == []
        (kept,) = client.get("/docker/models/?name=e2e/short&status=deleted").json()["models"]
        history = client.get(f"/docker/models/{kept['model_id']}/history/").json()
    assert {run["requested_by"] for run in history["runs"]} == {"operator"}
    assert [run["action"] for run in history["runs"]] == ["delete", "deploy", "package"]


@pytest.mark.slow
@pytest.mark.parametrize("language", ["python", "curl"])
def test_two_versions_live_and_the_former_comes_back_and_images_move(
    served: RunningGateway,
    repositories: list[str],
    registry: RegistryServer,
    location: Location,
    language: str,
) -> None:
    name = f"e2e/{language}"
    # An image for the pull, which nobody deletes meanwhile: the one that another model's packaging pushed.
    with served.client() as client:
        body = {"model_name": f"e2e/{language}-image", "model_version": "1", "repo_url": repositories[0]}
        model_id = client.post("/docker/models/", json=body).raise_for_status().json()["model_id"]
        run_id = client.get(f"/docker/models/{model_id}/status/").json()["run"]["run_id"]
    location.succeed(run_id)
    image = f"{registry.address}/models/e2e-{language}-image"
    target = f"{registry.address}/elsewhere/{language}"
    if language == "python":
        options = ["--name", name, "--repository", repositories[0], "--second-repository", repositories[1]]
        script = [sys.executable, str(SCRIPTS / "lifecycle.py"), *options]
        said = run_script(served, *script, "--image", f"{image}:1", "--push-to", target)
    else:
        script = [str(SCRIPTS / "lifecycle.sh"), *repositories, f"{image}:1", target]
        said = run_script(served, *script, environment={"NAME": name, "ENVIRONMENT": "dev"})
    assert said.count(LABEL) >= 2
    assert registry.digest_of(f"elsewhere/{language}", "1") == registry.digest_of(
        f"models/e2e-{language}-image", "1"
    )
