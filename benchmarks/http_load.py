"""A closed loop of keep-alive clients, lean enough that the server is what is measured."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LoadResult:
    """What a load came to.

    Attributes:
        requests_per_second: Answered with 200.
        median_ms: Of one request.
        p99_ms: The same, 99 of 100 are below.
        failures: Answers that were not 200, and connections that broke.
    """

    requests_per_second: float
    median_ms: float
    p99_ms: float
    failures: int


class _Client(asyncio.Protocol):
    def __init__(self, load: _Load, number: int) -> None:
        self._load = load
        self._number = number
        self._buffer = b""
        self._sent_at = 0.0
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._send()

    def _send(self) -> None:
        self._number += 1
        self._sent_at = time.perf_counter()
        self._transport.write(self._load.requests[self._number % len(self._load.requests)])

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        position = head.lower().find(b"content-length: ")
        if len(body) < int(head[position + 16 :].split(b"\r", 1)[0]):
            return
        now = time.perf_counter()
        if b" 200 " in head[:16]:
            self._load.seconds.append(now - self._sent_at)
        else:
            self._load.failures += 1
        self._buffer = b""
        if now < self._load.ends_at:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if time.perf_counter() < self._load.ends_at:
            self._load.failures += 1
        self._load.open_clients -= 1
        if self._load.open_clients == 0:
            self._load.done.set()


class _Load:
    def __init__(self, requests: list[bytes], seconds: float) -> None:
        self.requests = requests
        self.seconds: list[float] = []
        self.failures = 0
        self.open_clients = 0
        self.done = asyncio.Event()
        self.ends_at = time.perf_counter() + seconds


def render_request(path: str, body: Any) -> bytes:
    """One POST as bytes."""
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    return head.encode() + b"content-length: %d\r\n\r\n" % len(content) + content


def render_question(path: str, headers: Mapping[str, str]) -> bytes:
    """One GET as bytes."""
    lines = [
        f"GET {path} HTTP/1.1",
        "host: localhost",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def apply_load(
    port: int, path: str, texts: list[str], *, make_body: Callable[[str], Any], clients: int, seconds: float
) -> LoadResult:
    """Have `clients` clients ask one after the other for `seconds`, and measure."""
    requests = [render_request(path, make_body(text)) for text in texts]
    return apply_requests(port, requests, clients=clients, seconds=seconds)


def apply_requests(port: int, requests: list[bytes], *, clients: int, seconds: float) -> LoadResult:
    """Have `clients` clients send these requests one after the other for `seconds`, and measure."""

    async def run() -> LoadResult:
        load = _Load(requests, seconds)
        loop = asyncio.get_running_loop()
        began = time.perf_counter()
        load.open_clients = clients
        for number in range(clients):
            await loop.create_connection(lambda number=number: _Client(load, number), "127.0.0.1", port)
        await load.done.wait()
        elapsed = time.perf_counter() - began
        times = sorted(load.seconds) or [float("nan")]
        return LoadResult(
            len(load.seconds) / elapsed,
            1000 * times[len(times) // 2],
            1000 * times[int(len(times) * 0.99)],
            load.failures,
        )

    return asyncio.run(run())
