"""Start, stop and the signals in between, on a real process."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from constellation_docker.serving import probe
from constellation_docker.serving.application import SETTLE_SECONDS
from constellation_docker_tests.fixtures.deadline import wait_for
from constellation_docker_tests.fixtures.inference_server import InferenceServer, StartServer, read_response

PROBE = Path(probe.__file__)


def run_probe(port: int) -> subprocess.CompletedProcess[str]:
    """As the image's HEALTHCHECK runs it."""
    return subprocess.run(
        [sys.executable, "-S", "-E", str(PROBE)],
        env={"SERVING_PORT": str(port)},
        capture_output=True,
        text=True,
        check=False,
    )


def request(body: dict[str, Any], extra: bytes = b"") -> bytes:
    """A request as bytes."""
    content = json.dumps(body).encode()
    return b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n%b\r\n%b" % (len(content), extra, content)


def test_the_server_lives_while_it_loads_and_is_ready_only_after(
    start_server: StartServer, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    server = start_server(environ={"ECHO_LOAD": str(gate)}, is_awaited=False)
    with server.client() as client:
        assert client.get("/live").json() == {"status": "loading"}
        for path in ("/ready", "/health"):
            assert (client.get(path).status_code, client.get(path).json()["error_type"]) == (503, "loading")
        refused = client.post("/", json={"inputs": "x"})
        assert (refused.status_code, refused.json()["error_type"]) == (503, "loading")
        assert int(refused.headers["retry-after"]) >= 1
        assert client.get("/info").json()["state"] == "loading"
        assert "constellation_ready 0" in client.get("/metrics").text
        assert client.get("/openapi.json").status_code == 200
        assert run_probe(server.port).returncode == 1
        gate.touch()
        server.wait_until_ready()
        assert client.get("/ready").status_code == 200
        assert client.post("/", json={"inputs": "x"}).status_code == 200
        assert "post" in client.get("/openapi.json").json()["paths"]["/"]
        assert run_probe(server.port).returncode == 0


def test_the_probe_fails_where_nothing_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        result = run_probe(unused.getsockname()[1])
    assert result.returncode == 1
    assert "no answer" in result.stderr


@pytest.mark.parametrize(
    ("instruction", "message"),
    [
        ("fail", "the model echo cannot be loaded: model.onnx is missing"),
        ("raise", "the model echo cannot be loaded: RuntimeError: an unforeseen fault"),
        ("exit", "the model echo cannot be loaded: SystemExit: 5"),
    ],
)
def test_a_failed_load_ends_with_one_sentence_and_a_code(
    start_server: StartServer, instruction: str, message: str
) -> None:
    server = start_server(environ={"ECHO_LOAD": instruction}, is_awaited=False)
    assert server.wait() == 1
    assert server.events("load_failed")[0]["message"] == message


def test_a_wrong_configuration_ends_with_one_sentence_and_a_code(
    start_server: StartServer, tmp_path: Path
) -> None:
    missing = tmp_path / "serving.json"
    server = start_server(
        "constellation_docker.serving",
        environ={"CONSTELLATION_SERVING_CONFIG": str(missing)},
        is_awaited=False,
    )
    assert server.wait() == 2
    assert str(missing) in server.events("invalid_configuration")[0]["message"]


def test_a_port_in_use_ends_with_one_sentence_and_a_code(start_server: StartServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = start_server(is_awaited=False, port=taken.getsockname()[1])
        assert server.wait() == 3
    assert "SERVING_PORT" in server.events("cannot_listen")[0]["message"]


def test_an_idle_server_stops_at_once_with_exit_code_0(start_server: StartServer) -> None:
    server = start_server(grace_seconds=600)
    with server.client() as client:
        client.get("/live")  # leaves an idle connection behind, which must not hold the server up
        server.terminate()
        assert server.wait() == 0


def test_a_server_told_to_stop_while_loading_stops_at_once(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(environ={"ECHO_LOAD": str(tmp_path / "never")}, is_awaited=False, grace_seconds=600)
    server.wait_for_event("listening")
    server.terminate()
    assert server.wait() == 0


def is_refused(server: InferenceServer) -> bool:
    """Whether nothing listens any more."""
    try:
        server.connect().close()
    except ConnectionRefusedError:
        return True
    return False


def test_what_is_in_flight_and_queued_is_finished_before_the_end(
    start_server: StartServer, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    server = start_server(max_batch_size=1)
    with server.client(limits=httpx.Limits(max_connections=8)) as client, ThreadPoolExecutor(8) as pool:
        body = {"inputs": "x", "parameters": {"wait_for": str(gate)}}
        futures = [pool.submit(client.post, "/", json=body) for _ in range(4)]
        with server.client() as other:
            wait_for(lambda: "constellation_in_flight 4" in other.get("/metrics").text, what="4 in flight")
            server.terminate()
            wait_for(lambda: other.get("/ready").status_code == 503, what="not ready")
            assert other.get("/ready").json()["error_type"] == "draining"
            assert other.get("/live").status_code == 200
            draining = server.wait_for_event("draining")[0]
            wait_for(
                lambda: time.time() > draining["time"] + 2 * SETTLE_SECONDS, what="the settling time's end"
            )
            # A balancer takes what is refused to another replica; an answer would be the caller's failure.
            wait_for(lambda: is_refused(server), what="new connections refused")
        gate.touch()
        answers = [future.result() for future in futures]
    assert [answer.status_code for answer in answers] == [200] * 4
    assert all(answer.headers["connection"] == "close" for answer in answers)
    assert server.wait() == 0


def test_requests_already_sent_when_the_signal_comes_are_answered(start_server: StartServer) -> None:
    server = start_server()
    connections = [server.connect() for _ in range(16)]
    server.process.send_signal(signal.SIGSTOP)  # so that the requests lie unread in the kernel's buffers
    for number, connection in enumerate(connections):
        connection.sendall(request({"inputs": number}))
    unaccepted = server.connect()
    unaccepted.sendall(request({"inputs": "unaccepted"}))
    server.terminate()
    server.process.send_signal(signal.SIGCONT)
    answers = [read_response(connection) for connection in (*connections, unaccepted)]
    for connection in (*connections, unaccepted):
        connection.close()
    assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers)
    assert server.wait() == 0


def test_a_body_that_is_still_arriving_is_waited_for(start_server: StartServer) -> None:
    server = start_server()
    data = request({"inputs": "half"})
    with server.connect() as connection:
        connection.sendall(data[:-5])
        with server.client() as client:
            client.get("/live")
        server.terminate()
        server.wait_for_event("draining")
        connection.sendall(data[-5:])
        assert read_response(connection).startswith(b"HTTP/1.1 200")
    assert server.wait() == 0


def test_the_grace_period_ends_the_wait(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(grace_seconds=0.3)
    with server.connect() as connection:
        connection.sendall(request({"inputs": "x", "parameters": {"wait_for": str(tmp_path / "never")}}))
        with server.client() as client:
            wait_for(lambda: "constellation_in_flight 1" in client.get("/metrics").text, what="1 in flight")
        server.terminate()
        answer = read_response(connection)
    assert answer.startswith(b"HTTP/1.1 503")
    assert server.wait() == 0
    assert server.events("grace_over")[0]["in_flight"] == 1


def test_a_second_signal_ends_at_once(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(grace_seconds=600)
    with server.connect() as connection:
        connection.sendall(request({"inputs": "x", "parameters": {"wait_for": str(tmp_path / "never")}}))
        with server.client() as client:
            wait_for(lambda: "constellation_in_flight 1" in client.get("/metrics").text, what="1 in flight")
        server.terminate()
        server.wait_for_event("draining")
        server.terminate()
        assert server.wait() == 128 + signal.SIGTERM


def stop_under_load(server: InferenceServer, gate: Path) -> list[int]:
    """Stop with 32 requests in flight; every client's status."""
    with server.client(limits=httpx.Limits(max_connections=32)) as client, ThreadPoolExecutor(32) as pool:
        body = {"inputs": "x", "parameters": {"wait_for": str(gate)}}
        futures = [pool.submit(client.post, "/", json=body) for _ in range(32)]
        with server.client() as other:
            wait_for(lambda: "constellation_in_flight 32" in other.get("/metrics").text, what="32 in flight")
        server.terminate()
        server.wait_for_event("draining")
        gate.touch()
        return [future.result().status_code for future in futures]


def test_ten_stops_with_32_requests_in_flight_fail_none(start_server: StartServer, tmp_path: Path) -> None:
    for number in range(10):
        server = start_server()
        assert stop_under_load(server, tmp_path / str(number)) == [200] * 32
        assert server.wait() == 0


def test_the_image_starts_as_a_package_of_another_name(tmp_path: Path) -> None:
    """In images the same files lie as `constellation_serving`; nothing may name the package it lies in here."""
    (tmp_path / "constellation_serving").symlink_to(PROBE.parent)
    environ = {**os.environ, "PYTHONPATH": str(tmp_path), "CONSTELLATION_SERVING_CONFIG": "/nonexistent"}
    result = subprocess.run(
        [sys.executable, "-m", "constellation_serving"],
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2, result.stderr
    assert json.loads(result.stdout)["event"] == "invalid_configuration"


def test_starting_imports_nothing_heavy() -> None:
    code = "import sys, constellation_docker.serving.server; print('\\n'.join(sys.modules))"
    # a process of its own: here the tests have imported everything already
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in result.stdout.split()}
    heavy = {
        "numpy",
        "onnxruntime",
        "torch",
        "transformers",
        "pydantic",
        "uvicorn",
        "starlette",
        "tokenizers",
    }
    assert not heavy & loaded
