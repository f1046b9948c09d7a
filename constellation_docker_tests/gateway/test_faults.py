"""Dagster down, slow, trickling, or answering into the void: bounded, honest, and never doubled."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from constellation_docker_tests.cards.conftest import make_card, make_publication
from constellation_docker_tests.fixtures.gateway import QueuedDagster, RunningGateway, running_gateway
from constellation_docker_tests.fixtures.ports import free_port
from constellation_docker_tests.gateway.test_contract import registration, unused_name


class FaultyWebserver:
    """Stands before the real webserver, and does to its answers what `fault` says.

    `none` passes on; `hang` says nothing; `trickle` sends one byte at a time and never ends; `lose` lets the
    webserver launch and cuts the connection before the answer; `late` launches only after the caller has gone.
    """

    def __init__(self, behind: str) -> None:
        self.fault = "none"
        self.asked = 0
        self.was_released = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.asked += 1
                body = self.rfile.read(int(self.headers["Content-Length"]))
                is_launch = b"launchRun" in body

                def ask() -> httpx.Response:
                    where = f"{behind}{self.path.removeprefix('/ui')}"
                    return httpx.post(
                        where, content=body, headers={"Content-Type": "application/json"}, timeout=60
                    )

                if outer.fault == "hang":
                    outer.was_released.wait(60)
                elif outer.fault == "trickle":
                    self._trickle()
                elif outer.fault == "lose" and is_launch:
                    ask()
                elif outer.fault == "late" and is_launch:
                    outer.was_released.wait(60)
                    ask()
                else:
                    answer = ask()
                    self.send_response(answer.status_code)
                    self.send_header("Content-Length", str(len(answer.content)))
                    self.end_headers()
                    self.wfile.write(answer.content)
                    return
                self.close_connection = True

            def _trickle(self) -> None:
                self.send_response(200)
                self.end_headers()
                try:
                    while not outer.was_released.wait(0.05):
                        self.wfile.write(b" ")
                except OSError:
                    return

            def log_message(self, *_: Any) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/ui"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.was_released.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def faulty(queued: QueuedDagster) -> Iterator[FaultyWebserver]:
    webserver = FaultyWebserver(queued.dagster.url)
    yield webserver
    webserver.close()


@contextmanager
def gateway_before(
    queued: QueuedDagster, url: str, seconds: float
) -> Iterator[tuple[RunningGateway, httpx.Client]]:
    """A gateway that knows the webserver under another address, and waits no longer than so many seconds."""
    known = queued.settings.gateway.model_copy(
        update={
            "webserver_url": url,
            "webserver_timeout_seconds": seconds,
            "launch_deadline_seconds": seconds * 4,
        }
    )
    settings = queued.settings.model_copy(update={"gateway": known})
    with running_gateway(settings) as served, served.client("admin") as client:
        yield served, client


def assert_unavailable(answer: httpx.Response) -> None:
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["Retry-After"]) > 0
    text = answer.text
    assert "127.0.0.1" not in text and "Traceback" not in text and "/work" not in text


def test_with_dagster_down_every_call_answers_503_at_once_and_a_retry_is_the_same_call(
    queued: QueuedDagster,
) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}/ui"
    body = registration(unused_name())
    with gateway_before(queued, nowhere, 2) as (_, caller):
        assert_unavailable(caller.post("/docker/models/", json=body))
        assert_unavailable(caller.post("/docker/images/pull/", json={"repository": "registry.example/x"}))
        assert_unavailable(caller.get("/docker/models/", params={"limit": 1, "name": body["model_name"]}))
        assert caller.get("/ready").status_code == 503
        assert caller.get("/health").status_code == 200
    with gateway_before(queued, queued.dagster.url, 30) as (_, caller):
        answer = caller.post("/docker/models/", json=body)
        assert answer.status_code == 202, answer.text
    assert len(queued.client.runs({"constellation/model": body["model_name"]})) == 1


@pytest.mark.parametrize("fault", ["hang", "trickle"])
def test_a_webserver_that_never_ends_its_answer_costs_a_bounded_time(
    queued: QueuedDagster, faulty: FaultyWebserver, fault: str
) -> None:
    faulty.fault = fault
    with gateway_before(queued, faulty.url, 0.5) as (_, caller):
        began = time.monotonic()
        assert_unavailable(caller.get("/docker/models/", params={"limit": 1}))
        assert_unavailable(caller.post("/docker/models/", json=registration(unused_name())))
        # Far above what is allowed (a few times half a second), and far below for ever.
        assert time.monotonic() - began < 30


def test_a_launch_whose_answer_was_lost_is_found_and_not_doubled(
    queued: QueuedDagster, faulty: FaultyWebserver
) -> None:
    faulty.fault = "lose"
    body = registration(unused_name())
    with gateway_before(queued, faulty.url, 30) as (_, caller):
        first = caller.post("/docker/models/", json=body)
        assert first.status_code == 202, first.text
        faulty.fault = "none"
        assert caller.post("/docker/models/", json=body).json() == first.json()
    (run,) = queued.client.runs({"constellation/model": body["model_name"]})
    assert run.run_id == first.json()["run"]["run_id"]


def test_a_launch_that_the_webserver_makes_after_its_caller_has_gone_is_not_doubled(
    queued: QueuedDagster, faulty: FaultyWebserver
) -> None:
    """The guard stays while the launch is in doubt, so that no second one is sent meanwhile."""
    faulty.fault = "late"
    body = registration(unused_name())
    with gateway_before(queued, faulty.url, 3) as (_, caller):
        assert_unavailable(caller.post("/docker/models/", json=body))
        faulty.fault = "none"
        faulty.was_released.set()
        second = caller.post("/docker/models/", json=body)
        assert second.status_code == 202, second.text
    runs = queued.client.runs({"constellation/model": body["model_name"]})
    assert [run.run_id for run in runs] == [second.json()["run"]["run_id"]]


def test_two_gateways_on_one_store_start_one_run(queued: QueuedDagster) -> None:
    body = registration(unused_name())
    answers: list[httpx.Response] = []
    with (
        gateway_before(queued, queued.dagster.url, 30) as (_, one),
        gateway_before(queued, queued.dagster.url, 30) as (_, other),
    ):
        threads = [
            threading.Thread(target=lambda c=caller: answers.append(c.post("/docker/models/", json=body)))
            for caller in (one, other, one, other)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [answer.status_code for answer in answers] == [202] * 4, [answer.text for answer in answers]
    assert len({answer.json()["run"]["run_id"] for answer in answers}) == 1
    assert len(queued.client.runs({"constellation/model": body["model_name"]})) == 1


def test_a_page_of_models_costs_at_most_two_questions_to_dagster(
    queued: QueuedDagster, faulty: FaultyWebserver
) -> None:
    prefix = uuid.uuid4().hex[:10]
    with gateway_before(queued, faulty.url, 30) as (served, caller):
        with served.store() as store:
            for number in range(20):
                row = store.add(make_card(model_name=f"{prefix}/m{number}"))
                if number % 2:
                    store.publish(row.model_id, make_publication(row.model_id))
                    store.want("dev", row.card.model_name, model_id=row.model_id)
        faulty.asked = 0
        answer = caller.get("/docker/models/", params={"search": prefix})
        assert len(answer.json()["models"]) == 20
        assert faulty.asked <= 2
        faulty.asked = 0
        assert len(caller.get("/docker/models/", params={"name": f"{prefix}/m2"}).json()["models"]) == 1
        assert faulty.asked == 1
