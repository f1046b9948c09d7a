"""A deployed service that crashes again and again, on a real engine: healed with pauses, then left to people, told once."""

from __future__ import annotations

from contextlib import suppress

import dagster as dg
import pytest

from constellation_docker.defs import tags
from constellation_docker.engine import Conflict, NotFound
from constellation_docker_tests.defs.test_drift import CELL, Watch, deployed
from constellation_docker_tests.fixtures.deadline import wait_for
from constellation_docker_tests.fixtures.deployer import Deployer

pytestmark = pytest.mark.slow


def crash(deployer: Deployer) -> None:
    """Let the process in the model's container end, as a bug would: Docker starts it again."""
    for container in deployer.engine.list_containers(
        {"com.docker.compose.project": deployer.projects["dev"], "constellation.model": "acme/tiny"}
    ):
        with suppress(Conflict, NotFound):
            deployer.engine.kill(container["Id"], "SIGUSR2")


def test_what_crashes_again_and_again_is_healed_up_to_the_limit_told_once_and_left_alone(
    deployer: Deployer, monkeypatch: pytest.MonkeyPatch, webhook: list[dict[str, object]]
) -> None:
    monkeypatch.setenv("CONSTELLATION_HEALING__MAX_ATTEMPTS", "2")
    monkeypatch.setenv("CONSTELLATION_HEALING__BACKOFF_SECONDS", "3")
    deployed(deployer, "acme/tiny")
    watch = Watch(deployer)
    watch.tick()

    def crashing_tick() -> list[dg.RunRequest]:
        crash(deployer)
        return watch.tick()

    for attempt in ("1", "2"):
        (request,) = wait_for(crashing_tick, seconds=120, what="a healing run")
        assert request.tags[tags.HEALING] == attempt
        assert watch.carry_out(request).success
    wait_for(
        lambda: not crashing_tick() and "Nothing is tried any more" in watch.shown(),
        seconds=120,
        what="giving up",
    )
    for _ in range(3):
        assert crashing_tick() == []
    (notice,) = webhook
    assert (notice["partition"], notice["will_be_retried"]) == (CELL, False)
    assert "it was healed 2 times in a row, and did not stay well" in str(notice["text"])
    assert not watch.check().passed
