"""Logs and changes of status as they come, and metrics: a real gateway, webserver and engine."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import uuid
from collections.abc import Iterator
from typing import Any, Self

import httpx
import pytest

from constellation_docker.compose import labels
from constellation_docker.engine import Engine
from constellation_docker_tests.cards.conftest import make_publication
from constellation_docker_tests.fixtures.gateway import QueuedDagster, RunningGateway, running_gateway
from constellation_docker_tests.gateway.test_contract import register, unused_name


@pytest.fixture
def caller(gateway: RunningGateway) -> Iterator[httpx.Client]:
    with gateway.client("admin") as client:
        yield client


class Listener:
    """Reads events in a thread until it is closed."""

    def __init__(self, gateway: RunningGateway, **headers: str) -> None:
        self.events: list[dict[str, Any]] = []
        self._client = gateway.client("viewer")
        self._began = threading.Event()
        self._came = threading.Condition()
        self._thread = threading.Thread(target=self._read, args=(headers,), daemon=True)
        self._thread.start()
        assert self._began.wait(30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Ends the thread's blocked read, as a caller's going does.
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(timeout=60)
        self._client.close()

    def _read(self, headers: dict[str, str]) -> None:
        with (
            contextlib.suppress(httpx.TransportError),
            self._client.stream("GET", "/docker/events/", headers=headers, timeout=120) as answer,
        ):
            assert answer.status_code == 200
            self._socket: socket.socket = answer.extensions["network_stream"].get_extra_info("socket")
            self._began.set()
            self._read_events(answer)

    def _read_events(self, answer: httpx.Response) -> None:
        event: dict[str, Any] = {}
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            if name in {"id", "event", "data"}:
                event[name] = value
            if not line and "data" in event:
                with self._came:
                    self.events.append(event | {"data": json.loads(event["data"])})
                    self._came.notify_all()
                event = {}

    def wait_for(self, model_id: str, status: str) -> dict[str, Any]:
        def found() -> list[dict[str, Any]]:
            return [
                event
                for event in self.events
                if (event["data"]["model_id"], event["data"]["status"]) == (model_id, status)
            ]

        with self._came:
            assert self._came.wait_for(found, timeout=60), self.events
        return found()[0]


def test_changes_of_status_are_told_as_they_happen_and_again_to_whoever_comes_back(
    caller: httpx.Client, gateway: RunningGateway, queued: QueuedDagster
) -> None:
    with Listener(gateway) as listener:
        model_id = register(caller, unused_name())
        pending = listener.wait_for(model_id, "pending")
        assert pending["event"] == "status"
        caller.post(f"/docker/models/{model_id}/cancel/", json={})
        failed = listener.wait_for(model_id, "failed")
        assert failed["data"]["last_error"] == "The run was cancelled."
    with Listener(gateway, **{"Last-Event-ID": pending["id"]}) as again:
        assert again.wait_for(model_id, "failed")["data"] == failed["data"]


def test_an_event_id_that_no_event_had_is_refused(caller: httpx.Client) -> None:
    answer = caller.get("/docker/events/", headers={"Last-Event-ID": "nonsense"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_event_id")


def test_no_more_streams_are_open_than_may_be(queued: QueuedDagster) -> None:
    known = queued.settings.gateway.model_copy(update={"max_streams": 1})
    settings = queued.settings.model_copy(update={"gateway": known})
    with (
        running_gateway(settings) as served,
        served.client("viewer") as caller,
        caller.stream("GET", "/docker/events/") as first,
    ):
        assert first.status_code == 200
        second = caller.get("/docker/events/")
        assert (second.status_code, second.json()["error"]["code"]) == (429, "too_many_streams")


def test_the_log_of_a_packaging_is_told_as_text_and_as_events(caller: httpx.Client) -> None:
    model_id = register(caller, unused_name())
    caller.post(f"/docker/models/{model_id}/cancel/", json={})
    plain = caller.get(f"/docker/models/{model_id}/logs/", params={"follow": True})
    assert plain.headers["Content-Type"].startswith("text/plain")
    assert plain.text.strip()
    events = caller.get(f"/docker/models/{model_id}/logs/", headers={"Accept": "text/event-stream"})
    assert events.headers["Content-Type"].startswith("text/event-stream")
    told = [line.removeprefix("data: ") for line in events.text.splitlines() if line.startswith("data: ")]
    assert told == plain.text.splitlines()


@pytest.mark.parametrize("accept", ["text/plain", "text/event-stream"])
def test_who_follows_does_not_hold_a_stopping_gateway(queued: QueuedDagster, accept: str) -> None:
    # So long a grace that only an end of the gateway's own making is in time.
    known = queued.settings.gateway.model_copy(update={"shutdown_grace_seconds": 3600})
    settings = queued.settings.model_copy(update={"gateway": known})
    with contextlib.ExitStack() as followed, running_gateway(settings) as served:
        caller = followed.enter_context(served.client("admin"))
        model_id = register(caller, unused_name())  # its run waits for ever
        log = followed.enter_context(
            caller.stream(
                "GET",
                f"/docker/models/{model_id}/logs/",
                params={"follow": True},
                headers={"Accept": accept},
            )
        )
        lines = log.iter_lines()
        first = next(lines)
        events = followed.enter_context(caller.stream("GET", "/docker/events/"))
        assert events.status_code == 200
        served.stop()
        told = [first, *lines]
        assert "The log ends here: ServerStopping. Ask again in a moment." in "\n".join(told)
        events.read()
        served.wait_until_stopped()


def test_the_replicas_lines_are_told_with_their_names(
    caller: httpx.Client, gateway: RunningGateway, engine: Engine, tiny_image: str
) -> None:
    name = unused_name()
    model_id = register(caller, name)
    with gateway.store() as store:
        store.publish(model_id, make_publication(model_id))
        store.want("dev", name, model_id=model_id)
    config = {
        "Image": tiny_image,
        "Entrypoint": ["/bin/sh", "-c"],
        "Cmd": ["echo loading; echo ready"],
        "Labels": {labels.ENVIRONMENT: "dev", labels.MODEL_ID: model_id},
    }
    with engine.temporary_container(f"constellation-test-{uuid.uuid4().hex[:8]}", config) as container:
        engine.start(container)
        engine.wait(container)
        where = f"/docker/models/{model_id}/logs/"
        found = caller.get(where, params={"source": "containers", "environment": "dev"}).text.splitlines()
        assert [line.partition(" | ")[2] for line in found] == ["loading", "ready"]
        assert all(line.startswith("dev constellation-test-") for line in found)
        last = caller.get(where, params={"source": "containers", "tail": 1}).text.splitlines()
        assert [line.partition(" | ")[2] for line in last] == ["ready"]


def test_metrics_are_counted_by_route_and_not_by_path(caller: httpx.Client) -> None:
    model_id = uuid.uuid4()
    caller.get(f"/docker/models/{model_id}/status/")
    text = caller.get("/metrics").text
    counted = 'constellation_gateway_requests_total{method="GET",route="/docker/models/{model_id}/status/",status="404"}'
    assert counted in text
    assert str(model_id) not in text
