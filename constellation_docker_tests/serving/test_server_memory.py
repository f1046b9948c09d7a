"""Memory stays flat, however many requests came and however they ended."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from constellation_docker_tests.fixtures.inference_server import InferenceServer, StartServer

BATCH = 15
"""Requests sent at once; below the limit of pipelined ones."""


def request(body: bytes) -> bytes:
    return b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


REQUESTS = [
    request(b'{"inputs": "%b"}' % (b"x" * 2000)),
    request(b'{"inputs": 1, "parameters": {"fail": "raise"}}'),
    request(b'{"inputs": 1, "parameters": {"fail": "returned"}}'),
    request(b'{"inputs": 1, "parameters": {"fail": "unserialisable"}}'),
    request(b'{"inputs": 1, "stream": true, "parameters": {"pieces": 2}}'),
    request(b'{"inp'),
    b"GET /ready HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET /nope HTTP/1.1\r\nhost: x\r\n\r\n",
]


TEXTS = [
    request(b'{"inputs": "%b"}' % (b"the movie was great , " * length)) for length in (1, 3, 8, 20, 45, 90)
] + [request(b'{"inputs": ["good", "the film is terrible", "%b"]}' % (b"i love it " * 30))]
"""Of all lengths, past the longest that the model reads too."""


def send(server: InferenceServer, number: int, requests: Sequence[bytes] = REQUESTS) -> None:
    """Send about `number` requests of all kinds, on connections that are renewed now and then."""
    sent = 0
    while sent < number:
        with server.connect() as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for _ in range(60):
                burst = [requests[(sent + offset) % len(requests)] for offset in range(BATCH)]
                connection.sendall(b"".join(burst))
                answers = b""
                while answers.count(b"HTTP/1.1 ") < BATCH or not answers.endswith((b"}", b"]", b"0\r\n\r\n")):
                    answers += connection.recv(262144)
                sent += BATCH
        with server.connect() as connection:
            connection.sendall(REQUESTS[0][:-5])  # and one that goes away in the middle
        del server.lines[1:]


@pytest.mark.parametrize("number", [6_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_memory_is_flat(start_server: StartServer, number: int) -> None:
    server = start_server()
    send(server, max(3_000, number // 10))
    before = server.resident_bytes()
    send(server, number)
    grown = server.resident_bytes() - before
    assert grown < 3_000_000, f"{grown:,} bytes more after {number:,} requests"


@pytest.mark.slow
def test_memory_is_flat_with_a_real_model(
    start_server: StartServer, tiny_model: Callable[[str], Path], tmp_path: Path
) -> None:
    """onnxruntime and the tokenizer keep nothing of a request either, whatever its length."""
    config = tmp_path / "serving.json"
    document = {
        "task": "text-classification",
        "runtime": "onnx",
        "model_path": str(tiny_model("classifier")),
    }
    config.write_text(json.dumps(document))
    server = start_server(
        "constellation_docker.serving", environ={"CONSTELLATION_SERVING_CONFIG": str(config)}
    )
    send(server, 10_000, TEXTS)
    before = server.resident_bytes()
    send(server, 100_000, TEXTS)
    grown = server.resident_bytes() - before
    assert grown < 5_000_000, f"{grown:,} bytes more after 100,000 requests"
