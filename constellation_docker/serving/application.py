"""From a complete request to its answer: the routes, and the way through the queue."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qsl

from .batching import CallQueue, Ticket
from .config import Options
from .connection import Connection
from .exchange import Exchange, render_error
from .lifecycle import Lifecycle, State
from .logs import MAX_TEXT, Log
from .metrics import Metrics
from .model import (
    Call,
    DeadlineExceeded,
    MethodNotAllowed,
    Model,
    ModelFault,
    NotFound,
    RawAnswer,
    Request,
    ServingError,
    Unavailable,
    UnsupportedMedia,
)
from .operations import Operations
from .strict_json import render_json
from .worker import END

INFERENCE_PATHS = {
    "/": "/",
    "/predict": "/",
    "/v1/completions": "/v1/completions",
    "/v1/chat/completions": "/v1/chat/completions",
    "/v1/embeddings": "/v1/embeddings",
}
PROBES = frozenset({"/health", "/live", "/ready", "/metrics"})
LARGE_BODY_BYTES = 128 * 1024
"""From here on a body is parsed in a thread of its own, so that health checks need not wait."""
SETTLE_SECONDS = 0.1
"""After SIGTERM requests are taken this much longer: their bytes may already lie in the kernel's buffers."""

_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


class Application:
    """Judges, answers, counts and logs requests. Lives in the event loop's thread."""

    def __init__(
        self,
        options: Options,
        lifecycle: Lifecycle,
        queue: CallQueue,
        metrics: Metrics,
        operations: Operations,
        log: Log,
    ) -> None:
        self.options = options
        self.connections: set[Connection] = set()
        self.buffered_bytes = 0
        self.draining_since: float | None = None
        self._lifecycle = lifecycle
        self._queue = queue
        self._metrics = metrics
        self._log = log
        self._pending: dict[Exchange, Ticket | None] = {}
        self._id_prefix = os.urandom(6).hex()
        self._id_number = 0
        self._operations = operations

    @property
    def is_draining(self) -> bool:
        """Whether the server was told to stop."""
        return self._lifecycle.state is State.DRAINING

    @property
    def in_flight(self) -> int:
        """Inference requests that are complete and not yet answered."""
        return len(self._pending)

    # -- what a connection asks -------------------------------------------------------------------------

    def screen(self, exchange: Exchange) -> ServingError | None:
        """Judge by method, path and headers, before the body is read."""
        exchange.request_id = self._identify(exchange)
        method, path = exchange.method, exchange.path
        is_get_route = path in self._operations.routes
        inference = INFERENCE_PATHS.get(path)
        model = self._lifecycle.model
        if inference is None and not is_get_route:
            return NotFound(f"there is nothing at {path[:200]}; /openapi.json lists what there is")
        if method in ("GET", "HEAD") and is_get_route:
            return None
        if inference is None or method != "POST":
            allowed = [*(["GET", "HEAD"] if is_get_route else []), *(["POST"] if inference else [])]
            exchange.facts["allow"] = ", ".join(allowed)
            return MethodNotAllowed(f"{path} takes {', '.join(allowed)}, not {method}")
        encoding = exchange.headers.get(b"content-encoding", b"identity")
        if encoding.lower() != b"identity":
            return UnsupportedMedia("compressed bodies are not taken; send the body as it is")
        if model is not None and inference not in model.paths:
            return NotFound(f"this model does not answer {path}; /openapi.json lists what it answers")
        return self._refuse_unready()

    def _refuse_unready(self) -> ServingError | None:
        state = self._lifecycle.state
        if state is State.LOADING:
            return Unavailable("the model is still loading", error_type="loading", retry_after_seconds=5)
        if self.draining_since is not None and time.monotonic() - self.draining_since > SETTLE_SECONDS:
            return Unavailable("the server is stopping", error_type="draining", retry_after_seconds=1)
        return None

    def handle(self, exchange: Exchange) -> None:
        """Answer a complete request."""
        try:
            if exchange.method == "POST":
                self._infer(exchange)
            else:
                self._operations.routes[exchange.path](exchange)
        except ServingError as problem:
            self.refuse(exchange, problem)
        except BaseException as problem:  # noqa: BLE001 - the edge: a fault here is one client's 500, not the end
            self._fail(exchange, problem)

    def refuse(self, exchange: Exchange, problem: ServingError) -> None:
        """Answer with an error, or end a stream with one."""
        if exchange.is_over:
            return
        exchange.error_type = problem.error_type
        body = render_error(problem)
        if exchange.is_streaming:
            exchange.keep_alive = False
            exchange.send_piece(b"data: %b\n\n" % body)
            exchange.end_stream()
            return
        if not exchange.request_id:
            exchange.request_id = self._identify(exchange)
        headers: list[tuple[str, str]] = []
        if problem.retry_after_seconds is not None:
            headers.append(("retry-after", str(problem.retry_after_seconds)))
        if "allow" in exchange.facts:
            headers.append(("allow", exchange.facts["allow"]))
        exchange.respond(problem.status, body, headers=tuple(headers))

    def finish(self, exchange: Exchange) -> None:
        """Count the request and write its line."""
        facts = exchange.facts
        is_known = exchange.path in self._operations.routes or exchange.path in INFERENCE_PATHS
        is_gone = exchange.status == 0
        status = exchange.status or 499
        ended = time.perf_counter()
        if is_gone:
            self._metrics.cancelled += 1
            exchange.error_type = "client_disconnected"
        else:
            self._metrics.count(exchange.path if is_known else "other", status, exchange.error_type)
        if exchange.method == "POST" and status == 200:
            self._metrics.latency.observe(exchange.answered_at - exchange.received_at)
        if exchange.path in PROBES and status in (200, 503) and not self.options.log_probes:
            return
        self._log.request(
            method=exchange.method or None,
            path=exchange.path[:200],
            status=status,
            ms=round((ended - exchange.received_at) * 1000, 3),
            queue_ms=facts.get("queue_ms"),
            batch=facts.get("batch"),
            bytes_in=facts.get("bytes_in", 0),
            bytes_out=exchange.sent_bytes,
            request_id=exchange.request_id,
            error_type=exchange.error_type or None,
            payload=facts.get("payload"),
        )

    def _identify(self, exchange: Exchange) -> str:
        """The client's request id where it is sane, else one of our own."""
        given = exchange.header(b"x-request-id")
        if given is not None and _SANE_REQUEST_ID.fullmatch(given):
            return given
        self._id_number += 1
        return f"{self._id_prefix}-{self._id_number}"

    def _fail(self, exchange: Exchange, problem: BaseException) -> None:
        self._log.fault("server_fault", problem, request_ids=[exchange.request_id])
        self.refuse(exchange, ServingError("the server failed on this request; its log has the details"))

    # -- inference -----------------------------------------------------------------------------------------

    def _infer(self, exchange: Exchange) -> None:
        # Whether the server still takes requests was judged at the head: one whose body comes in after SIGTERM
        # was acknowledged before it, and is answered.
        model = self._lifecycle.model
        if model is None:
            raise Unavailable("the model is still loading", error_type="loading", retry_after_seconds=5)
        path = INFERENCE_PATHS[exchange.path]
        if path not in model.paths:
            raise NotFound(f"this model does not answer {exchange.path}; /openapi.json lists what it answers")
        self._queue.refuse_when_full()
        body = exchange.take_body()
        if self.options.log_payloads:
            exchange.facts["payload"] = body[:MAX_TEXT].decode("utf-8", "replace")
        request = Request(
            body,
            exchange.header(b"content-type"),
            exchange.header(b"accept"),
            path,
            dict(parse_qsl(exchange.query.decode("latin-1"))) if exchange.query else {},
        )
        self._pending[exchange] = None
        self._metrics.in_flight = len(self._pending)
        exchange.on_disconnect = lambda: self._abandon(exchange)
        if len(body) < LARGE_BODY_BYTES:
            self._enqueue(exchange, model, _parse(model, request))
        else:
            parsing = asyncio.get_running_loop().run_in_executor(None, _parse, model, request)
            parsing.add_done_callback(lambda done: self._enqueue(exchange, model, done.result()))

    def _enqueue(self, exchange: Exchange, model: Model, parsed: Call | BaseException) -> None:
        if exchange not in self._pending:
            return
        if isinstance(parsed, BaseException):
            self._answer_fault(exchange, parsed)
            return
        ticket = Ticket(
            parsed,
            None,
            exchange.request_id,
            lambda ticket, answer: self._deliver(exchange, ticket, answer),
        )
        try:
            if model.max_batch_size > 1:
                ticket.key = (parsed.path, model.batch_key(parsed))
            self._queue.add(ticket)
        except BaseException as problem:  # noqa: BLE001 - model code may raise anything, SystemExit too
            self._answer_fault(exchange, problem)
            return
        self._pending[exchange] = ticket

    def _deliver(self, exchange: Exchange, ticket: Ticket, answer: Any) -> None:
        """Take an answer, or a piece of one, from the model thread."""
        if exchange not in self._pending:
            return
        if "batch" not in exchange.facts:
            queued = ticket.started_at - ticket.enqueued_at
            exchange.facts["queue_ms"] = round(queued * 1000, 3)
            exchange.facts["batch"] = ticket.batch
            self._metrics.queue_wait.observe(queued)
        if isinstance(answer, BaseException):
            self._answer_fault(exchange, answer, is_reported=True)
            return
        try:
            if ticket.call.is_streaming:
                self._send_piece(exchange, answer)
            elif isinstance(answer, RawAnswer):
                self._settle(exchange)
                exchange.respond(200, answer.body, answer.content_type)
            else:
                body = render_json(answer)
                self._settle(exchange)
                exchange.respond(200, body)
        except BaseException as problem:  # noqa: BLE001 - rendering runs the answer's own code
            self._answer_fault(exchange, problem)

    def _send_piece(self, exchange: Exchange, piece: Any) -> None:
        exchange.received_piece_at = time.perf_counter()
        if piece is END:
            if not exchange.is_streaming:
                exchange.start_stream("text/event-stream")
            self._settle(exchange)
            exchange.end_stream()
            return
        text = piece.encode() if isinstance(piece, str) else render_json(piece)
        event = b"".join(b"data: %b\n" % line for line in text.splitlines() or [b""]) + b"\n"
        if not exchange.is_streaming:
            exchange.start_stream("text/event-stream")
        exchange.send_piece(event)

    def _answer_fault(self, exchange: Exchange, problem: BaseException, *, is_reported: bool = False) -> None:
        """Answer with what went wrong; only errors made for clients show their text."""
        self._settle(exchange)
        if isinstance(problem, ServingError):
            if isinstance(problem, ModelFault) and not is_reported:
                self._log.fault("model_fault", problem, request_ids=[exchange.request_id])
            self.refuse(exchange, problem)
            return
        if not is_reported:
            self._log.fault("model_fault", problem, request_ids=[exchange.request_id])
        self.refuse(
            exchange,
            ModelFault(
                f"the model failed on this request ({type(problem).__name__}); "
                f"the log has the details under {exchange.request_id}"
            ),
        )

    def _settle(self, exchange: Exchange) -> Ticket | None:
        """The exchange no longer waits for the model."""
        ticket = self._pending.pop(exchange, None)
        self._metrics.in_flight = len(self._pending)
        exchange.on_disconnect = None
        return ticket

    def _abandon(self, exchange: Exchange) -> None:
        """Nobody waits for the answer: a call that has not started leaves the queue."""
        ticket = self._settle(exchange)
        if ticket is not None:
            self._queue.abandon(ticket)

    def expire(self, now: float) -> None:
        """Answer 504 to what has waited too long. Called a few times a second."""
        limit = self.options.request_timeout_seconds
        late = [
            exchange
            for exchange in self._pending
            if now - (exchange.received_piece_at or exchange.received_at) > limit
        ]
        for exchange in late:
            self._abandon(exchange)
            self.refuse(exchange, DeadlineExceeded(f"there was no answer within {limit:g} s"))

    def give_up(self) -> None:
        """Answer 503 to everything that still waits: the grace period is over."""
        for exchange in list(self._pending):
            self._abandon(exchange)
            self.refuse(exchange, Unavailable("the server stopped before the answer was ready"))

    def note_batch(self, rows: int) -> None:
        """Count a batch that ran."""
        self._metrics.batch_rows.observe(rows)


def _parse(model: Model, request: Request) -> Call | BaseException:
    """The model's own parsing; its exceptions are answers, whatever they are."""
    try:
        return model.parse(request)
    except BaseException as problem:  # noqa: BLE001 - model code may raise anything, SystemExit too
        return problem


def check_all(connections: Iterable[Connection]) -> None:
    """End the connections that take too long."""
    now = time.monotonic()
    for connection in list(connections):
        connection.check(now)
