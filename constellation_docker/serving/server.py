"""The process: listens first, loads then, serves, and stops without dropping what it has taken."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from . import __version__
from .application import SETTLE_SECONDS, Application, check_all
from .batching import CallQueue
from .config import Config
from .connection import Connection
from .cpu import count_cpus, limit_threads
from .lifecycle import Lifecycle
from .logs import ForeignLogHandler, Log
from .metrics import Metrics
from .model import LoadFailed, Model
from .operations import Operations
from .worker import ModelWorker

EXIT_STOPPED = 0
EXIT_LOAD_FAILED = 1
EXIT_CONFIG = 2
EXIT_CANNOT_LISTEN = 3
EXIT_TERMINATED = 128 + signal.SIGTERM
CHECK_SECONDS = 0.25
"""How often deadlines are looked at."""

Loader = Callable[[Config], Model]


class Server:
    """One model behind one socket.

    Args:
        config: What to serve and how.
        load: Makes the model; runs in the model thread, after listening began.
        log: Where lines go.
    """

    def __init__(self, config: Config, load: Loader, log: Log) -> None:
        options = config.options
        threads = options.threads or count_cpus()
        self._config = replace(config, options=replace(options, threads=threads))
        self._load = load
        self._log = log
        self._lifecycle = Lifecycle()
        self._queue = CallQueue(
            max_queue=options.max_queue, max_wait_seconds=options.max_batch_wait_ms / 1000
        )
        self._metrics = Metrics()
        self._operations = Operations(self._config, self._lifecycle, self._queue, self._metrics)
        self._application = Application(
            self._config.options, self._lifecycle, self._queue, self._metrics, self._operations, log
        )
        self._signals = 0
        self._stopping = asyncio.Event()
        self._exit_code = EXIT_STOPPED

    async def run(self) -> int:
        """Serve until a signal or a failed load. Returns the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        self._log.defer = loop.call_soon
        options = self._config.options
        try:
            listener = await loop.create_server(
                lambda: Connection(self._application), options.host, options.port, backlog=1024
            )
        except OSError as problem:
            self._log.event(
                "cannot_listen",
                level="error",
                message=f"cannot listen on {options.host}:{options.port} ({problem.strerror}); "
                "set SERVING_HOST and SERVING_PORT to a free address",
            )
            return EXIT_CANNOT_LISTEN
        self._log.event(
            "listening",
            host=options.host,
            port=listener.sockets[0].getsockname()[1],
            model=self._config.model_name,
            version=self._config.model_version,
            runtime=self._config.runtime,
            threads=options.threads,
            server_version=__version__,
        )
        worker = ModelWorker(self._load_model, self._queue, _poster(loop), self._on_loaded, self._on_fault)
        worker.on_batch = self._application.note_batch
        self._operations.worker = worker
        worker.start()
        checking = loop.create_task(self._check_forever())
        await self._stopping.wait()
        if self._exit_code == EXIT_STOPPED:
            await self._drain(listener)
        listener.close()
        checking.cancel()
        self._log.event("stopped", exit_code=self._exit_code)
        return self._exit_code

    def _load_model(self) -> Model:
        limit_threads(self._config.options.threads)
        model = self._load(self._config)
        model.warm_up()
        return model

    def _on_loaded(self, loaded: Model | BaseException) -> None:
        if isinstance(loaded, BaseException):
            if isinstance(loaded, LoadFailed):
                self._log.event("load_failed", level="error", message=str(loaded))
            else:
                name = self._config.model_name
                message = f"the model {name} cannot be loaded: {type(loaded).__name__}: {loaded}"
                self._log.fault("load_failed_traceback", loaded)
                self._log.event("load_failed", level="error", message=message)
            self._exit_code = EXIT_LOAD_FAILED
            self._stopping.set()
            return
        self._queue.max_rows = max(1, min(loaded.max_batch_size, self._config.options.max_batch_size))
        gc.collect()
        gc.freeze()  # what loading made stays; the collector need not walk it again and again
        self._lifecycle.become_ready(loaded)
        self._log.event(
            "ready",
            task=loaded.task,
            runtime=loaded.runtime,
            device=loaded.device,
            max_batch_size=self._queue.max_rows,
            load_seconds=round(self._lifecycle.load_seconds, 3),
        )

    def _on_fault(self, problem: BaseException, request_ids: list[str]) -> None:
        self._log.fault("model_fault", problem, request_ids=request_ids)

    def _on_signal(self) -> None:
        """The first signal begins the end; the second is the end."""
        self._signals += 1
        if self._signals > 1:
            self._log.event("terminated", level="warning", in_flight=self._application.in_flight)
            os._exit(EXIT_TERMINATED)
        self._lifecycle.become_draining()
        self._application.draining_since = time.monotonic()
        self._log.event("draining", in_flight=self._application.in_flight, queued=len(self._queue))
        self._stopping.set()

    async def _drain(self, listener: asyncio.Server) -> None:
        """Answer what is in flight and queued, then close; give up when the grace period is over.

        From the end of the settling time on nothing new is accepted: a balancer takes a refused connection to another
        replica, but must not send a request twice that was answered 503.
        """
        application = self._application
        deadline = time.monotonic() + self._config.options.grace_seconds
        if self._lifecycle.model is not None:
            await asyncio.sleep(SETTLE_SECONDS)
        listener.close()
        while application.connections and time.monotonic() < deadline:
            for connection in list(application.connections):
                connection.close_when_idle()
            await asyncio.sleep(0.01)
        if application.in_flight:
            self._log.event("grace_over", level="warning", in_flight=application.in_flight)
            application.give_up()
            await asyncio.sleep(SETTLE_SECONDS)

    async def _check_forever(self) -> None:
        limits = self._config.options
        shortest = min(limits.request_timeout_seconds, limits.read_timeout_seconds, limits.keep_alive_seconds)
        while True:
            await asyncio.sleep(min(CHECK_SECONDS, shortest / 4))
            self._application.expire(time.perf_counter())
            check_all(self._application.connections)


def _poster(loop: asyncio.AbstractEventLoop) -> Callable[[Callable[[], None]], None]:
    """Hands functions to the loop; once it has ended there is nobody left to tell."""

    def post(function: Callable[[], None]) -> None:
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(function)

    return post


def serve(config: Config, load: Loader, log: Log | None = None) -> int:
    """Serve until told to stop. Returns the exit code; the caller ends the process with it.

    Args:
        config: What to serve and how.
        load: Makes the model.
        log: Where lines go; default: standard output.
    """
    log = log or Log()
    logging.basicConfig(handlers=[ForeignLogHandler(log)], level=logging.WARNING, force=True)

    async def run() -> int:
        return await Server(config, load, log).run()

    # Not `asyncio.run`: its end waits for every thread, and one may sit in a body that never parses.
    code = asyncio.new_event_loop().run_until_complete(run())
    log.flush()
    return code
