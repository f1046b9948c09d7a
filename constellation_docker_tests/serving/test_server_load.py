"""Batching, back-pressure, deadlines, and clients that go away."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from constellation_docker_tests.fixtures.deadline import wait_for
from constellation_docker_tests.fixtures.inference_server import InferenceServer, StartServer


class Clients:
    """Sends requests side by side, and can hold the model busy until told."""

    def __init__(self, server: InferenceServer, gate: Path) -> None:
        self.server = server
        self.gate = gate
        self._pool = ThreadPoolExecutor(64)
        self._client = server.client(limits=httpx.Limits(max_connections=64))

    def send(self, inputs: Any = "x", request_id: str = "", **parameters: Any) -> Future[httpx.Response]:
        """Send one request in the background."""
        headers = {"x-request-id": request_id} if request_id else {}
        body = {"inputs": inputs, "parameters": parameters}
        return self._pool.submit(self._client.post, "/", json=body, headers=headers)

    def occupy(self) -> Future[httpx.Response]:
        """Send a request that keeps the model busy until `release`."""
        future = self.send("occupant", wait_for=str(self.gate))
        self.wait_for_in_flight(1)
        self.wait_for_queue(0)
        return future

    def release(self) -> None:
        """Let the occupant finish."""
        self.gate.touch()

    def metric(self, name: str) -> float:
        """One number from /metrics."""
        text = self._client.get("/metrics").text
        return float(next(line.split()[-1] for line in text.splitlines() if line.startswith(name + " ")))

    def wait_for_queue(self, depth: int) -> None:
        """Wait until `depth` calls wait for the model."""
        wait_for(lambda: self.metric("constellation_queue_depth") == depth, what=f"a queue of {depth}")

    def wait_for_in_flight(self, number: int) -> None:
        """Wait until `number` requests are unanswered."""
        wait_for(lambda: self.metric("constellation_in_flight") == number, what=f"{number} in flight")

    def close(self) -> None:
        """End all."""
        self.release()
        self._pool.shutdown()
        self._client.close()


@pytest.fixture
def clients(start_server: StartServer, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Clients]:
    options = getattr(request, "param", {})
    clients = Clients(start_server(**options), tmp_path / "gate")
    yield clients
    clients.close()


def options(**values: Any) -> pytest.MarkDecorator:
    """The server's options for a test."""
    return pytest.mark.parametrize("clients", [values], indirect=True, ids=[""])


def test_calls_gather_while_the_model_is_busy_and_run_together(clients: Clients) -> None:
    occupant = clients.occupy()
    others = [clients.send(number) for number in range(5)]
    clients.wait_for_queue(5)
    clients.release()
    assert occupant.result().json()["batch"] == 1
    assert [other.result().json() for other in others] == [{"echo": n, "batch": 5} for n in range(5)]


@options(max_batch_size=4)
def test_a_batch_holds_no_more_rows_than_the_limit(clients: Clients) -> None:
    clients.occupy()
    singles = [clients.send("x") for _ in range(6)]
    clients.wait_for_queue(6)
    large = clients.send(["row"] * 9)
    clients.wait_for_queue(7)
    clients.release()
    assert sorted(single.result().json()["batch"] for single in singles) == [2, 2, 4, 4, 4, 4]
    assert large.result().json()["batch"] == 1


def test_only_calls_with_equal_keys_run_together(clients: Clients) -> None:
    clients.occupy()
    keyed = [clients.send("x", key=key) for key in ("a", "b", "a", "a")]
    clients.wait_for_queue(4)
    clients.release()
    assert [one.result().json()["batch"] for one in keyed] == [3, 1, 3, 3]


@options(max_batch_wait_ms=10_000)
def test_a_lone_call_never_waits_for_company(clients: Clients) -> None:
    for _ in range(3):
        clients.send("x", request_id="lone").result()
    assert clients.server.wait_for_request("lone")["queue_ms"] < 5_000


@options(max_batch_wait_ms=30_000, max_batch_size=3)
def test_with_a_wait_set_a_batch_fills_while_several_clients_are_active(clients: Clients) -> None:
    clients.occupy()
    first = [clients.send("x") for _ in range(3)]
    clients.wait_for_queue(3)
    clients.release()
    assert [one.result().json()["batch"] for one in first] == [3, 3, 3]
    second = [clients.send("y") for _ in range(3)]
    assert [one.result().json()["batch"] for one in second] == [3, 3, 3]


@pytest.mark.parametrize("fault", ["poison", "raise", "exit", "interrupt", "short", "unserialisable"])
def test_one_bad_call_costs_its_neighbours_nothing(clients: Clients, fault: str) -> None:
    clients.occupy()
    neighbours = [clients.send(number) for number in range(2)]
    clients.wait_for_queue(2)
    bad = clients.send("bad", fail=fault, request_id="the-bad-one")
    clients.wait_for_queue(3)
    neighbours += [clients.send(number) for number in range(2, 4)]
    clients.wait_for_queue(5)
    clients.release()
    assert [one.result().json()["echo"] for one in neighbours] == [0, 1, 2, 3]
    answer = bad.result()
    assert (answer.status_code, answer.json()["error_type"]) == (500, "generation")
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    request_id = answer.headers["x-request-id"]
    clients.server.wait_for_request(request_id)
    faults = [line for line in clients.server.events("model_fault") if request_id in line["request_ids"]]
    assert len(faults) == 1, "the log tells the fault once, under the request's id"


def test_an_error_that_the_model_returns_for_one_call_is_that_calls_answer(clients: Clients) -> None:
    clients.occupy()
    wrong, right = clients.send("x", fail="returned"), clients.send("y")
    clients.wait_for_queue(2)
    clients.release()
    assert wrong.result().status_code == 422
    assert wrong.result().json()["error"] == "this call alone is wrong"
    assert right.result().json() == {"echo": "y", "batch": 2}


