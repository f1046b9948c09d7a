"""A replica that passes `/ready` and fails requests, seen by the sensor of drift on a real engine."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from constellation_docker.compose import endpoint_url
from constellation_docker.defs import tags
from constellation_docker.rollout import observe
from constellation_docker.settings import load_settings
from constellation_docker_tests.defs.test_drift import Watch, name_of
from constellation_docker_tests.fixtures.deadline import wait_for
from constellation_docker_tests.fixtures.deployer import Deployer
from constellation_docker_tests.fixtures.tiny_service import Clients

pytestmark = pytest.mark.slow


def url() -> str:
    return endpoint_url(load_settings().environment("dev"), "acme-tiny")


def after_requests(count: int, tick: Callable[[], object]) -> Callable[[], object]:
    """A tick that comes after so many requests."""

    def act() -> object:
        for _ in range(count):
            httpx.post(url())
        return tick()

    return act


def states(deployer: Deployer) -> dict[str, str]:
    members = observe(deployer.engine, deployer.projects["dev"]).state.members("acme-tiny")
    return {member.host.partition(".")[0]: member.state for member in members}


def two_of_which_one_fails(deployer: Deployer, watch: Watch) -> None:
    deployer.publish("acme/tiny")
    assert deployer.deploy("acme/tiny", replicas=2).success
    assert watch.tick() == []
    deployer.engine.kill(name_of(deployer), "SIGUSR1")


def test_one_replica_that_answers_500_is_spared_at_the_next_tick_and_replaced(deployer: Deployer) -> None:
    watch = Watch(deployer)
    two_of_which_one_fails(deployer, watch)
    (request,) = wait_for(after_requests(40, watch.tick), seconds=40, what="a healing run")  # type: ignore[misc]
    assert "fails requests that its siblings answer" in watch.shown()
    assert states(deployer) == {"1": "drain", "2": "ready"}
    assert request.tags[tags.HEALING] == "1"
    with Clients(url(), count=4) as clients:
        assert watch.carry_out(request).success
    assert clients.failures == [] and clients.answered
    assert states(deployer) == {"2": "ready", "3": "ready"}
    wait_for(watch.is_clear, what="the all-clear")


def test_where_the_other_replica_goes_away_the_one_that_fails_is_asked_again(deployer: Deployer) -> None:
    watch = Watch(deployer)
    two_of_which_one_fails(deployer, watch)
    wait_for(after_requests(40, watch.tick), seconds=40, what="a healing run")
    assert states(deployer)["1"] == "drain"
    deployer.engine.remove(name_of(deployer, "acme-tiny-2"), force=True)

    def is_asked() -> bool:
        watch.tick()
        return states(deployer).get("1") == "ready"

    wait_for(is_asked, seconds=60, what="requests for the last replica")


def test_drift_that_is_only_reported_leaves_the_outlier_its_requests(
    deployer: Deployer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONSTELLATION_HEALING__MODE", "report")
    watch = Watch(deployer)
    two_of_which_one_fails(deployer, watch)

    def is_shown() -> bool:
        assert watch.tick() == []
        return "fails requests that its siblings answer" in watch.shown()

    wait_for(after_requests(40, is_shown), seconds=40, what="the report")
    assert "drift is only reported" in watch.shown()
    assert states(deployer) == {"1": "ready", "2": "ready"}


def test_a_model_that_fails_on_all_replicas_is_shown_and_left_alone(deployer: Deployer) -> None:
    watch = Watch(deployer)
    deployer.publish("acme/tiny")
    assert deployer.deploy("acme/tiny", replicas=2).success
    watch.tick()
    for number in (1, 2):
        deployer.engine.kill(name_of(deployer, f"acme-tiny-{number}"), "SIGUSR1")
    for _ in range(4):
        for _ in range(30):
            httpx.post(url())
        assert watch.tick() == []
    assert states(deployer) == {"1": "ready", "2": "ready"}
    assert "requests and checks failed on 2 of 2 replicas" in watch.shown()
    assert "It is left so: its replicas fail alike" in watch.shown()
    assert not watch.check().passed
