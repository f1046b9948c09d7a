"""Rollouts on a real engine."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable

import httpx
import pytest

from constellation_docker.engine import Engine
from constellation_docker.rollout import (
    HaproxyBalancer,
    RolloutCancelled,
    RolloutFailed,
    observe,
    plan_environment,
    remove_environment,
    remove_service,
)
from constellation_docker.rollout.observed import balancer_name
from constellation_docker_tests.fixtures.deadline import wait_for
from constellation_docker_tests.fixtures.engine import TEST_LABEL, build_context
from constellation_docker_tests.fixtures.tiny_service import QUICK, TINY_IMAGE, Clients, Environment

pytestmark = pytest.mark.slow


def ask(environment: Environment, slug: str = "tiny", path: str = "") -> dict[str, object]:
    answer = httpx.post(environment.url(slug) + path, content=b"12345", timeout=30)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def is_at_rest(environment: Environment) -> bool:
    plan = plan_environment(observe(environment.engine, environment.project), environment.file)
    assert plan.is_empty, plan.rows()
    return True


def test_a_first_deployment_answers_at_its_endpoint_and_a_second_run_changes_nothing(
    environment: Environment,
) -> None:
    environment.want(replicas=2)
    result = environment.roll_out()
    assert result.outcome == "successful"
    assert result.endpoint_url == environment.url()
    assert ask(environment, path="predict?x=1") == {
        "version": "1",
        "path": "/predict?x=1",
        "size": 5,
        "secret": 0,
    }
    assert ask(environment)["path"] == "/"
    assert httpx.get(environment.url("nothing")).json()["code"] == "unknown_model"
    before = environment.containers()
    again = environment.roll_out()
    assert (again.outcome, again.steps) == ("unchanged", ())
    assert environment.containers() == before
    assert is_at_rest(environment)


def test_version_changes_and_scalings_drop_no_request(environment: Environment) -> None:
    environment.want(replicas=2)
    environment.roll_out()
    with Clients(environment.url()) as clients:
        for number in range(2, 5):
            environment.want(replicas=2, model_version=str(number))
            assert environment.roll_out().outcome == "successful"
        for replicas in (4, 1):
            environment.want(replicas=replicas, model_version="4")
            assert environment.roll_out().outcome == "successful"
            assert len(environment.containers()) == replicas
    assert clients.failures == []
    assert set(clients.versions) == {"1", "2", "3", "4"}
    assert is_at_rest(environment)


def test_a_version_that_never_gets_ready_leaves_the_old_one_serving_and_its_log_in_the_error(
    environment: Environment,
) -> None:
    environment.want()
    environment.roll_out()
    before = environment.containers()
    quick = QUICK.model_copy(update={"healthy_deadline": "4s"})
    environment.want(model_version="2", env={"READY_AFTER": "1000"}, deploy=quick)
    with Clients(environment.url(), count=4) as clients, pytest.raises(RolloutFailed) as caught:
        environment.roll_out()
    assert clients.failures == []
    assert set(clients.versions) == {"1"}
    assert environment.containers() == before
    error = caught.value
    assert error.outcome == "rolled_back"
    assert "did not become healthy within 4 seconds. What ran before goes on serving." in error.message
    assert "listening, version 2" in error.log_tail
    assert any("health check" in line for line in error.log_tail)
    assert error.details["steps"][-1]["kind"] == "remove replica"


def test_a_version_that_crashes_at_start_is_given_up_at_once_and_its_log_holds_no_secret(
    environment: Environment,
) -> None:
    environment.want()
    environment.roll_out()
    environment.want(model_version="2", env={"CRASH": "1"}, secrets={"TOKEN": "env:ANY"})
    with pytest.raises(RolloutFailed, match=r"crashed 3 times while starting") as caught:
        environment.roll_out(resolve=lambda reference: "hunter2")
    assert "cannot load the weights; token is •••" in caught.value.log_tail
    assert "hunter2" not in json.dumps(caught.value.details) + "".join(environment.lines)
    assert ask(environment)["version"] == "1"


def test_a_version_that_turns_bad_after_it_took_over_is_reverted(environment: Environment) -> None:
    environment.want(replicas=2)
    environment.roll_out()
    before = environment.containers()
    watched = QUICK.model_copy(update={"min_healthy_time": "20s"})
    environment.want(replicas=2, model_version="2", env={"BAD_AFTER": "2"}, deploy=watched)
    with Clients(environment.url(), count=4) as clients, pytest.raises(RolloutFailed) as caught:
        environment.roll_out()
    assert caught.value.outcome == "rolled_back", caught.value.message
    assert "turned bad after it had taken over" in caught.value.message
    assert set(clients.versions) == {"1", "2"}
    assert clients.failures == []
    assert environment.containers() == before


def test_a_first_deployment_that_fails_leaves_nothing_behind(environment: Environment) -> None:
    environment.want(env={"CRASH": "1"})
    with pytest.raises(RolloutFailed) as caught:
        environment.roll_out()
    assert caught.value.outcome == "failed"
    assert "Nothing ran before, and nothing runs now." in caught.value.message
    assert environment.containers() == {}
    assert httpx.get(environment.url()).status_code == 404


def test_a_port_on_which_nothing_listens_is_found_before_the_switch(environment: Environment) -> None:
    environment.want(port=9999, deploy=QUICK.model_copy(update={"healthy_deadline": "5s"}))
    with pytest.raises(RolloutFailed, match="the balancer got no good answer from /ready") as caught:
        environment.roll_out()
    assert "Check the port" in caught.value.remedy


def test_stop_first_never_runs_two_generations_at_once(environment: Environment) -> None:
    first = QUICK.model_copy(update={"order": "stop-first"})
    environment.want(deploy=first)
    environment.roll_out()
    environment.want(deploy=first, model_version="2")
    steps = [step.kind for step in environment.roll_out().steps]
    assert steps.index("stop replica") < steps.index("create replica")
    assert ask(environment)["version"] == "2"
    environment.want(deploy=first, model_version="3", env={"CRASH": "1"})
    with pytest.raises(RolloutFailed) as caught:
        environment.roll_out()
    assert caught.value.outcome == "rolled_back", caught.value.message
    assert ask(environment)["version"] == "2"


def test_a_request_in_flight_is_finished_by_the_old_generation(environment: Environment) -> None:
    environment.want()
    environment.roll_out()
    answers: list[httpx.Response] = []

    def ask_slowly() -> None:
        answers.append(httpx.post(environment.url(), headers={"X-Slow": "6"}, timeout=30))

    slow = threading.Thread(target=ask_slowly)
    slow.start()
    environment.want(model_version="2")
    balancer = HaproxyBalancer(environment.engine, balancer_name(environment.project))
    wait_for(lambda: any(member.in_flight for member in balancer.read_members("tiny")), what="the request")
    environment.roll_out()
    slow.join()
    assert answers[0].json()["version"] == "1"
    assert ask(environment)["version"] == "2"


def test_two_services_roll_out_side_by_side(environment: Environment) -> None:
    problems: list[BaseException] = []

    def move(slug: str, version: str) -> None:
        try:
            environment.roll_out(slug)
        except BaseException as error:  # noqa: BLE001  it is reported by the test's own thread
            problems.append(error)

    for version in ("1", "2"):
        for slug in ("one", "two", "three"):
            environment.want(slug, model_version=version)
        threads = [threading.Thread(target=move, args=(slug, version)) for slug in ("one", "two", "three")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert problems == []
        for slug in ("one", "two", "three"):
            assert ask(environment, slug)["version"] == version
    assert is_at_rest(environment)


def test_a_secret_reaches_the_container_and_nothing_else(environment: Environment) -> None:
    environment.want(secrets={"TOKEN": "env:ANY"})
    result = environment.roll_out(resolve=lambda reference: "hunter2")
    assert ask(environment)["secret"] == len("hunter2")
    assert "hunter2" not in repr(result) + environment.file.text + "".join(environment.lines)


def test_a_service_is_removed_and_nothing_else_is_touched(environment: Environment) -> None:
    for slug in ("stays", "goes"):
        environment.want(slug)
        environment.roll_out(slug)
    with Clients(environment.url("stays"), count=2) as clients:
        del environment.services["goes"]
        removed = remove_service(
            environment.file, "goes", engine=environment.engine, settings=environment.settings
        )
    assert removed.containers == (f"{environment.project}-goes-1",)
    assert removed.images == (), "another service uses the image"
    assert clients.failures == []
    assert environment.containers("goes") == {}
    assert httpx.get(environment.url("goes")).status_code == 404
    assert is_at_rest(environment)


def test_an_image_goes_with_the_last_service_that_used_it(environment: Environment) -> None:
    engine = environment.engine
    context = build_context({"Dockerfile": f"FROM {TINY_IMAGE}\nLABEL only=this"})
    tags = [f"{environment.project}:1", f"{environment.project}:2"]
    image = engine.build(context, tag=tags[0], labels={TEST_LABEL: "rollout"}).image_id
    engine.tag(tags[0], tags[1])
    for slug in ("one", "two"):
        environment.want(slug, image=image)
        environment.roll_out(slug)
    found = []
    for slug in ("one", "two"):
        done = remove_service(environment.file, slug, engine=engine, settings=environment.settings)
        del environment.services[slug]
        found.append((done.images, engine.image(tags[1]) is not None))
    assert found == [((), True), ((image,), False)]
    assert engine.image(environment.image) is not None


@pytest.mark.parametrize(
    "fault", ["removed", "stopped", "killed", "unhealthy", "disconnected", "forgotten by the balancer"]
)
def test_drift_is_healed(fault: str, environment: Environment) -> None:
    environment.want(replicas=2)
    environment.roll_out()
    engine, name = environment.engine, f"{environment.project}-tiny-1"
    match fault:
        case "removed":
            engine.remove(name, force=True)
        case "stopped":
            engine.stop(name, grace_seconds=5)
        case "killed":
            engine.stop(name, grace_seconds=0)
        case "unhealthy":
            # The tiny server's process is stopped, not ended: it answers nothing any more.
            engine.kill(name, "SIGSTOP")
            wait_for(
                lambda: _is_given_up(environment), seconds=60, what="the balancer's and engine's verdicts"
            )
        case "disconnected":
            engine.disconnect_container(f"{environment.project}_default", name, force=True)
            wait_for(lambda: _is_out_of_reach(environment), seconds=60, what="the balancer's verdict")
        case _:
            HaproxyBalancer(engine, balancer_name(environment.project)).unregister("tiny", ["1.tiny"])
    with Clients(environment.url(), count=4) as clients:
        assert environment.roll_out().outcome == "successful"
    assert clients.failures == []
    assert len(environment.containers()) == 2
    assert is_at_rest(environment)


@pytest.mark.parametrize("fault", ["killed", "stopped", "removed"])
def test_a_balancer_that_went_away_comes_back_with_the_same_routes(
    fault: str, environment: Environment
) -> None:
    environment.want(replicas=2)
    environment.roll_out()
    engine, name = environment.engine, balancer_name(environment.project)
    before = _states(environment)
    match fault:
        case "killed":
            engine.kill(name)
        case "stopped":
            engine.stop(name, grace_seconds=1)
        case _:
            engine.remove(name, force=True)
    environment.roll_out()
    wait_for(lambda: _answers(environment), what="the endpoint")
    assert _states(environment) == before


def test_a_configuration_on_disk_that_is_not_the_one_in_force_is_written_anew(
    environment: Environment,
) -> None:
    environment.want()
    environment.roll_out()
    balancer = HaproxyBalancer(environment.engine, balancer_name(environment.project))
    assert balancer.settle() is False
    environment.engine.put_file(balancer.container, "/etc/constellation/routes.map", b"tiny nowhere\n")
    environment.roll_out()
    assert balancer.settle() is False
    environment.engine.restart(balancer.container, grace_seconds=1)
    wait_for(lambda: _answers(environment), what="the endpoint")


def test_more_services_and_replicas_than_the_balancer_made_room_for(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("constellation_docker.rollout.haproxy_config.SPARE_BACKENDS", 1)
    monkeypatch.setattr("constellation_docker.rollout.haproxy_config.SLOTS", 2)
    for slug in ("one", "two", "three"):
        environment.want(slug)
        environment.roll_out(slug)
    environment.want("two", replicas=4)
    environment.roll_out("two")
    for slug in ("one", "two", "three"):
        assert ask(environment, slug)["version"] == "1"
    assert is_at_rest(environment)


def test_a_cancelled_rollout_leaves_what_ran_before(environment: Environment) -> None:
    environment.want()
    environment.roll_out()
    before = environment.containers()
    environment.want(model_version="2", env={"READY_AFTER": "1000"})
    with pytest.raises(RolloutCancelled):
        environment.roll_out(
            is_cancelled=lambda: sum("wait until healthy" in line for line in environment.lines) > 1
        )
    assert environment.containers() == before
    assert ask(environment)["version"] == "1"


def test_removing_an_environment_leaves_other_environments_alone(
    make_environment: Callable[[], Environment], engine: Engine
) -> None:
    one, other = make_environment(), make_environment()
    for environment in (one, other):
        environment.want()
        environment.roll_out()
    removed = remove_environment(engine, one.project)
    assert len(removed.containers) == 2
    assert removed.networks == (f"{one.project}_default",)
    assert ask(other)["version"] == "1"


def _states(environment: Environment) -> dict[str, str]:
    members = HaproxyBalancer(environment.engine, balancer_name(environment.project)).read_members("tiny")
    return {member.host: member.state for member in members}


def _is_given_up(environment: Environment) -> bool:
    seen = observe(environment.engine, environment.project)
    is_unhealthy = any(replica.health == "unhealthy" for replica in seen.replicas("tiny"))
    return is_unhealthy and any(member.check == "down" for member in seen.state.members("tiny"))


def _is_out_of_reach(environment: Environment) -> bool:
    members = observe(environment.engine, environment.project).state.members("tiny")
    return any(member.check == "down" for member in members)


def _answers(environment: Environment) -> bool:
    try:
        return httpx.post(environment.url(), timeout=5).status_code == 200
    except httpx.HTTPError:
        return False
