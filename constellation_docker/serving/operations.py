"""What is asked about the server rather than of the model: health, facts, metrics, documents, pages."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from . import __version__
from .batching import CallQueue
from .config import Config
from .exchange import Exchange
from .lifecycle import Lifecycle, State
from .metrics import CONTENT_TYPE as METRICS_TYPE
from .metrics import Metrics
from .openapi import render_openapi
from .page import read_page, render_headers
from .strict_json import render_json
from .worker import ModelWorker

HTML = "text/html; charset=utf-8"


class Operations:
    """Answers every `GET`. Touches no model code but `Model.schema`."""

    def __init__(self, config: Config, lifecycle: Lifecycle, queue: CallQueue, metrics: Metrics) -> None:
        self.worker: ModelWorker | None = None
        self.routes: dict[str, Callable[[Exchange], None]] = {
            "/": self._get_root,
            "/docs": self._get_docs,
            "/health": self._get_ready,
            "/info": self._get_info,
            "/live": self._get_live,
            "/metrics": self._get_metrics,
            "/openapi.json": self._get_openapi,
            "/ready": self._get_ready,
        }
        self._config = config
        self._lifecycle = lifecycle
        self._queue = queue
        self._metrics = metrics
        self._openapi = b""

    def _get_live(self, exchange: Exchange) -> None:
        exchange.respond(200, render_json({"status": self._lifecycle.state.value}))

    def _get_ready(self, exchange: Exchange) -> None:
        """200 only when the model can answer: not while it loads, drains, or is stuck in one batch."""
        state = self._lifecycle.state
        if state is State.READY:
            seconds = self._count_busy_seconds()
            if seconds <= self._config.options.request_timeout_seconds:
                exchange.respond(200, b'{"status":"ready"}')
                return
            status, message = "stuck", f"the model has been busy with one batch for {seconds:.0f} s"
        else:
            status, message = state.value, f"the server is {state.value}"
        exchange.error_type = status
        exchange.respond(503, render_json({"status": status, "error": message, "error_type": status}))

    def _count_busy_seconds(self) -> float:
        busy_since = self.worker.busy_since if self.worker is not None else None
        return 0.0 if busy_since is None else time.perf_counter() - busy_since

    def _get_info(self, exchange: Exchange) -> None:
        exchange.respond(200, render_json(self._describe()))

    def _describe(self) -> dict[str, Any]:
        config, options, model = self._config, self._config.options, self._lifecycle.model
        return {
            "model_id": config.model_id or config.model_name,
            "model_name": config.model_name,
            "model_version": config.model_version,
            "revision": config.revision,
            "task": model.task if model else config.task,
            "runtime": model.runtime if model else config.runtime,
            "device": model.device if model else None,
            "paths": sorted(model.paths) if model else [],
            "state": self._lifecycle.state.value,
            "server": "constellation_serving",
            "server_version": __version__,
            "threads": options.threads,
            "load_seconds": round(self._lifecycle.load_seconds, 3),
            "limits": {
                "max_body_bytes": options.max_body_bytes,
                "max_batch_size": self._queue.max_rows,
                "max_batch_wait_ms": options.max_batch_wait_ms,
                "max_queue": options.max_queue,
                "request_timeout_seconds": options.request_timeout_seconds,
                "grace_seconds": options.grace_seconds,
                "long_input": options.long_input,
            },
        }

    def _get_metrics(self, exchange: Exchange) -> None:
        model = self._lifecycle.model
        info = {
            "name": self._config.model_name,
            "version": self._config.model_version,
            "task": (model.task if model else self._config.task) or "",
            "runtime": self._config.runtime,
            "server_version": __version__,
        }
        self._metrics.load_seconds = self._lifecycle.load_seconds
        gauges = {
            "queue_depth": ("Calls waiting for the model.", float(len(self._queue))),
            "ready": ("1 when the model can answer.", float(self._lifecycle.state is State.READY)),
        }
        exchange.respond(200, self._metrics.render(gauges, info), METRICS_TYPE)

    def _get_openapi(self, exchange: Exchange) -> None:
        model = self._lifecycle.model
        document = self._openapi or render_json(render_openapi(self._config, model))
        if model is not None:
            self._openapi = document
        exchange.respond(200, document)

    def _get_docs(self, exchange: Exchange) -> None:
        exchange.respond(200, read_page("docs.html"), HTML, render_headers("docs.html"))

    def _get_root(self, exchange: Exchange) -> None:
        if "text/html" in (exchange.header(b"accept") or ""):
            exchange.respond(200, read_page("page.html"), HTML, render_headers("page.html"))
            return
        status = {"status": self._lifecycle.state.value, "model": self._config.model_name}
        exchange.respond(200, render_json(status))
