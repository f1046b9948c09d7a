"""A container's own health check, run before the engine runs it."""

from __future__ import annotations

import pytest

from constellation_docker.compose import Healthcheck
from constellation_docker.rollout.own_check import read_check_command
from constellation_docker_tests.fixtures.tiny_service import Environment


@pytest.mark.parametrize(
    ("config", "command"),
    [
        ({"Healthcheck": {"Test": ["CMD", "/probe", "-v"]}}, ("/probe", "-v")),
        ({"Healthcheck": {"Test": ["CMD-SHELL", "curl -f x"]}}, ("/bin/sh", "-c", "curl -f x")),
        (
            {"Healthcheck": {"Test": ["CMD-SHELL", "true"]}, "Shell": ["/bin/bash", "-ec"]},
            ("/bin/bash", "-ec", "true"),
        ),
        ({"Healthcheck": {"Test": ["NONE"]}}, ()),
        ({"Healthcheck": None}, ()),
    ],
)
def test_a_health_check_is_run_as_the_engine_would_run_it(
    config: dict[str, object], command: tuple[str, ...]
) -> None:
    assert read_check_command(config) == command


def test_a_replica_takes_over_when_it_is_ready_though_the_engine_has_not_looked_yet(
    environment: Environment,
) -> None:
    check = environment.engine.require_image(environment.image).config["Healthcheck"]
    environment.want(healthcheck=Healthcheck(test=tuple(check["Test"]), interval=3600))
    assert environment.roll_out().outcome == "successful"
    # The engine calls it `starting` for an hour; the balancer reaches it, so nothing is left to do.
    assert environment.roll_out().outcome == "unchanged"
