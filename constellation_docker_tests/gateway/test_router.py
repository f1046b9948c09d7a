"""The router in another FastAPI application: its errors, its request ids and its guard come along."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from constellation_docker.cards import CardStore
from constellation_docker.gateway.access.api_keys import ApiKeys
from constellation_docker.gateway.access.principal import Role
from constellation_docker.gateway.dagster_client import DagsterClient
from constellation_docker.gateway.ports import Ports
from constellation_docker.gateway.router import create_router
from constellation_docker.settings import Settings
from constellation_docker_tests.cards.conftest import make_card
from constellation_docker_tests.fixtures.ports import free_port


@pytest.fixture
def ports(tmp_path: Path) -> Iterator[Ports]:
    settings = Settings(home=tmp_path)
    with (
        CardStore.open(settings.store_url) as store,
        DagsterClient(f"http://127.0.0.1:{free_port()}", timeout_seconds=1) as dagster,
    ):
        yield Ports(settings, store, dagster)


@pytest.fixture
def caller(ports: Ports) -> Iterator[TestClient]:
    backend = FastAPI()
    backend.include_router(create_router(ports), prefix="/constellation")

    @backend.get("/own")
    def own() -> dict[str, bool]:
        return {"own": True}

    key, _ = ApiKeys(ports.store.database).create("backend", Role.ADMIN)
    with TestClient(backend, headers={"Authorization": f"Bearer {key}"}) as client:
        yield client


def test_a_mounted_router_answers_beside_the_backends_own_paths(caller: TestClient, ports: Ports) -> None:
    row = ports.store.add(make_card())
    ports.store.remove(row.model_id)
    assert caller.get("/own").json() == {"own": True}
    # What is deleted is known without Dagster.
    answer = caller.get(f"/constellation/docker/models/{row.model_id}/status/")
    assert (answer.status_code, answer.json()["status"]) == (200, "deleted")
    deleted = caller.delete(f"/constellation/docker/models/{row.model_id}/")
    assert deleted.json() == {"message": "Model deployment deleted successfully."}


def test_a_mounted_router_brings_its_errors_and_request_ids(caller: TestClient) -> None:
    answer = caller.post("/constellation/docker/models/", json={}, headers={"X-Request-ID": "mine-1"})
    assert answer.status_code == 422
    assert answer.json()["error"]["request_id"] == answer.headers["X-Request-ID"] == "mine-1"
    assert answer.json()["error"]["code"] == "invalid_request"
    down = caller.get("/constellation/docker/models/?status=failed")
    assert down.status_code == 200  # an empty store needs no answer of Dagster
    unready = caller.get("/constellation/ready")
    assert (unready.status_code, unready.json()["dagster"]) == (503, False)


def test_a_mounted_router_lets_nobody_in_unknown(caller: TestClient) -> None:
    answer = caller.get("/constellation/docker/models/", headers={"Authorization": "Bearer nonsense"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthenticated")


def test_the_schema_of_a_task_tells_inputs_and_outputs(caller: TestClient, ports: Ports) -> None:
    known = ports.store.add(make_card(model_name="acme/known", card={"pipeline_tag": "text-classification"}))
    found = caller.get(f"/constellation/docker/models/{known.model_id}/schema/").json()
    assert (found["task"], found["source"]) == ("text-classification", "task")
    assert found["inputs"]["required"] == ["inputs"]
    assert found["outputs"]["type"] == "array"
    unknown = ports.store.add(make_card(model_name="acme/unknown"))
    found = caller.get(f"/constellation/docker/models/{unknown.model_id}/schema/").json()
    assert (found["source"], found["inputs"], found["outputs"]) == ("unknown", {}, {})
    nowhere = caller.get(f"/constellation/docker/models/{known.model_id}/schema/?environment=dev")
    assert (nowhere.status_code, nowhere.json()["error"]["code"]) == (409, "not_deployed")


def test_an_unexpected_error_tells_nothing_of_the_inside(
    caller: TestClient, ports: Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> None:
        raise RuntimeError("/secret/path and password=hunter2")

    monkeypatch.setattr(ports.store, "look_up", broken)
    answer = caller.get("/constellation/docker/models/0b9b4a64-0000-4000-8000-000000000001/status/")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "unexpected")
    assert "secret" not in answer.text and "hunter2" not in answer.text and "RuntimeError" not in answer.text
