"""What strangers send: the server answers 4xx, stays up, and holds no more memory than its limits say."""

from __future__ import annotations

import json
import select
import socket
import struct
import threading
from collections.abc import Iterator

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from constellation_docker_tests.fixtures.deadline import wait_for
from constellation_docker_tests.fixtures.inference_server import InferenceServer, StartServer, read_response


@pytest.fixture(scope="module")
def client(echo_server: InferenceServer) -> Iterator[httpx.Client]:
    with echo_server.client() as client:
        yield client


@pytest.fixture(scope="module")
def guarded() -> Iterator[InferenceServer]:
    """A server with tight limits."""
    yield from run_server(SERVING_MAX_BODY_BYTES="1000", SERVING_MAX_HEADER_BYTES="4000")


@pytest.fixture(scope="module")
def impatient() -> Iterator[InferenceServer]:
    """A server with short patience."""
    yield from run_server(
        SERVING_READ_TIMEOUT_SECONDS="0.4", SERVING_BODY_TIMEOUT_SECONDS="1", SERVING_KEEP_ALIVE_SECONDS="0.4"
    )


def run_server(**environ: str) -> Iterator[InferenceServer]:
    """A server that must still answer when the tests are through with it."""
    server = InferenceServer(environ=environ).wait_until_ready()
    yield server
    with server.client() as client:
        assert client.post("/", json={"inputs": "still here"}).status_code == 200
    server.close()


