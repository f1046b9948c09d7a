"""The life of a model over HTTP, by the examples' scripts: a real webserver, daemon, engine and registry."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from constellation_docker_tests.fixtures.gateway import RunningGateway
from constellation_docker_tests.fixtures.lifecycle import SCRIPTS, gateway_before, run_script
from constellation_docker_tests.fixtures.location import Location
from constellation_docker_tests.fixtures.registry import RegistryServer

LABEL = "POSITIVE"


@pytest.fixture(scope="module")
def served(location: Location) -> Iterator[RunningGateway]:
    """A gateway before the location."""
    with gateway_before(location) as gateway:
        yield gateway


def test_a_model_lives_from_its_registration_to_its_deletion(
    served: RunningGateway, lifecycle_repositories: list[str]
) -> None:
    script = (sys.executable, str(SCRIPTS / "lifecycle.py"), "--name", "e2e/short")
    said = run_script(served, *script, "--repository", lifecycle_repositories[0])
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
    lifecycle_repositories: list[str],
    registry: RegistryServer,
    location: Location,
    language: str,
) -> None:
    name = f"e2e/{language}"
    # An image for the pull, which nobody deletes meanwhile: the one that another model's packaging pushed.
    with served.client() as client:
        body = {
            "model_name": f"e2e/{language}-image",
            "model_version": "1",
            "repo_url": lifecycle_repositories[0],
        }
        model_id = client.post("/docker/models/", json=body).raise_for_status().json()["model_id"]
        run_id = client.get(f"/docker/models/{model_id}/status/").json()["run"]["run_id"]
    location.succeed(run_id)
    image = f"{registry.address}/models/e2e-{language}-image"
    target = f"{registry.address}/elsewhere/{language}"
    if language == "python":
        options = [
            "--name",
            name,
            "--repository",
            lifecycle_repositories[0],
            "--second-repository",
            lifecycle_repositories[1],
        ]
        script = [sys.executable, str(SCRIPTS / "lifecycle.py"), *options]
        said = run_script(served, *script, "--image", f"{image}:1", "--push-to", target)
    else:
        script = [str(SCRIPTS / "lifecycle.sh"), *lifecycle_repositories, f"{image}:1", target]
        said = run_script(served, *script, environment={"NAME": name, "ENVIRONMENT": "dev"})
    assert said.count(LABEL) >= 2
    assert registry.digest_of(f"elsewhere/{language}", "1") == registry.digest_of(
        f"models/e2e-{language}-image", "1"
    )
