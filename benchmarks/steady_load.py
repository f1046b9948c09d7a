"""Clients that POST over kept-alive connections and never retry, for as long as something is done to the server.

One thread and one event loop serve all of them, with a short pause after every answer, so that the load takes little of
the processor from what is watched.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from types import TracebackType
from typing import Any, Final

from benchmarks.http_load import render_request

PAUSE_SECONDS: Final = 0.03
# A request without an answer after so long has failed.
ANSWER_SECONDS: Final = 30.0
_CONNECT_AGAIN_SECONDS: Final = 0.05


class SteadyLoad:
    """A load from the beginning of the block to its end.

    Args:
        port: Where the balancer listens on this machine.
        path: What is asked.
        clients: How many connections, each with one request at a time.

    Attributes:
        answered: Requests that were answered with 200.
        failures: What became of the others, and how often.
        reconnected: How often a client found its connection closed between two requests. Nothing is lost by that.
        times: Seconds of the answered requests.
    """

    def __init__(self, port: int, path: str, *, clients: int = 16) -> None:
        self.answered = 0
        self.failures: Counter[str] = Counter()
        self.reconnected = 0
        self.times: list[float] = []
        self._port = port
        self._request = render_request(path, "x" * 100)
        self._clients = clients
        self._ended = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    @property
    def failed(self) -> int:
        """Requests that were not answered with 200."""
        return self.failures.total()

    def __enter__(self) -> SteadyLoad:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join(ANSWER_SECONDS + 5)

    async def _run(self) -> None:
        await asyncio.gather(*(self._ask() for _ in range(self._clients)))

    async def _ask(self) -> None:
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while not self._ended.is_set():
            if streams is not None and streams[0].at_eof():
                self.reconnected += 1
                streams[1].close()
                streams = None
            if streams is None:
                try:
                    streams = await asyncio.open_connection("127.0.0.1", self._port)
                except OSError:
                    self.failures["no connection"] += 1
                    await asyncio.sleep(_CONNECT_AGAIN_SECONDS)
                    continue
            if not await self._ask_once(*streams):
                streams[1].close()
                streams = None
            await asyncio.sleep(PAUSE_SECONDS)
        if streams is not None:
            streams[1].close()

    async def _ask_once(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; whether its connection can be used again."""
        began = time.perf_counter()
        try:
            writer.write(self._request)
            status, is_kept = await asyncio.wait_for(_read_answer(reader), ANSWER_SECONDS)
        except (OSError, EOFError, ValueError, TimeoutError) as error:
            self.failures[type(error).__name__] += 1
            return False
        if status == 200:
            self.answered += 1
            self.times.append(time.perf_counter() - began)
        else:
            self.failures[f"status {status}"] += 1
        return is_kept


async def _read_answer(reader: asyncio.StreamReader) -> tuple[int, bool]:
    head: Any = (await reader.readuntil(b"\r\n\r\n")).lower()
    found = head.find(b"content-length: ")
    if found >= 0:
        await reader.readexactly(int(head[found + 16 :].split(b"\r", 1)[0]))
    return int(head[9:12]), found >= 0 and b"connection: close" not in head