def status_of(answer: bytes) -> int:
    """The status of a raw answer, whose body must be one of our errors."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert set(json.loads(body)) == {"error", "error_type"}, answer
    return int(head.split(b" ")[1])


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b'{"inputs": "trunc', "not valid JSON"),
        (b'{"inputs": 1}}', "not valid JSON"),
        (b"inputs=1", "not valid JSON"),
        (b'{"inputs": NaN}', "not valid JSON"),
        (b'{"inputs": -Infinity}', "not valid JSON"),
        (b'{"inputs": 1e999}', "not valid JSON"),
        (b'{"inputs": "\xff\xfe"}', "UTF-8"),
        ('{"inputs": 1}'.encode("utf-16"), "UTF-8"),
        (b'{"inputs": "\\ud800"}', "not valid JSON"),
        (b'{"inputs": ' + b"9" * 100_000 + b"}", "not valid JSON"),
        (b"[" * 100_000, "nested deeper"),
        (b'{"a":' * 80 + b"1" + b"}" * 80, "nested deeper"),
        (b"[]", "must be an object"),
        (b"null", "must be an object"),
    ],
)
def test_a_malformed_body_is_a_400_that_says_what_is_wrong(
    client: httpx.Client, body: bytes, says: str
) -> None:
    response = client.post("/", content=body)
    assert response.status_code == 400
    assert says in response.json()["error"]


def test_a_body_of_empty_lists_is_refused_before_it_fills_the_memory(
    client: httpx.Client, echo_server: InferenceServer
) -> None:
    before = echo_server.resident_bytes()
    response = client.post("/", content=b'{"inputs": [' + b"[]," * 5_000_000 + b"[]]}")
    assert response.status_code == 413
    assert echo_server.resident_bytes() - before < 100_000_000


def test_a_million_characters_pass_through(client: httpx.Client) -> None:
    text = "ü[{" * 333_333
    assert client.post("/", json={"inputs": text}).json()["echo"] == text


def test_a_body_past_the_limit_is_refused_by_its_length_alone(guarded: InferenceServer) -> None:
    head = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 999999999999999999\r\n\r\n"
    assert status_of(guarded.send_raw(head)) == 413


def test_a_chunked_body_past_the_limit_is_refused_while_it_arrives(guarded: InferenceServer) -> None:
    chunk = b"190\r\n" + b"x" * 400 + b"\r\n"
    data = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" + chunk * 4
    assert status_of(guarded.send_raw(data)) == 413


def test_a_client_that_sends_on_after_a_refusal_still_reads_why(guarded: InferenceServer) -> None:
    with guarded.client() as client:
        assert client.post("/", content=b"x" * 30_000_000).status_code == 413


def test_a_client_that_expects_100_is_told_whether_to_send(guarded: InferenceServer) -> None:
    head = b"POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: %d\r\n\r\n"
    with guarded.connect() as connection:
        connection.sendall(head % 13)
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b'{"inputs": 1}')
        assert read_response(connection).startswith(b"HTTP/1.1 200")
    assert status_of(guarded.send_raw(head % 5000)) == 413


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nhost: x\r\n" + b"x-filler: %b\r\n" % (b"y" * 100) * 60 + b"\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nx-one: " + b"y" * 8000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nx-endless: " + b"y" * 100_000,
        b"GET /" + b"y" * 100_000,
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nx-trailer: "
        + b"y" * 300_000,
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1;extension=" + b"y" * 300_000,
    ],
)
def test_headers_past_the_limit_are_refused(guarded: InferenceServer, data: bytes) -> None:
    assert status_of(guarded.send_raw(data)) == 431


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nx: a\x00b\r\n\r\n",
    ],
)
def test_what_is_not_http_is_a_400(guarded: InferenceServer, data: bytes) -> None:
    assert status_of(guarded.send_raw(data)) == 400


def test_an_offer_to_upgrade_is_not_taken_up(guarded: InferenceServer) -> None:
    offer = b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n"
    body = b'{"inputs": "java"}'
    head = b"POST / HTTP/1.1\r\nhost: x\r\n%bcontent-length: %d\r\n\r\n" % (offer, len(body))
    assert b'"echo":"java"' in guarded.send_raw(head + body)
    assert guarded.send_raw(b"GET /live HTTP/1.1\r\nhost: x\r\n%b\r\n" % offer).startswith(b"HTTP/1.1 200")


def test_an_offer_to_upgrade_may_come_in_pieces_and_be_followed_by_another_request(
    guarded: InferenceServer,
) -> None:
    body = b'{"inputs": "in pieces"}'
    data = (
        b"POST / HTTP/1.1\r\nhost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\ncontent-length: %d\r\n\r\n"
        % len(body)
    )
    with guarded.connect() as connection:
        for byte in data + body:
            connection.sendall(bytes([byte]))
        assert b'"echo":"in pieces"' in read_response(connection)
        connection.sendall(b"GET /live HTTP/1.1\r\nhost: x\r\n\r\n")
        assert read_response(connection).startswith(b"HTTP/1.1 200")
    assert status_of(guarded.send_raw(b"CONNECT x:443 HTTP/1.1\r\nhost: x\r\n\r\n\x16\x03")) in (
        400,
        404,
        405,
    )


def test_http_1_0_is_answered_and_closed(guarded: InferenceServer) -> None:
    body = b'{"inputs": "x", "stream": true, "parameters": {"pieces": 2}}'
    answer = guarded.send_raw(b"POST / HTTP/1.0\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
    assert b"connection: close" in answer
    assert b"transfer-encoding" not in answer
    assert answer.endswith(b"data: [DONE]\n\n")


def test_a_compressed_body_is_refused(client: httpx.Client) -> None:
    response = client.post("/", content=b"\x1f\x8b", headers={"content-encoding": "gzip"})
    assert response.status_code == 415


@pytest.mark.parametrize(
    "beginning",
    [
        b"P",
        b"POST / HTTP/1.1\r\nhost: x\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n",
        b'POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{"inp',
    ],
)
def test_a_request_that_stalls_is_given_up_with_408(impatient: InferenceServer, beginning: bytes) -> None:
    assert status_of(impatient.send_raw(beginning)) == 408


@pytest.mark.parametrize(
    "beginning", [b"GET /live", b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 999\r\n\r\n"]
)
def test_a_request_that_drips_is_given_up_too(impatient: InferenceServer, beginning: bytes) -> None:
    """Slow loris: each byte is in time, the whole never is."""
    with impatient.connect() as connection:
        connection.sendall(beginning)
        stop = threading.Event()

        def drip() -> None:
            while not stop.wait(0.05):
                try:
                    connection.sendall(b"x")
                except OSError:
                    return

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            answer = read_response(connection)
        finally:
            stop.set()
            dripping.join()
    assert status_of(answer) == 408


@pytest.mark.parametrize("beginning", [b"", b"GET /live HTTP/1.1\r\nhost: x\r\n\r\n"])
def test_an_idle_connection_is_closed(impatient: InferenceServer, beginning: bytes) -> None:
    with impatient.connect() as connection:
        connection.sendall(beginning)
        if beginning:
            assert read_response(connection).startswith(b"HTTP/1.1 200")
        assert connection.recv(100) == b""


def test_slow_clients_hold_up_nobody_else(guarded: InferenceServer) -> None:
    slow = [guarded.connect() for _ in range(100)]
    for connection in slow:
        connection.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
    with guarded.client() as client:
        assert client.post("/", json={"inputs": "quick"}).status_code == 200
    for connection in slow:
        connection.close()


def test_connections_past_the_limit_are_told_so(start_server: StartServer) -> None:
    server = start_server(max_connections=4)
    held = [server.connect() for _ in range(4)]
    with server.client() as client:
        assert client.get("/live").status_code == 503
        held.pop().close()
        wait_for(lambda: client.get("/live").status_code == 200, what="a free place")
    for connection in held:
        connection.close()


def test_the_bodies_of_all_clients_together_are_limited(start_server: StartServer) -> None:
    server = start_server(max_body_bytes=2_000_000, max_buffered_bytes=3_000_000)
    head = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2000000\r\n\r\n"
    with server.connect() as first, server.connect() as second:
        first.sendall(head + b"x" * 1_900_000)
        second.sendall(head + b"x" * 1_900_000)
        refused, _, _ = select.select([first, second], [], [], 20)
        assert [status_of(read_response(connection)) for connection in refused] == [429]
    with server.client() as client:
        wait_for(
            lambda: client.post("/", content=b"x" * 1_900_000).status_code == 400, what="the bytes given back"
        )


def test_a_client_that_resets_in_the_middle_is_no_fault_of_ours(guarded: InferenceServer) -> None:
    for data in (
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{",
        b"POST / HTTP/1.1\r\nhost: x\r\n",
    ):
        connection = guarded.connect()
        connection.sendall(data)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    assert not guarded.errors
    assert not [line for line in guarded.log if line["event"] in ("server_fault", "library")]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=json_values)
def test_any_json_gets_an_answer_of_the_promised_form(client: httpx.Client, document: object) -> None:
    response = client.post("/", content=json.dumps(document).encode())
    assert response.status_code in (200, 400, 413, 422)
    if response.status_code != 200:
        assert set(response.json()) == {"error", "error_type"}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.binary(max_size=200),
    prefix=st.sampled_from(
        [b"", b"GET /", b"POST / HTTP/1.1\r\n", b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n"]
    ),
)
def test_any_bytes_leave_the_server_standing(
    echo_server: InferenceServer, data: bytes, prefix: bytes
) -> None:
    with echo_server.connect() as connection:
        connection.sendall(prefix + data)
        connection.shutdown(socket.SHUT_WR)
        answer = read_response(connection)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 ")
    assert not answer.startswith(b"HTTP/1.1 500")
    assert not echo_server.errors
    assert not echo_server.events("server_fault")
