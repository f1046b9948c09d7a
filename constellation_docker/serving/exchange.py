"""One request and its response, as the routes see them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Protocol

from .model import ServingError
from .strict_json import render_json

JSON = "application/json"
_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}


class Carrier(Protocol):
    """What an exchange asks of the connection that carries it."""

    @property
    def is_closing(self) -> bool:
        """Whether the connection ends after the answer it is at."""
        ...

    def send(self, exchange: Exchange, data: bytes) -> None:
        """Send a part of the response."""
        ...

    def complete(self, exchange: Exchange) -> None:
        """The response is whole."""
        ...


@dataclass(slots=True, eq=False)
class Exchange:
    """One request and its response.

    Attributes:
        status: 0 until the response has begun.
        on_disconnect: Called once when the client goes away before the response is complete.
    """

    connection: Carrier
    method: str = ""
    target: bytes = b""
    path: str = ""
    query: bytes = b""
    headers: dict[bytes, bytes] = field(default_factory=dict)
    head_bytes: int = 0
    body: list[bytes] = field(default_factory=list)
    body_bytes: int = 0
    request_id: str = ""
    received_at: float = 0.0
    received_piece_at: float = 0.0
    status: int = 0
    sent_bytes: int = 0
    answered_at: float = 0.0
    error_type: str = ""
    keep_alive: bool = True
    version: str = "1.1"
    is_streaming: bool = False
    is_over: bool = False
    rejection: ServingError | None = None
    on_disconnect: Callable[[], None] | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def header(self, name: bytes) -> str | None:
        """A header's value by its lower-case name."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")

    def render_without_upgrade(self) -> bytes:
        """The request's head as bytes, without its offer to switch protocols."""
        left_out = (b"upgrade", b"connection", b"http2-settings")
        lines = [b"%b %b HTTP/%b" % (self.method.encode(), self.target, self.version.encode())]
        lines += [b"%b: %b" % item for item in self.headers.items() if item[0] not in left_out]
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def take_body(self) -> bytes:
        """The body; it is forgotten here, so that it lives no longer than its call."""
        body = self.body[0] if len(self.body) == 1 else b"".join(self.body)
        self.body.clear()
        return body

    def respond(
        self, status: int, body: bytes, content_type: str = JSON, headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        """Send the whole response."""
        head = self._begin(status, content_type, headers, len(body))
        if self.method != "HEAD":
            self.sent_bytes = len(body)
            head += body
        self.connection.send(self, head)
        self.connection.complete(self)

    def start_stream(self, content_type: str) -> None:
        """Send the head of a response whose length is not known."""
        self.is_streaming = True
        self.connection.send(self, self._begin(200, content_type, (("cache-control", "no-cache"),), None))

    def send_piece(self, piece: bytes) -> None:
        """Send a part of a streamed response."""
        self.sent_bytes += len(piece)
        if self.version == "1.1":
            piece = b"%x\r\n%b\r\n" % (len(piece), piece)
        self.connection.send(self, piece)

    def end_stream(self) -> None:
        """End a streamed response."""
        self.connection.send(self, b"0\r\n\r\n" if self.version == "1.1" else b"")
        self.connection.complete(self)

    def _begin(
        self, status: int, content_type: str, headers: tuple[tuple[str, str], ...], length: int | None
    ) -> bytes:
        """The response's head; from here on the request counts as answered."""
        self.status = status
        self.answered_at = time.perf_counter()
        if self.connection.is_closing or (length is None and self.version != "1.1"):
            self.keep_alive = False
        parts = [
            b"HTTP/1.1 %d %b\r\ndate: %b\r\ncontent-type: %b\r\nx-content-type-options: nosniff\r\n"
            % (status, _REASONS.get(status, b""), _date(), content_type.encode("latin-1"))
        ]
        if length is not None:
            parts.append(b"content-length: %d\r\n" % length)
        elif self.version == "1.1":
            parts.append(b"transfer-encoding: chunked\r\n")
        if self.request_id:
            parts.append(b"x-request-id: %b\r\n" % self.request_id.encode("ascii"))
        parts += [f"{name}: {value}\r\n".encode("latin-1") for name, value in headers]
        if not self.keep_alive:
            parts.append(b"connection: close\r\n")
        elif self.version == "1.0":
            parts.append(b"connection: keep-alive\r\n")
        parts.append(b"\r\n")
        return b"".join(parts)


def render_error(problem: ServingError) -> bytes:
    """The one form of every error: `{"error": …, "error_type": …}`."""
    return render_json({"error": problem.message, "error_type": problem.error_type})


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_date_cache: tuple[int, bytes] = (0, b"")


def _date() -> bytes:
    """The `Date` header, made once a second."""
    global _date_cache  # noqa: PLW0603 - a cache of one value
    now = int(time.time())
    if _date_cache[0] != now:
        year, month, day, hour, minute, second, weekday, *_ = time.gmtime(now)
        text = f"{_DAYS[weekday]}, {day:02} {_MONTHS[month - 1]} {year} {hour:02}:{minute:02}:{second:02} GMT"
        _date_cache = (now, text.encode())
    return _date_cache[1]
