"""The REST contract over HTTP: a real gateway before a real webserver whose runs wait for ever."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from constellation_docker.cards import ModelRow
from constellation_docker_tests.cards.conftest import make_publication
from constellation_docker_tests.fixtures.gateway import QueuedDagster, RunningGateway, running_gateway


def unused_name() -> str:
    return f"contract/{uuid.uuid4().hex[:12]}"


def registration(name: str, version: str = "1.0.0", **more: Any) -> dict[str, Any]:
    return {
        "model_name": name,
        "model_version": version,
        "repo_url": "https://git.example/acme/sentiment",
        "branch": "main",
        "model_card": {
            "description": "Says how a sentence feels.",
            "data_used": "Reviews.",
            "dependencies": [],
        },
    } | more


@pytest.fixture
def caller(gateway: RunningGateway) -> Iterator[httpx.Client]:
    with gateway.client("admin") as client:
        yield client


def register(caller: httpx.Client, name: str, version: str = "1.0.0") -> str:
    answer = caller.post("/docker/models/", json=registration(name, version))
    assert answer.status_code == 202, answer.text
    model_id: str = answer.json()["model_id"]
    return model_id


def publish(gateway: RunningGateway, model_id: str) -> ModelRow:
    """What packaging does at its end."""
    with gateway.store() as store:
        return store.publish(model_id, make_publication(model_id))


def settle(gateway: RunningGateway, environment: str, name: str) -> None:
    """What a rollout does at its end."""
    with gateway.store() as store:
        store.mark_stable(environment, name, store.deployment(environment, name).revision)


def runs_of(queued: QueuedDagster, model_id: str) -> list[str]:
    return [run.job for run in queued.client.runs({"constellation/model_id": model_id})]


def error_of(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"code", "message", "details", "request_id"}
    assert error["request_id"] == answer.headers["X-Request-ID"]
    return error


def status_of(caller: httpx.Client, model_id: str) -> dict[str, Any]:
    answer = caller.get(f"/docker/models/{model_id}/status/")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_registering_answers_as_documented_and_starts_one_run_however_often_it_is_sent(
    caller: httpx.Client, queued: QueuedDagster
) -> None:
    name = unused_name()
    first = caller.post("/docker/models/", json=registration(name)).json()
    assert {key: first[key] for key in ("message", "status")} == {
        "message": "Model packaging initiated.",
        "status": "in_progress",
    }
    assert caller.post("/docker/models/", json=registration(name)).json() == first
    (run,) = queued.client.runs({"constellation/model_id": first["model_id"]})
    assert run.run_id == first["run"]["run_id"]
    assert first["run"]["url"] == f"/ui/runs/{run.run_id}"
    assert run.tags["dagster/partition"] == f"{name}@1.0.0"
    assert run.tags["constellation/requested_by"] == "admin"
    assert run.tags["constellation/card_revision"] == "1"


def test_another_body_corrects_what_is_not_published_and_is_packaged_anew(
    caller: httpx.Client, queued: QueuedDagster
) -> None:
    name = unused_name()
    model_id = register(caller, name)
    again = caller.post("/docker/models/", json=registration(name, branch="stable")).json()
    assert again["model_id"] == model_id
    assert len(runs_of(queued, model_id)) == 2


def test_another_body_for_a_published_version_is_refused_and_names_the_fields(
    caller: httpx.Client, gateway: RunningGateway, queued: QueuedDagster
) -> None:
    name = unused_name()
    model_id = register(caller, name)
    publish(gateway, model_id)
    error = error_of(caller.post("/docker/models/", json=registration(name, branch="stable")), 409)
    assert error["code"] == "version_published"
    assert error["details"]["differs"] == ["branch"]
    same = caller.post("/docker/models/", json=registration(name))
    assert (same.status_code, same.json()["model_id"], same.json()["run"]) == (202, model_id, None)
    assert len(runs_of(queued, model_id)) == 1


def test_an_idempotency_key_answers_the_same_again_and_refuses_another_body(
    caller: httpx.Client, queued: QueuedDagster
) -> None:
    body = {"repository": f"registry.example/{uuid.uuid4().hex}", "tag": "1"}
    key = {"Idempotency-Key": uuid.uuid4().hex}
    first = caller.post("/docker/images/pull/", json=body, headers=key)
    queued.client.terminate(first.json()["image_id"])
    again = caller.post("/docker/images/pull/", json=body, headers=key)
    assert (again.status_code, again.json()) == (202, first.json())
    assert again.headers["Idempotent-Replayed"] == "true"
    error = error_of(caller.post("/docker/images/pull/", json=body | {"tag": "2"}, headers=key), 422)
    assert error["code"] == "idempotency_key_reused"
    # Without the key a pull that has ended is asked for anew: tags move.
    assert caller.post("/docker/images/pull/", json=body).json()["image_id"] != first.json()["image_id"]


def test_deploying_writes_the_wish_and_starts_one_run_however_often_it_is_sent(
    caller: httpx.Client, gateway: RunningGateway, queued: QueuedDagster
) -> None:
    name = unused_name()
    model_id = register(caller, name)
    publish(gateway, model_id)
    body = {"environment": "dev", "replicas": 2, "resources": {"memory": "512m"}}
    first = caller.post(f"/docker/models/{model_id}/deploy/", json=body).json()
    assert {key: first[key] for key in ("model_id", "message", "deployment_status", "revision")} == {
        "model_id": model_id,
        "message": "Deployment initiated.",
        "deployment_status": "in_progress",
        "revision": 1,
    }
    assert caller.post(f"/docker/models/{model_id}/deploy/", json=body).json() == first
    with gateway.store() as store:
        wish = store.deployment("dev", name)
    assert (wish.wanted_replicas, wish.wanted_resources.memory, wish.requested_by) == (2, "512m", "admin")
    (run,) = queued.client.runs({"constellation/model_id": model_id, "constellation/environment": "dev"})
    assert run.tags["constellation/service_revision"] == "1"
    found = status_of(caller, model_id)
    assert found["status"] == "deploying"
    settle(gateway, "dev", name)
    (service,) = status_of(caller, model_id)["environments"]
    assert (service["status"], service["replicas"]) == ("deployed", 2)
    assert service["endpoint_url"].endswith(f"/{name.replace('/', '-')}/")
    # What is done needs no run.
    assert caller.post(f"/docker/models/{model_id}/deploy/", json=body).json()["run"] is None


def test_what_is_not_packaged_yet_is_deployed_later(
    caller: httpx.Client, gateway: RunningGateway, queued: QueuedDagster
) -> None:
    name = unused_name()
    model_id = register(caller, name)
    answer = caller.post(f"/docker/models/{model_id}/deploy/", json={"environment": "dev"})
    assert (answer.status_code, answer.json()["run"]) == (202, None)
    assert runs_of(queued, model_id) == ["package_model"]
    (service,) = status_of(caller, model_id)["environments"]
    assert service["status"] == "pending"


def test_a_rollback_asked_for_twice_goes_back_once(
    caller: httpx.Client, gateway: RunningGateway, queued: QueuedDagster
) -> None:
    name = unused_name()
    old, new = register(caller, name, "1"), register(caller, name, "2")
    for model_id in (old, new):
        row = publish(gateway, model_id)
        with gateway.store() as store:
            # Two versions with one image are one release.
            store.publish(model_id, make_publication(model_id, f"registry.example/x@sha256:{row.model_id}"))
        caller.post(f"/docker/models/{model_id}/deploy/", json={"environment": "dev"})
        settle(gateway, "dev", name)
    first = caller.post(f"/docker/models/{new}/rollback/", json={"environment": "dev"}).json()
    assert (first["to_model_id"], first["to_version"], first["deployment_status"]) == (
        old,
        "1",
        "in_progress",
    )
    assert caller.post(f"/docker/models/{new}/rollback/", json={"environment": "dev"}).json() == first
    settle(gateway, "dev", name)
    assert status_of(caller, new)["status"] == "rolled_back"
    assert status_of(caller, old)["status"] == "deployed"
    error = error_of(caller.post(f"/docker/models/{old}/rollback/", json={"environment": "production"}), 404)
    assert error["code"] == "deployment_not_found"


def test_a_rollback_of_what_another_version_has_followed_is_refused(
    caller: httpx.Client, gateway: RunningGateway
) -> None:
    name = unused_name()
    ids = [register(caller, name, version) for version in ("1", "2")]
    for model_id in ids:
        publish(gateway, model_id)
        caller.post(f"/docker/models/{model_id}/deploy/", json={"environment": "dev"})
    error = error_of(caller.post(f"/docker/models/{ids[0]}/rollback/", json={"environment": "dev"}), 409)
    assert (error["code"], error["details"]["wanted_model_id"]) == ("not_deployed", ids[1])


def test_cancelling_ends_what_is_under_way_and_says_when_nothing_is(
    caller: httpx.Client, queued: QueuedDagster
) -> None:
    model_id = register(caller, unused_name())
    answer = caller.post(f"/docker/models/{model_id}/cancel/", json={})
    assert (answer.status_code, len(answer.json()["runs"])) == (202, 1)
    found = status_of(caller, model_id)
    assert (found["status"], found["last_error"]) == ("failed", "The run was cancelled.")
    error = error_of(caller.post(f"/docker/models/{model_id}/cancel/", json={}), 409)
    assert error["code"] == "nothing_to_cancel"


def test_a_cancelled_packaging_is_tried_again_when_it_is_registered_again(
    caller: httpx.Client, queued: QueuedDagster
) -> None:
    name = unused_name()
    model_id = register(caller, name)
    caller.post(f"/docker/models/{model_id}/cancel/", json={})
    assert register(caller, name) == model_id
    assert len(runs_of(queued, model_id)) == 2
    assert status_of(caller, model_id)["status"] == "pending"


def test_what_takes_longer_to_delete_is_answered_with_deleting(
    gateway: RunningGateway, queued: QueuedDagster
) -> None:
    known = queued.settings.gateway.model_copy(update={"delete_wait_seconds": 0.3})
    hasty = queued.settings.model_copy(update={"gateway": known})
    with running_gateway(hasty) as served, served.client("admin") as caller:
        _delete_what_takes_longer(caller, gateway)


def _delete_what_takes_longer(caller: httpx.Client, gateway: RunningGateway) -> None:
    model_id = register(caller, unused_name())
    first = caller.delete(f"/docker/models/{model_id}/")
    assert (first.status_code, first.json()["status"]) == (202, "deleting")
    assert status_of(caller, model_id)["status"] == "deleting"
    assert caller.delete(f"/docker/models/{model_id}/").json() == first.json()
    with gateway.store() as store:
        store.remove(model_id)
    gone = caller.delete(f"/docker/models/{model_id}/")
    assert (gone.status_code, gone.json()) == (200, {"message": "Model deployment deleted successfully."})
    assert status_of(caller, model_id)["status"] == "deleted"
    assert error_of(caller.post(f"/docker/models/{model_id}/deploy/", json={"environment": "dev"}), 404)


def test_the_list_goes_by_pages_and_filters(caller: httpx.Client, gateway: RunningGateway) -> None:
    prefix = uuid.uuid4().hex[:10]
    names = [f"{prefix}/m{number}" for number in range(5)]
    ids = [register(caller, name) for name in names]
    publish(gateway, ids[1])
    caller.post(f"/docker/models/{ids[1]}/deploy/", json={"environment": "dev"})
    settle(gateway, "dev", names[1])

    def listed(**query: Any) -> list[str]:
        found: list[str] = []
        cursor = None
        while True:
            page = caller.get("/docker/models/", params=query | ({"cursor": cursor} if cursor else {})).json()
            found += [model["model_name"] for model in page["models"]]
            cursor = page["next_cursor"]
            if cursor is None:
                return found

    assert listed(search=prefix, limit=2) == names
    assert listed(search=prefix, limit=5) == names
    assert listed(search=prefix, status="deployed") == [names[1]]
    assert listed(search=prefix, status="pending", limit=3) == [names[0], *names[2:]]
    assert listed(search=prefix, environment="dev") == [names[1]]
    assert listed(name=names[2]) == [names[2]]
    (model,) = caller.get("/docker/models/", params={"name": names[1]}).json()["models"]
    assert {"model_id", "model_name", "model_version", "status", "deployed_at"} <= set(model)
    assert (model["model_id"], model["model_version"], model["status"]) == (ids[1], "1.0.0", "deployed")
    assert model["deployed_at"] is not None
    assert error_of(caller.get("/docker/models/", params={"cursor": "é"}), 422)["code"] == "invalid_cursor"


def test_the_history_tells_releases_and_runs(caller: httpx.Client, gateway: RunningGateway) -> None:
    name = unused_name()
    model_id = register(caller, name)
    publish(gateway, model_id)
    caller.post(f"/docker/models/{model_id}/deploy/", json={"environment": "dev"})
    first = caller.get(f"/docker/models/{model_id}/history/", params={"limit": 1}).json()
    (release,) = first["releases"]
    assert (release["environment"], release["revision"], release["requested_by"]) == ("dev", 1, "admin")
    second = caller.get(f"/docker/models/{model_id}/history/", params={"cursor": first["next_cursor"]}).json()
    assert [run["action"] for run in (*first["runs"], *second["runs"])] == ["deploy", "package"]
    assert (second["releases"], second["next_cursor"]) == ([], None)


def test_images_are_pulled_and_pushed_and_asked_about(caller: httpx.Client) -> None:
    repository = f"registry.example/{uuid.uuid4().hex}"
    pulled = caller.post("/docker/images/pull/", json={"repository": repository, "tag": "1.0"})
    assert (pulled.status_code, pulled.json()["message"]) == (202, "Image pull initiated.")
    image_id = pulled.json()["image_id"]
    again = caller.post("/docker/images/pull/", json={"repository": repository, "tag": "1.0"})
    assert again.json()["image_id"] == image_id
    found = caller.get(f"/docker/images/{image_id}/status/").json()
    assert (found["status"], found["image"], found["action"]) == ("pending", f"{repository}:1.0", "pull")
    body = {"image_name": "constellation/x", "tag": "1.0", "repository": repository}
    pushed = caller.post("/docker/images/push/", json=body)
    assert (pushed.status_code, pushed.json()["message"]) == (202, "Image push initiated.")
    assert caller.get(f"/docker/images/{pushed.json()['image_id']}/status/").json()["action"] == "push"
    assert error_of(caller.get(f"/docker/images/{uuid.uuid4()}/status/"), 404)["code"] == "image_not_found"


def test_the_environments_are_listed_with_what_the_caller_may_do(gateway: RunningGateway) -> None:
    with gateway.client("operator") as caller:
        found = caller.get("/docker/environments/").json()["environments"]
    assert [(item["environment"], item["is_protected"], item["may_deploy"]) for item in found] == [
        ("dev", False, True),
        ("production", True, False),
    ]


@pytest.mark.parametrize("model_id", ["nonsense", "1", "%00", "a" * 2000, "../../etc/passwd", "null", "☃"])
def test_what_is_no_id_is_refused_in_words(caller: httpx.Client, model_id: str) -> None:
    assert caller.get(f"/docker/models/{model_id}/status/").status_code in {404, 422}


def test_errors_have_one_form_and_name_the_field(caller: httpx.Client) -> None:
    assert error_of(caller.get("/docker/nothing/"), 404)["code"] == "not_found"
    assert error_of(caller.put("/docker/models/", json={}), 405)["code"] == "method_not_allowed"
    unknown = uuid.uuid4()
    assert error_of(caller.get(f"/docker/models/{unknown}/status/"), 404)["code"] == "card_not_found"
    problems = error_of(caller.post("/docker/models/", json={"model_name": 1}), 422)["details"]["problems"]
    assert {"field": "model_name", "problem": problems[0]["problem"]} == problems[0]
    assert {problem["field"] for problem in problems} == {"model_name", "model_version", "repo_url"}
    card = registration(unused_name(), model_card={"describtion": "x"})
    problems = error_of(caller.post("/docker/models/", json=card), 422)["details"]["problems"]
    assert problems[0]["field"] == "model_card.describtion"
    model_id = register(caller, unused_name())
    nowhere = caller.post(f"/docker/models/{model_id}/deploy/", json={"environment": "nowhere"})
    assert error_of(nowhere, 422)["details"]["environment"] == "nowhere"


@pytest.mark.parametrize("how", ["same", "different"])
def test_many_registrations_at_once_start_as_many_runs_as_there_should_be(
    gateway: RunningGateway, queued: QueuedDagster, how: str
) -> None:
    count = 12
    same = unused_name()
    names = [same if how == "same" else f"{same}-{number}" for number in range(count)]

    def patiently(name: str) -> httpx.Response:
        """As a caller does who is told to come back: a busy webserver is no failure."""
        answer = caller.post("/docker/models/", json=registration(name))
        while answer.status_code == 503:
            time.sleep(float(answer.headers["Retry-After"]))
            answer = caller.post("/docker/models/", json=registration(name))
        return answer

    with gateway.client("admin") as caller, ThreadPoolExecutor(count) as pool:
        answers = list(pool.map(patiently, names))
    assert [answer.status_code for answer in answers] == [202] * count
    runs = {answer.json()["run"]["run_id"] for answer in answers}
    assert len(runs) == (1 if how == "same" else count)
    for model_id in {answer.json()["model_id"] for answer in answers}:
        assert runs_of(queued, model_id) == ["package_model"]
