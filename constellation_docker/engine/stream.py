"""Reading engine responses that may stay silent for minutes, without losing the power to stop.

requests cannot wait for "data or a wish to cancel". So the response is read in a thread of its own, with its own
connection, and handed over through a queue; whoever reads may leave at any moment, and leaving cuts the connection,
which is also how the engine learns that a build is no longer wanted.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

import requests

T = TypeVar("T")

POLL_SECONDS = 0.1
_FAREWELL_SECONDS = 5.0
_QUEUED_ITEMS = 256


class StreamCancelled(Exception):
    """`is_cancelled` became true."""


class StreamTimedOut(Exception):
    """The deadline passed."""


class UploadFailed(Exception):
    """What was to be sent could not be read; the cause says why. Not the engine's fault."""


def never() -> bool:
    """The default `is_cancelled`."""
    return False


class ResponseStream(Generic[T]):
    """The parts of one engine response, readable under a deadline and cancellable.

    Args:
        open_response: Sends the request and returns the response, with `stream=True`. Gets a function that tells
            whether the reader has left, for long uploads.
        parse: Turns the response into its parts.
        is_cancelled: Asked about ten times a second.
        timeout_seconds: Longest for the whole response; None: no limit.
    """

    def __init__(
        self,
        open_response: Callable[[Callable[[], bool]], requests.Response],
        parse: Callable[[requests.Response], Iterator[T]],
        *,
        is_cancelled: Callable[[], bool] = never,
        timeout_seconds: float | None = None,
    ) -> None:
        self._open = open_response
        self._parse = parse
        self._is_cancelled = is_cancelled
        self._timeout_seconds = timeout_seconds
        self._deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        self._queue: queue.Queue[tuple[str, Any]] = queue.Queue(_QUEUED_ITEMS)
        self._has_left = threading.Event()
        self._response: requests.Response | None = None

    def __iter__(self) -> Iterator[T]:
        """Yield the parts.

        Raises:
            StreamCancelled: `is_cancelled` became true.
            StreamTimedOut: The deadline passed.
            Exception: Whatever opening or reading the response raised.
        """
        reader = threading.Thread(target=self._read, name="engine-stream", daemon=True)
        reader.start()
        try:
            while True:
                if self._is_cancelled():
                    raise StreamCancelled
                if self._deadline is not None and time.monotonic() > self._deadline:
                    raise StreamTimedOut(f"{self._timeout_seconds:g}")
                try:
                    kind, item = self._queue.get(timeout=POLL_SECONDS)
                except queue.Empty:
                    continue
                if kind == "item":
                    yield item
                elif kind == "error":
                    raise item
                else:
                    return
        finally:
            self._has_left.set()
            if self._response is not None:
                sever(self._response)
                reader.join(_FAREWELL_SECONDS)
            # Without a response there is no connection to cut yet; the reader closes it as soon as there is.

    def _read(self) -> None:
        try:
            response = self._open(self._has_left.is_set)
            self._response = response
            try:
                if not self._has_left.is_set():
                    for item in self._parse(response):
                        self._hand_over("item", item)
                        if self._has_left.is_set():
                            return
            finally:
                response.close()
        except BaseException as error:  # noqa: BLE001  handed to the reading thread, which raises it
            self._hand_over("error", error)
        else:
            self._hand_over("end", None)

    def _hand_over(self, kind: str, item: Any) -> None:
        while not self._has_left.is_set():
            with contextlib.suppress(queue.Full):
                self._queue.put((kind, item), timeout=POLL_SECONDS)
                return


def sever(response: requests.Response) -> None:
    """Cut the connection under a response, which wakes a thread that is reading it."""
    reader = getattr(getattr(response.raw, "_fp", None), "fp", None)
    connection = getattr(getattr(reader, "raw", None), "_sock", None)
    if connection is not None:
        with contextlib.suppress(OSError):
            # Unbound, because SSLSocket's own shutdown would drop its state under the reading thread.
            socket.socket.shutdown(connection, socket.SHUT_RDWR)


def read_chunks(response: requests.Response) -> Iterator[bytes]:
    """Yield a response's bytes as they come, chunked or not."""
    if getattr(response.raw, "chunked", False):
        yield from response.raw.stream(64 * 1024, decode_content=False)
        return
    while chunk := response.raw.read1(64 * 1024, decode_content=False):
        yield chunk


def read_messages(response: requests.Response) -> Iterator[dict[str, Any]]:
    """Yield the JSON messages of an engine's progress stream, one a line."""
    rest = b""
    for chunk in read_chunks(response):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.strip():
                yield json.loads(line)
    if rest.strip():
        raise http.client.IncompleteRead(rest)  # every message ends its line, so the engine broke off


def read_frames(response: requests.Response) -> Iterator[tuple[int, bytes]]:
    """Yield (stream, bytes) of a multiplexed output; stream is 1 for stdout and 2 for stderr.

    Protocol: https://docs.docker.com/reference/api/engine/version/v1.45/#tag/Container/operation/ContainerAttach
    """
    rest = b""
    for chunk in read_chunks(response):
        rest += chunk
        while len(rest) >= 8:
            size = int.from_bytes(rest[4:8], "big")
            if len(rest) < 8 + size:
                break
            yield rest[0], rest[8 : 8 + size]
            rest = rest[8 + size :]
