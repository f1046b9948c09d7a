"""A Docker engine that is stopped, or killed, under what we deployed on it, and comes back."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest

from constellation_docker.compose import endpoint_url
from constellation_docker.engine import Engine
from constellation_docker.packaging import BaseImage
from constellation_docker.rollout import HaproxyBalancer, observe, remove_environment
from constellation_docker.rollout.observed import balancer_name
from constellation_docker.settings import load_settings
from constellation_docker_tests.defs.test_drift import CELL, Watch
from constellation_docker_tests.fixtures.deadline import wait_for
from constellation_docker_tests.fixtures.deployer import Deployer
from constellation_docker_tests.fixtures.engine import PrivateEngine, private_engine
from constellation_docker_tests.fixtures.tiny_service import Clients
from deploy.engine_of_suite import Unusable, _namespace

pytestmark = pytest.mark.slow


@pytest.fixture
def restartable() -> Iterator[tuple[PrivateEngine, str]]:
    """An engine that may be stopped and killed, and its address: in a network of its own, where it has a firewall of its
    own too. Beside the machine's engine, whose firewall lets nothing pass that is not its own, containers could not reach
    each other."""
    try:
        with _namespace() as (namespace, address), private_engine(is_started=False) as private:
            private.prefix = ["nsenter", f"--net={namespace}", "--"]
            ours = ("--bridge=", "--iptables=", "--ip-forward=")
            private.options = [option for option in private.options if not option.startswith(ours)]
            private.start()
            yield private, address
    except Unusable as error:
        pytest.skip(f"no network namespace can be had: {error}")


def answers() -> bool:
    try:
        url = endpoint_url(load_settings().environment("dev"), "acme-tiny")
        return httpx.post(url, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def test_an_engine_that_is_stopped_or_killed_and_started_again_serves_after_the_next_ticks(
    deployer: Deployer,
    engine: Engine,
    restartable: tuple[PrivateEngine, str],
    balancer_base: BaseImage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    private, address = restartable
    environments = json.loads(load_settings().model_dump_json())["environments"]
    environments["dev"] |= {"engine_url": private.url, "bind": address}
    monkeypatch.setenv("CONSTELLATION_ENVIRONMENTS", json.dumps(environments))
    project = deployer.projects["dev"]
    private.connect().load_image(engine.save_image(balancer_base.reference))
    watch = Watch(deployer)

    def is_well() -> bool:
        for request in watch.tick():
            watch.carry_out(request)
        return not watch.tick() and watch.shown(CELL) in {"", "It runs as wanted."} and answers()

    try:
        deployer.publish("acme/tiny")
        assert deployer.deploy("acme/tiny", replicas=2).success
        assert answers()
        for end in (private.stop, private.kill):
            end()
            assert watch.tick() == []
            assert "dev: " in watch.skipped, "the engine that is away is named"
            private.start()
            wait_for(is_well, seconds=240, what="the endpoint, and nothing that differs")
            there = private.connect()
            seen = observe(there, project)
            members = seen.state.members("acme-tiny")
            assert [member.state for member in members] == ["ready", "ready"]
            assert sorted(m.address or "" for m in members) == sorted(
                r.address or "none" for r in seen.replicas("acme-tiny")
            )
            assert HaproxyBalancer(there, balancer_name(project)).settle() is False, (
                "what is on its disk is what is in force"
            )
            with Clients(endpoint_url(load_settings().environment("dev"), "acme-tiny"), count=4) as clients:
                assert deployer.deploy("acme/tiny").success
                wait_for(lambda: clients.answered, what="answers")
            assert clients.failures == []
    finally:
        remove_environment(private.connect(), project)
