"""Containers that somebody changed in place, seen by the sensor of drift on a real engine."""

from __future__ import annotations

from typing import Any

import pytest

from constellation_docker.engine.client import EngineClient
from constellation_docker_tests.defs.test_drift import Watch, deployed, name_of
from constellation_docker_tests.fixtures.deadline import wait_for
from constellation_docker_tests.fixtures.deployer import Deployer

pytestmark = pytest.mark.slow

LESS = {"Memory": 64 << 20, "MemorySwap": 128 << 20}


def memory_of(deployer: Deployer) -> list[int]:
    found = deployer.engine.list_containers(
        {"com.docker.compose.project": deployer.projects["dev"], "constellation.model": "acme/tiny"}
    )
    return [(deployer.engine.container(row["Id"]) or {})["HostConfig"]["Memory"] for row in found]


def test_an_update_in_place_is_seen_at_the_next_tick_and_healed(deployer: Deployer) -> None:
    deployed(deployer, "acme/tiny")
    watch = Watch(deployer)
    assert watch.tick() == []
    deployer.engine.update(name_of(deployer), LESS)
    assert "has 64 MiB of memory instead of 128 MiB" in deployer.preview()["acme-tiny"]
    request = watch.next_request()
    assert "has 64 MiB of memory instead of 128 MiB" in watch.shown()
    watch.tick()
    assert "has 64 MiB of memory instead of 128 MiB" in watch.shown(), "it is not forgotten with its event"
    assert watch.carry_out(request).success
    assert memory_of(deployer) == [128 << 20]
    wait_for(watch.is_clear, what="the all-clear")


def test_an_update_that_no_event_tells_of_is_seen_when_its_turn_comes(
    deployer: Deployer,
) -> None:
    deployed(deployer, "acme/tiny")
    deployer.engine.update(name_of(deployer), LESS)
    watch = Watch(deployer)
    assert len(watch.tick()) == 1
    assert "has 64 MiB of memory" in watch.shown()


def test_a_deployment_with_nothing_to_do_asks_no_more_where_more_services_run(
    deployer: Deployer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    real = EngineClient.request

    def request(self: EngineClient, method: str, url: str, *more: Any, **named: Any) -> Any:
        asked.append(f"{method} {url.partition('/v1.')[2]}")
        return real(self, method, url, *more, **named)

    counts = []
    for models in (["acme/tiny"], ["acme/two", "acme/three"]):
        deployed(deployer, *models)
        with monkeypatch.context() as patched:
            patched.setattr(EngineClient, "request", request)
            asked.clear()
            assert deployer.deploy("acme/tiny").success
            counts.append(len(asked))
    assert counts[0] == counts[1], asked
