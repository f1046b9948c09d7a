"""HTTP/1.1 from a socket to an exchange and back, with a limit on everything a client can stretch.

The parser is llhttp (`httptools`). Around it stands this one protocol class instead of a general ASGI
server, because size and start-up are every model's: without the server and framework the process starts
150 ms sooner, is 12 MB smaller and answers a request in a third of the time; and no ASGI server limits how
slowly headers may come, how large they are, or how many bytes all clients together may park here.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Any, Protocol

import httptools

from .config import Options
from .exchange import Exchange
from .model import BadRequest, HeadersTooLarge, Overloaded, ServingError, SlowRequest, TooLarge, Unavailable

LINGER_SECONDS = 2.0
"""After a refusal the rest of the request is read and dropped this long; closing at once would reset the
connection, and the client would never read why."""
MAX_PIPELINED = 16
MAX_REFUSALS = 64
"""Connections above the limit that are told so; those above these are just cut."""
MAX_UNSENT_BYTES = 4 * 1024 * 1024
"""Of a stream to a client that does not read; then the connection is cut, for the model must not wait."""


class Handler(Protocol):
    """What a connection asks of the server behind it."""

    options: Options
    buffered_bytes: int
    connections: set[Connection]

    @property
    def is_draining(self) -> bool:
        """Whether connections close after the answer they are at."""
        ...

    def screen(self, exchange: Exchange) -> ServingError | None:
        """Judge a request by its head, before its body is read."""
        ...

    def handle(self, exchange: Exchange) -> None:
        """Answer a complete request, now or later; never raises."""
        ...

    def refuse(self, exchange: Exchange, problem: ServingError) -> None:
        """Answer with an error."""
        ...

    def finish(self, exchange: Exchange) -> None:
        """An exchange is over: answered, or its client is gone."""
        ...


class Connection(asyncio.Protocol):
    """One client's connection. Requests on it are answered in their order, one at a time."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._options = handler.options
        self._parser: Any = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._incoming: Exchange | None = None
        self._active: Exchange | None = None
        self._declined: Exchange | None = None
        self._pipeline: deque[Exchange] = deque()
        self._quiet_bytes = 0
        self._is_refusing = False
        now = time.monotonic()
        self._deadline = now + self._options.keep_alive_seconds
        self._body_deadline = 0.0
        self._write_deadline = 0.0
        self._unsent_bytes = 0

    # -- asyncio's side ------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register; above the limit of connections, answer 503 and close."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=64 * 1024)
        excess = len(self._handler.connections) - self._options.max_connections
        if excess > MAX_REFUSALS:
            transport.abort()
            return
        self._handler.connections.add(self)
        if excess >= 0:
            self._refuse_unparsed(Unavailable("too many connections", retry_after_seconds=1))

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell every open exchange that its client is gone."""
        self._transport = None
        self._handler.connections.discard(self)
        for exchange in (self._active, self._incoming, *self._pipeline):
            if exchange is not None:
                self._forget_body(exchange)
                if not exchange.is_over and exchange.received_at:
                    exchange.is_over = True
                    if exchange.on_disconnect is not None:
                        exchange.on_disconnect()
                        exchange.on_disconnect = None
                    self._handler.finish(exchange)
        self._active = self._incoming = None
        self._pipeline.clear()
        self._parser = None

    def data_received(self, data: bytes) -> None:
        """Feed the parser; anything it cannot read is a 400 and the end of the connection."""
        if self._is_refusing:
            return
        self._quiet_bytes += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError as problem:
            self._refuse_unparsed(_explain(problem))
            return
        incoming = self._incoming
        if incoming is not None and self._quiet_bytes > self._options.max_header_bytes:
            self._refuse_unparsed(_too_large_headers(self._options))
        elif incoming is not None and incoming.rejection is not None and self._active is None:
            self._refuse_incoming(incoming)

    def _feed(self, data: bytes) -> None:
        """Parse; an offer to switch protocols is left out, and the request parsed again as it is without.

        The parser stops at such an offer and leaves the body unread. Java's client makes one (`h2c`) with
        its first request to every server.
        """
        while True:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as stop:
                offer = self._declined
                self._declined = None
                if offer is None:
                    self._is_refusing = True  # CONNECT, which has been refused
                    return
                self._parser = httptools.HttpRequestParser(self)
                data = offer.render_without_upgrade() + data[stop.args[0] :]
            else:
                return

    def eof_received(self) -> bool | None:
        """A client that closes its side has gone away: nobody sends half a connection's requests."""
        return None

    def pause_writing(self) -> None:
        """The client reads more slowly than we write; `check` cuts it off if it stops altogether."""
        if self._transport is not None:
            self._unsent_bytes = self._transport.get_write_buffer_size()
        self._write_deadline = time.monotonic() + self._options.read_timeout_seconds

    def resume_writing(self) -> None:
        """The client reads again."""
        self._write_deadline = 0.0

    def check(self, now: float) -> None:
        """Called a few times a second: end what takes too long."""
        transport = self._transport
        if transport is None:
            return
        if self._write_deadline:
            unsent = transport.get_write_buffer_size()
            if unsent < self._unsent_bytes:
                self._write_deadline = now + self._options.read_timeout_seconds
            self._unsent_bytes = unsent
        if self._write_deadline and now > self._write_deadline:
            transport.abort()
        elif self._active is not None:
            return
        elif self._is_refusing or self._incoming is None:
            if now > self._deadline:
                transport.close()
        elif now > self._deadline or (self._body_deadline and now > self._body_deadline):
            self._refuse_unparsed(SlowRequest("the request did not arrive in time"))

    @property
    def is_closing(self) -> bool:
        """Whether the connection ends after the answer it is at."""
        return self._is_refusing or self._handler.is_draining

    def close_when_idle(self) -> None:
        """Close, unless a request is arriving or being answered."""
        if self._active is None and self._incoming is None and self._transport is not None:
            self._transport.close()

    # -- the parser's side -----------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A request's first byte."""
        self._incoming = Exchange(self)
        self._deadline = time.monotonic() + self._options.read_timeout_seconds
        self._body_deadline = 0.0

    def on_url(self, url: bytes) -> None:
        """A part of the request's target."""
        assert self._incoming is not None
        self._incoming.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One complete header; trailers, which come after the body, are dropped."""
        exchange = self._incoming
        assert exchange is not None
        if not exchange.method:
            exchange.headers[name.lower()] = value
            exchange.head_bytes += len(name) + len(value) + 4

    def on_headers_complete(self) -> None:
        """Judge the request by its head, so that a body that will be refused need not be read."""
        exchange = self._incoming
        assert exchange is not None
        exchange.method = self._parser.get_method().decode("ascii", "replace")
        exchange.version = self._parser.get_http_version()
        exchange.keep_alive = self._parser.should_keep_alive()
        exchange.received_at = time.perf_counter()
        if b"upgrade" in exchange.headers and exchange.method != "CONNECT":
            return  # this head comes again, without the offer
        try:
            url = httptools.parse_url(exchange.target)
            exchange.path = (url.path or b"").decode("ascii", "backslashreplace")
            exchange.query = url.query or b""
        except httptools.HttpParserInvalidURLError:
            exchange.rejection = BadRequest("the request's target is not a valid URL")
        if exchange.head_bytes + len(exchange.target) > self._options.max_header_bytes:
            exchange.rejection = _too_large_headers(self._options)
        elif exchange.rejection is None:
            exchange.rejection = self._handler.screen(exchange) or self._screen_body(exchange)
        now = time.monotonic()
        self._deadline = now + self._options.read_timeout_seconds
        self._body_deadline = now + self._options.body_timeout_seconds
        expects = exchange.headers.get(b"expect", b"").lower() == b"100-continue"
        if expects and exchange.rejection is None and self._active is None and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _screen_body(self, exchange: Exchange) -> ServingError | None:
        length = exchange.headers.get(b"content-length", b"")
        if length.isdigit() and int(length[:20]) > self._options.max_body_bytes:
            return _too_large_body(self._options)
        return None

    def on_body(self, data: bytes) -> None:
        """Keep a part of the body, while it may still be accepted."""
        exchange = self._incoming
        assert exchange is not None
        self._quiet_bytes = 0
        self._deadline = time.monotonic() + self._options.read_timeout_seconds
        if exchange.rejection is not None:
            return
        if exchange.body_bytes + len(data) > self._options.max_body_bytes:
            self._forget_body(exchange)
            exchange.rejection = _too_large_body(self._options)
            return
        if self._handler.buffered_bytes + len(data) > self._options.max_buffered_bytes:
            self._forget_body(exchange)
            exchange.rejection = Overloaded(
                "the server already holds as many request bodies as it may", retry_after_seconds=1
            )
            return
        exchange.body_bytes += len(data)
        self._handler.buffered_bytes += len(data)
        exchange.body.append(data)

    def on_message_complete(self) -> None:
        """Answer the request, or keep it until the ones before it are answered."""
        exchange = self._incoming
        assert exchange is not None
        self._incoming = None
        self._quiet_bytes = 0
        if exchange.method and b"upgrade" in exchange.headers and exchange.method != "CONNECT":
            self._declined = exchange
            return
        exchange.received_at = time.perf_counter()
        if self._is_refusing:
            return
        if self._active is None:
            self._begin(exchange)
        else:
            self._pipeline.append(exchange)
            if len(self._pipeline) > MAX_PIPELINED and self._transport is not None:
                self._transport.abort()
            elif self._transport is not None:
                self._transport.pause_reading()

    # -- answers ---------------------------------------------------------------------------------------

    def send(self, exchange: Exchange, data: bytes) -> None:
        """Send a part of a response."""
        transport = self._transport
        if transport is not None and data:
            transport.write(data)
            if exchange.is_streaming and transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
                transport.abort()

    def complete(self, exchange: Exchange) -> None:
        """End an exchange: log it, then close or go on with the next request."""
        if exchange.is_over:
            return
        exchange.is_over = True
        exchange.on_disconnect = None
        self._forget_body(exchange)
        self._handler.finish(exchange)
        if self._active is exchange:
            self._active = None
        if self._transport is None:
            return
        if not exchange.keep_alive:
            if not self._is_refusing:
                self._transport.close()
            return
        patience = (
            self._options.keep_alive_seconds if self._incoming is None else self._options.read_timeout_seconds
        )
        self._deadline = time.monotonic() + patience
        if self._pipeline:
            following = self._pipeline.popleft()
            if not self._pipeline:
                self._transport.resume_reading()
            # Not from inside the answer to the one before: a long pipeline would nest as deep.
            self._active = following
            asyncio.get_running_loop().call_soon(self._begin, following)

    def _begin(self, exchange: Exchange) -> None:
        if exchange.is_over:
            return
        self._active = exchange
        if exchange.rejection is not None:
            self._handler.refuse(exchange, exchange.rejection)
        else:
            self._handler.handle(exchange)

    def _refuse_unparsed(self, problem: ServingError) -> None:
        """Refuse a request that is not complete and will never be."""
        if self._is_refusing:
            return
        exchange = self._incoming or Exchange(self)
        self._incoming = None
        if self._active is not None:
            # The answer to an earlier request is still due; after it there is nothing to go on with.
            self._active.keep_alive = False
            self._is_refusing = True
            return
        self._forget_body(exchange)
        exchange.rejection = problem
        self._refuse_incoming(exchange)

    def _refuse_incoming(self, exchange: Exchange) -> None:
        """Answer before the body is complete, then read on and drop, so that the answer arrives."""
        assert exchange.rejection is not None
        self._incoming = None
        self._is_refusing = True
        self._deadline = time.monotonic() + LINGER_SECONDS
        exchange.keep_alive = False
        exchange.received_at = exchange.received_at or time.perf_counter()
        self._active = exchange
        self._handler.refuse(exchange, exchange.rejection)
        if self._transport is not None and self._transport.can_write_eof():
            self._transport.write_eof()

    def _forget_body(self, exchange: Exchange) -> None:
        """Give the body's bytes back to the server's allowance."""
        self._handler.buffered_bytes -= exchange.body_bytes
        exchange.facts.setdefault("bytes_in", exchange.body_bytes)
        exchange.body_bytes = 0
        exchange.body.clear()


def _too_large_body(options: Options) -> TooLarge:
    return TooLarge(f"the body is larger than {options.max_body_bytes} bytes")


def _too_large_headers(options: Options) -> HeadersTooLarge:
    return HeadersTooLarge(f"the request line and headers are larger than {options.max_header_bytes} bytes")


def _explain(problem: Exception) -> ServingError:
    cause = problem.__context__
    if isinstance(problem, httptools.HttpParserCallbackError) and cause is not None:
        raise cause
    return BadRequest("the request is not valid HTTP/1.1")