@options(max_queue=2)
def test_a_full_queue_answers_429_and_says_when_to_come_back(clients: Clients) -> None:
    clients.occupy()
    waiting = [clients.send("x"), clients.send("y")]
    clients.wait_for_queue(2)
    refused = clients.send("z").result()
    assert (refused.status_code, refused.json()["error_type"]) == (429, "overloaded")
    assert int(refused.headers["retry-after"]) >= 1
    clients.release()
    assert [one.result().status_code for one in waiting] == [200, 200]


@options(request_timeout_seconds=0.5)
def test_a_call_past_its_deadline_is_answered_504_whether_it_runs_or_waits(
    clients: Clients, tmp_path: Path
) -> None:
    began = tmp_path / "began"
    running = clients.send("x", wait_for=str(clients.gate), began_file=str(began))
    wait_for(began.exists, what="the call that blocks the model")
    waiting = clients.send("y")
    for answer in (running.result(), waiting.result()):
        assert (answer.status_code, answer.json()["error_type"]) == (504, "timeout")
    clients.wait_for_queue(0)
    clients.release()
    wait_for(lambda: clients.send("z").result().status_code == 200, what="an answer after the jam")


@options(request_timeout_seconds=0.3)
def test_a_blocking_handler_leaves_health_alone_and_readiness_tells_the_truth(clients: Clients) -> None:
    with clients.server.client() as client:
        clients.send("x", wait_for=str(clients.gate))
        wait_for(lambda: client.get("/ready").status_code == 503, what="not ready while stuck")
        assert client.get("/ready").json()["error_type"] == "stuck"
        assert client.get("/live").status_code == 200
        clients.release()
        wait_for(lambda: client.get("/ready").status_code == 200, what="ready again")


def test_a_client_that_leaves_takes_its_waiting_call_out_of_the_queue(clients: Clients) -> None:
    clients.occupy()
    body = b'{"inputs": "gone"}'
    head = b"POST / HTTP/1.1\r\nhost: x\r\nx-request-id: the-gone-one\r\ncontent-length: %d\r\n\r\n" % len(
        body
    )
    with clients.server.connect() as connection:
        connection.sendall(head + body)
        clients.wait_for_queue(1)
    clients.wait_for_queue(0)
    line = clients.server.wait_for_request("the-gone-one")
    assert (line["status"], line["error_type"]) == (499, "client_disconnected")
    assert clients.metric("constellation_requests_cancelled_total") == 1
    clients.release()


def test_a_client_that_leaves_a_stream_ends_the_generation(clients: Clients, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    parameters = {"pieces": 100_000, "sleep": 0.005, "closed_file": str(closed)}
    with clients.server.client() as client:
        body = {"inputs": "x", "stream": True, "parameters": parameters}
        with client.stream("POST", "/", json=body) as response:
            next(response.iter_lines())
    wait_for(closed.exists, what="the generator's end")
    assert clients.send("next").result().status_code == 200


def test_a_stream_to_a_client_that_does_not_read_is_cut_and_holds_nobody_up(clients: Clients) -> None:
    body = b'{"inputs": "%b", "stream": true, "parameters": {"pieces": 2000}}' % (b"x" * 50_000)
    with clients.server.connect() as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        assert clients.send("next").result().status_code == 200
        clients.wait_for_in_flight(0)
    assert clients.server.resident_bytes() < 150_000_000


def test_pipelined_requests_are_answered_in_their_order(clients: Clients) -> None:
    def request(number: int, path: bytes = b"/") -> bytes:
        body = b'{"inputs": %d}' % number
        return b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (path, len(body)) + body

    burst = request(1) + b"GET /live HTTP/1.1\r\nhost: x\r\n\r\n" + request(2, b"/nope") + request(3)
    with clients.server.connect() as connection:
        connection.sendall(burst + b"GET /live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    markers = [b'"echo":1', b'"status":"ready"', b"not_found", b'"echo":3', b"connection: close"]
    positions = [answer.find(marker) for marker in markers]
    assert positions == sorted(positions)
    assert positions[0] > 0
    assert answer.count(b"HTTP/1.1 ") == 5


def test_many_clients_side_by_side_all_get_their_own_answers(clients: Clients) -> None:
    def ask(start: int) -> None:
        with clients.server.client() as client:
            for number in range(start, start + 50):
                assert client.post("/", json={"inputs": number}).json()["echo"] == number

    threads = [threading.Thread(target=ask, args=(1000 * index,)) for index in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_for(lambda: len(clients.server.events("request")) >= 800, what="a line for every request")
    lines = [line for line in clients.server.events("request") if line["method"] == "POST"]
    assert {line["status"] for line in lines} == {200}


def test_a_client_that_reads_slowly_gets_the_whole_answer_and_one_that_stops_is_cut(
    start_server: StartServer,
) -> None:
    server = start_server(read_timeout_seconds=1.5)
    text = "x" * 12_000_000
    body = b'{"inputs": "%b"}' % text.encode()
    head = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
    with server.connect() as slow, server.connect() as stopped:
        for connection in (slow, stopped):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            connection.sendall(head + body)
        received = pauses = 0
        pause = threading.Event()
        while received < len(text):
            received += len(slow.recv(500_000))
            if received > 1_000_000 * pauses:  # so that the whole takes longer than one may stand still
                pauses += 1
                pause.wait(0.2)
        wait_for(lambda: len(server.events("request")) == 2, what="both in the log")
        drained = 0
        try:
            while piece := stopped.recv(1_000_000):
                drained += len(piece)
        except ConnectionResetError:
            pass
    assert drained < len(text)
