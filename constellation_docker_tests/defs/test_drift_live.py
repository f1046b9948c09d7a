"""The sensor of drift in a real daemon: what is killed is finished, and one engine's absence is nobody else's trouble."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from constellation_docker.engine import Engine
from constellation_docker.gateway import Run
from constellation_docker.packaging import BaseImage
from constellation_docker_tests.defs.test_killed_runs import kill
from constellation_docker_tests.fixtures.deadline import wait_for
from constellation_docker_tests.fixtures.deployer import Deployer
from constellation_docker_tests.fixtures.location import Location, running_location, variables_of
from constellation_docker_tests.fixtures.tiny_service import Clients

pytestmark = pytest.mark.slow

SENSOR = "drifted_deployments"


@pytest.fixture(scope="module")
def apart(
    engine: Engine, tiny_image: str, balancer_base: BaseImage, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Location]:
    """A location whose environment `production` is on an engine that is not there."""
    home = tmp_path_factory.mktemp("apart")
    environments = json.loads(variables_of(home)["CONSTELLATION_ENVIRONMENTS"])
    environments["production"]["engine_url"] = f"unix://{home}/away.sock"
    variables = variables_of(
        home,
        CONSTELLATION_ENVIRONMENTS=json.dumps(environments),
        # The schedule would do the sensor's work.
        CONSTELLATION_RECONCILE__CRON="0 0 1 1 *",
    )
    yield from running_location(home, variables, engine)


@contextmanager
def publisher(location: Location) -> Iterator[Deployer]:
    """Publishes tiny models in a location's store, without packaging anything."""
    projects = {name: str(location.settings.environment(name).project) for name in ("dev", "production")}
    with location.store() as store:
        deployer = Deployer(store, None, location.engine, projects)  # type: ignore[arg-type]
        yield deployer


def newest(location: Location, **tags: Any) -> Run | None:
    runs = location.client.runs({f"constellation/{name}": value for name, value in tags.items()}, limit=1)
    return runs[0] if runs else None


def healed(location: Location, model: str) -> Run:
    """The sensor's run on a model, once it has ended well."""

    def run() -> Run | None:
        found = location.client.runs({"constellation/model": model, "dagster/sensor_name": SENSOR}, limit=1)
        return found[0] if found and found[0].status == "SUCCESS" else None

    found = wait_for(run, seconds=240, what="a healing run that ends well")
    assert found is not None
    return found


def test_a_rollout_that_is_killed_in_the_middle_is_finished_by_the_sensors_run(apart: Location) -> None:
    with publisher(apart) as deployer:
        first = deployer.publish("acme/tiny")
        deployer.store.want("dev", "acme/tiny", model_id=first.model_id)
        run = wait_for(lambda: newest(apart, model="acme/tiny"), seconds=60, what="the first run")
        assert run is not None
        apart.succeed(run.run_id)
        with Clients(apart.endpoint("dev", "acme-tiny"), count=4) as clients:
            second = deployer.publish("acme/tiny", "2", env={"READY_AFTER": "8"})
            wish = deployer.store.want("dev", "acme/tiny", model_id=second.model_id)
            revision = str(wish.revision)
            run = wait_for(
                lambda: newest(apart, service_revision=revision), seconds=60, what="the second run"
            )
            assert run is not None
            wait_for(
                lambda: any("wait until healthy" in entry.message for entry in apart.log(run.run_id)),
                seconds=120,
                what="the middle of the rollout",
            )
            kill(apart, run.run_id)
            healing = healed(apart, "acme/tiny")
            wait_for(lambda: clients.versions.get("2"), what="an answer of the new version")
        assert clients.failures == []
        assert healing.tags["constellation/healing"] == "1"
        stable = deployer.store.deployment("dev", "acme/tiny")
        assert stable.stable_revision == stable.revision == wish.revision


def test_haproxy_killed_beneath_its_service_is_brought_back_by_the_sensors_run(apart: Location) -> None:
    with publisher(apart) as deployer:
        row = deployer.publish("acme/steady")
        deployer.store.want("dev", "acme/steady", model_id=row.model_id)
        run = wait_for(lambda: newest(apart, model="acme/steady"), seconds=60, what="the run")
        assert run is not None
        apart.succeed(run.run_id)
        apart.engine.remove(f"{deployer.projects['dev']}-balancer-1", force=True)
        wait_for(lambda: _answers(apart.endpoint("dev", "acme-steady")), seconds=240, what="the endpoint")


def test_an_environment_whose_engine_is_away_fails_its_own_runs_and_nobody_elses(apart: Location) -> None:
    with publisher(apart) as deployer:
        row = deployer.publish("acme/both")
        for environment in ("production", "dev"):
            deployer.store.want(environment, "acme/both", model_id=row.model_id)
        runs = {environment: first_run(apart, environment) for environment in ("production", "dev")}
        apart.succeed(runs["dev"].run_id)
        failed = apart.wait_for_run(runs["production"].run_id)
        assert failed.status == "FAILURE"
        assert "away.sock" in apart.failure_of(failed.run_id)


def first_run(location: Location, environment: str) -> Run:
    """The run on `acme/both` in an environment, once there is one."""
    run = wait_for(
        lambda: newest(location, model="acme/both", environment=environment), seconds=60, what="the run"
    )
    assert run is not None
    return run


def _answers(url: str) -> bool:
    try:
        return httpx.post(url, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False
