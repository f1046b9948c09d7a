"""Speaking to a container that has no network.

A second container, of the base image, shares its network namespace and passes bytes between the engine's
`exec` and the container's port. So there is no route in or out for the code under test, and it works the
same with an engine on another machine and with images that hold nothing but their own server.
"""

from __future__ import annotations

import contextlib
import io
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse, IncompleteRead
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from constellation_docker.engine import Engine
from constellation_docker.errors import ConstellationError

RELAY_TEXT = Path(__file__).with_name("relay_program.py").read_text(encoding="utf-8")
_HOP_HEADERS = frozenset(
    {"connection", "keep-alive", "transfer-encoding", "host", "expect", "content-length"}
)
_MOST_REQUEST_BYTES = 256 * 1024 * 1024


class NoAnswer(ConstellationError):
    """Nothing came back from the container: refused, reset or too slow."""

    code = "no_answer"


@dataclass(frozen=True)
class Answer:
    """An HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Relay:
    """A way into one container.

    Attributes:
        engine: Where both containers are.
        container: The container whose network is shared with the one under test.
        python: Path of its Python.
        port: Port of the server under test.
        timeout_seconds: Longest for one exchange.
    """

    engine: Engine
    container: str
    python: str
    port: int
    timeout_seconds: float

    def exchange(self, request: bytes, *, timeout_seconds: float | None = None) -> bytes:
        """Send the bytes of one HTTP request, with `Connection: close`, and take all bytes that come back.

        Raises:
            NoAnswer: None came.
        """
        limit = timeout_seconds or self.timeout_seconds
        result = self.engine.execute(
            self.container,
            [self.python, "-I", "-S", "-c", RELAY_TEXT, "exchange", str(self.port), str(limit)],
            stdin=request,
            timeout_seconds=limit + 30,
        )
        if result.exit_code or not result.stdout:
            said = (
                result.stderr.decode("utf-8", "replace").strip()
                or "the connection was closed without an answer"
            )
            raise NoAnswer(f"The server did not answer: {said[-300:]}.", remedy="See the container's log.")
        return result.stdout

    def ask(self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b"") -> Answer:
        """One HTTP request.

        Raises:
            NoAnswer: None came, or what came is not HTTP.
        """
        return parse_answer(self.exchange(render_request(method, path, headers or {}, body)))

    def wait_ready(self, path: str, *, timeout_seconds: float) -> tuple[int, str]:
        """Ask for `path` until the answer is 2xx or the time is over.

        Returns:
            The last status (0: no connection) and what was said.
        """
        result = self.engine.execute(
            self.container,
            [
                self.python,
                "-I",
                "-S",
                "-c",
                RELAY_TEXT,
                "wait",
                str(self.port),
                path,
                f"{timeout_seconds:.2f}",
            ],
            timeout_seconds=timeout_seconds + 30,
        )
        if result.exit_code:
            return 0, result.stderr.decode("utf-8", "replace")[-300:]
        told: dict[str, Any] = json.loads(result.stdout)
        return int(told["status"]), str(told["said"])

    @contextlib.contextmanager
    def listening(self) -> Iterator[str]:
        """A loopback address on this machine whose every request goes to the container.

        Yields:
            `http://127.0.0.1:port`.
        """
        relay = self

        class Handler(_RelayHandler):
            way = relay

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            server.daemon_threads = True
            thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
            thread.start()
            try:
                yield f"http://127.0.0.1:{server.server_address[1]}"
            finally:
                server.shutdown()
                thread.join()


class _RelayHandler(BaseHTTPRequestHandler):
    """Takes one request, passes it on whole, and gives the answer back whole."""

    way: Relay
    protocol_version = "HTTP/1.1"

    def _pass_on(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if length > _MOST_REQUEST_BYTES:
            self.send_error(413)
            return
        body = self.rfile.read(length)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_HEADERS}
        try:
            answer = self.way.ask(self.command, self.path, headers, body)
        except ConstellationError as error:
            # Neither the client nor this server knows what it means; the check that asked does, by this status.
            self._reply(502, {"Content-Type": "text/plain"}, error.message.encode())
            return
        self._reply(answer.status, answer.headers, answer.body)

    do_GET = do_POST = do_PUT = do_HEAD = _pass_on  # noqa: N815 - the names that http.server calls

    def _reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in _HOP_HEADERS:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the check keeps what was sent and received."""


def render_request(method: str, path: str, headers: dict[str, str], body: bytes) -> bytes:
    """An HTTP/1.1 request as bytes, for one exchange."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body or method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace") + body


def parse_answer(answer: bytes) -> Answer:
    """An HTTP/1.1 answer that ended with the connection.

    Raises:
        NoAnswer: It is not HTTP, or broke off in the middle.
    """
    response = HTTPResponse(_Recorded(answer))  # type: ignore[arg-type]  # it only calls makefile
    try:
        response.begin()
        body = response.read()
    except IncompleteRead as error:
        raise NoAnswer(
            f"The server broke off its answer after {len(error.partial)} bytes.",
            remedy="See the container's log.",
        ) from error
    except (HTTPException, ValueError) as error:
        raise NoAnswer(
            f"What the server answered is not HTTP: {answer[:80]!r}.", remedy="See the container's log."
        ) from error
    return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, body)


class _Recorded:
    """The bytes of an answer, in the place of the socket that they came from."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._answer)
