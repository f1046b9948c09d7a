"""A run killed with SIGKILL at any step is finished by the next one, and no request is lost."""

from __future__ import annotations

import pytest

from constellation_docker.rollout import Kind, observe, plan_environment
from constellation_docker_tests.fixtures.tiny_service import Clients, Environment

pytestmark = pytest.mark.slow

_STEPS = (
    Kind.CREATE_REPLICA,
    Kind.WAIT_HEALTHY,
    Kind.REGISTER,
    Kind.SWITCH,
    Kind.WAIT_DRAINED,
    Kind.MONITOR,
    Kind.UNREGISTER,
    Kind.STOP_REPLICA,
    Kind.REMOVE_REPLICA,
)


def test_a_rollout_killed_at_each_of_its_steps_is_finished_by_the_next_run(environment: Environment) -> None:
    environment.want()
    environment.roll_out()
    version = 1
    with Clients(environment.url(), count=4) as clients:
        for step in _STEPS:
            version += 1
            environment.want(model_version=str(version))
            kill_at(environment, step)
            environment.roll_out()
            assert clients.failures == [], step
            plan = plan_environment(observe(environment.engine, environment.project), environment.file)
            assert plan.is_empty, (step, plan.rows())
            assert len(environment.containers()) == 1
    assert clients.failures == []


@pytest.mark.parametrize(
    "step", [Kind.CREATE_NETWORK, Kind.CREATE_BALANCER, Kind.CREATE_REPLICA, Kind.REGISTER]
)
def test_a_first_rollout_that_is_killed_is_finished_by_the_next_run(
    step: Kind, environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("constellation_docker.rollout.ground_lock.STALE_SECONDS", 3.0)
    monkeypatch.setattr("constellation_docker.rollout.haproxy.STALE_LOCK_SECONDS", 3.0)
    environment.want()
    kill_at(environment, step)
    assert environment.roll_out().outcome == "successful"
    with Clients(environment.url(), count=1) as clients:
        assert environment.roll_out().outcome == "unchanged"
    assert clients.failures == []


def kill_at(environment: Environment, step: Kind) -> None:
    """Begin a rollout in another process and kill that when it comes to a step."""
    process = environment.start_process()
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            if line.startswith(f"{step}:"):
                process.kill()
                break
        else:
            pytest.fail(f"the rollout ended before it came to {step}")
    process.wait(timeout=10)
