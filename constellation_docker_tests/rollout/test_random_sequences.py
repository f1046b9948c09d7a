"""Random histories of one service on a real engine: whatever happened, the next rollout gets to what is wanted."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable

import httpx
import pytest

from constellation_docker.compose import labels
from constellation_docker.engine import Engine
from constellation_docker.packaging.base_image import BaseImage
from constellation_docker.rollout import HaproxyBalancer, Kind, RolloutFailed, observe, plan_environment
from constellation_docker.rollout.observed import balancer_name
from constellation_docker_tests.fixtures.deadline import wait_for
from constellation_docker_tests.fixtures.engine import IMAGE_PREFIX, TEST_LABEL, build_context
from constellation_docker_tests.fixtures.tiny_service import QUICK, TINY_IMAGE, Environment
from constellation_docker_tests.rollout.test_killed_runs import kill_at

pytestmark = pytest.mark.slow

SLUG = "tiny"
_SEQUENCES, _EVENTS = 24, 4
# A machine that does much else is slow; what is late is not wrong.
_PATIENT = QUICK.model_copy(update={"healthy_deadline": "120s", "progress_deadline": "300s"})
_IMPATIENT = QUICK.model_copy(update={"healthy_deadline": "4s"})
_KILLED_AT = (
    Kind.CREATE_REPLICA,
    Kind.REGISTER,
    Kind.SWITCH,
    Kind.WAIT_DRAINED,
    Kind.MONITOR,
    Kind.UNREGISTER,
)


@pytest.fixture(scope="module")
def calm_image(engine: Engine, tiny_image: str, python_base: BaseImage) -> str:
    """The tiny service, not called unhealthy where a busy machine cannot run its probe for a while.

    What runs well must not be lost by a rollout's doing; here nothing else may take it away.
    """
    check = json.dumps([python_base.python_path, "-S", "-E", "/probe.py"])
    dockerfile = f"FROM {TINY_IMAGE}\nHEALTHCHECK --interval=1s --timeout=60s --retries=20 CMD {check}\n"
    labels_of_test = {TEST_LABEL: f"rollout-{os.getpid()}"}
    return engine.build(
        build_context({"Dockerfile": dockerfile}), tag=f"{IMAGE_PREFIX}/calm:1", labels=labels_of_test
    ).image_id


@pytest.fixture
def environment(environment: Environment, calm_image: str) -> Environment:
    """An environment of calm services."""
    environment.image = calm_image
    return environment


class History:
    """One service, what happens to it, and what must hold afterwards.

    Attributes:
        told: What happened, for the message of an assertion.
    """

    def __init__(self, environment: Environment, chance: random.Random) -> None:
        self.told: list[str] = []
        self._environment = environment
        self._engine = environment.engine
        self._chance = chance
        self._version = 1
        self._replicas = 1
        self._foreign: set[str] = set()
        self._events: list[Callable[[], None]] = [
            self.deploy,
            self.scale,
            self.deploy_bad,
            self.kill_run,
            self.remove_replica,
            self.stop_replica,
            self.add_foreign,
            self.kill_balancer,
            self.stop_service,
        ]

    def happen(self) -> None:
        """Let something happen, and see that all is well after it."""
        event = self._chance.choice(self._events)
        self.told.append(event.__name__)
        event()
        self.settle()

    def settle(self) -> None:
        """Roll out what is wanted; nothing that serves well is missed on the way."""
        self._want()
        self._move()
        self._check()

    def deploy(self) -> None:
        """A further version."""
        self._version += 1

    def scale(self) -> None:
        """Another number of replicas."""
        self._replicas = self._chance.randint(1, 4)

    def deploy_bad(self) -> None:
        """A version that must not stay."""
        bad = self._chance.choice([{"CRASH": "1"}, {"READY_AFTER": "1000"}])
        self._environment.want(model_version="bad", replicas=self._replicas, env=bad, deploy=_IMPATIENT)
        serving = self._serving()
        with pytest.raises(RolloutFailed) as caught:
            self._move()
        assert caught.value.outcome == ("rolled_back" if serving else "failed"), self.told

    def kill_run(self) -> None:
        """A rollout that is killed in the middle."""
        self._version += 1
        self._want()
        kill_at(self._environment, self._chance.choice(_KILLED_AT if self._serving() else _KILLED_AT[:2]))

    def remove_replica(self) -> None:
        """Somebody removes a container."""
        if name := self._some_replica():
            self._engine.remove(name, force=True)

    def stop_replica(self) -> None:
        """Somebody stops a container."""
        if name := self._some_replica():
            self._engine.stop(name, grace_seconds=2)

    def add_foreign(self) -> None:
        """Somebody starts a container of their own in our project."""
        name = f"{self._environment.project}-foreign-{len(self._foreign)}"
        of_project = {labels.COMPOSE_PROJECT: self._environment.project, "somebody": "else"}
        self._engine.create_container(name, {"Image": self._environment.image, "Labels": of_project})
        self._engine.start(name)
        self._foreign.add(name)

    def kill_balancer(self) -> None:
        """HAProxy is killed."""
        self._engine.kill(balancer_name(self._environment.project))

    def stop_service(self) -> None:
        """No replica is wanted for a while."""
        self._environment.want(model_version=str(self._version), replicas=0)
        self._move()
        assert self._environment.containers() == {}, self.told

    def end(self) -> None:
        """Remove what is not ours."""
        for name in self._foreign:
            self._engine.remove(name, force=True)

    def _want(self) -> None:
        self._environment.want(model_version=str(self._version), replicas=self._replicas, deploy=_PATIENT)

    def _move(self) -> None:
        """Roll out, and look before every step at how many replicas serve."""
        wanted = self._environment.services[SLUG].replicas
        least = min(len(self._serving()), wanted)
        seen: list[tuple[int, str]] = []

        def look(line: str) -> None:
            seen.append((len(self._serving()), line))

        try:
            self._environment.roll_out(on_line=look)
        finally:
            assert [line for count, line in seen if count < least] == [], (self.told, least, seen)

    def _serving(self) -> set[str]:
        """Hosts that are given requests and answer them."""
        found = observe(self._engine, self._environment.project)
        well = {
            replica.host
            for replica in found.replicas(SLUG)
            if replica.is_running and replica.health != "unhealthy"
        }
        return {member.host for member in found.state.members(SLUG) if member.is_serving} & well

    def _some_replica(self) -> str | None:
        names = sorted(self._environment.containers())
        return self._chance.choice(names) if names else None

    def _check(self) -> None:
        states = list(self._environment.containers().values())
        assert states == ["running"] * self._replicas, self.told
        seen = observe(self._engine, self._environment.project)
        plan = plan_environment(seen, self._environment.file)
        assert plan.is_empty, (self.told, plan.rows())
        assert not HaproxyBalancer(self._engine, balancer_name(self._environment.project)).settle(), self.told
        assert self._foreign <= set(seen.foreign), self.told
        wait_for(lambda: self._answers() == str(self._version), what=f"version {self._version} ({self.told})")

    def _answers(self) -> str:
        try:
            answer = httpx.post(self._environment.url(), content=b"12345", timeout=10)
        except httpx.HTTPError as error:
            return repr(error)
        return str(answer.json()["version"]) if answer.status_code == 200 else answer.text


@pytest.mark.parametrize("seed", range(_SEQUENCES))
def test_whatever_happened_the_next_rollout_gets_to_what_is_wanted(
    seed: int, environment: Environment
) -> None:
    history = History(environment, random.Random(seed))
    try:
        history.settle()
        for _ in range(_EVENTS):
            history.happen()
    finally:
        history.end()
