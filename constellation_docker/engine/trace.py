"""BuildKit's progress, decoded: the `moby.buildkit.trace` messages of a build.

Each holds a `moby.buildkit.v1.StatusResponse` in protobuf's wire format
(https://github.com/moby/buildkit/blob/v0.8.0/api/services/control/control.proto). Five message types are read, so a
few lines that read the wire format stand in for generated classes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

TAIL_LINES = 60

Value = int | bytes


@dataclass(frozen=True)
class BuildStep:
    """One step of a build.

    Attributes:
        name: As BuildKit names it: `[build 2/4] RUN make`.
        seconds: How long it took.
        is_cached: Whether it was taken from the cache.
    """

    name: str
    seconds: float
    is_cached: bool


@dataclass
class _Vertex:
    number: int
    name: str = ""
    seconds: float = 0.0
    started: float | None = None
    is_announced: bool = False
    is_done: bool = False
    is_cached: bool = False
    error: str = ""
    rest: dict[int, bytes] = field(default_factory=dict)  # by stream: the line that has not ended
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL_LINES))


class BuildTrace:
    """Follows a build's steps and tells them in BuildKit's own plain form: `#5 [2/4] RUN make`, `#5 …`, `#5 DONE 0.3s`."""

    def __init__(self) -> None:
        self._vertices: dict[str, _Vertex] = {}
        self._finished: set[str] = set()

    @property
    def steps(self) -> tuple[BuildStep, ...]:
        """The steps so far, in the order in which they began."""
        return tuple(
            BuildStep(vertex.name, round(vertex.seconds, 3), vertex.is_cached)
            for vertex in self._vertices.values()
            if vertex.is_announced
        )

    @property
    def failure(self) -> tuple[str, str, tuple[str, ...]] | None:
        """The first step that failed by itself: its name, its error and its last lines."""
        failed = [vertex for vertex in self._vertices.values() if vertex.error]
        # When one step fails, BuildKit ends those beside it with "context canceled".
        failed.sort(key=lambda vertex: "context canceled" in vertex.error)
        if not failed:
            return None
        return failed[0].name, failed[0].error, tuple(failed[0].tail)

    @property
    def running(self) -> tuple[str, tuple[str, ...]] | None:
        """The last step that began and has not ended: its name and its last lines."""
        for vertex in reversed(self._vertices.values()):
            if vertex.is_announced and not vertex.is_done:
                return vertex.name, tuple(vertex.tail)
        return None

    def feed(self, message: bytes) -> Iterator[str]:
        """Take one StatusResponse; yield the lines that it brings."""
        logs: list[bytes] = []
        statuses: list[bytes] = []
        ended: list[_Vertex] = []
        for number, value in read_fields(message):
            if number == 1 and isinstance(value, bytes):
                yield from self._see_vertex(value, ended)
            elif number == 2 and isinstance(value, bytes):
                statuses.append(value)
            elif number == 3 and isinstance(value, bytes):
                logs.append(value)
        for status in statuses:
            yield from self._see_status(status)
        for log in logs:
            yield from self._see_log(log)
        for vertex in ended:  # after the logs, which BuildKit may send in the same message
            yield from self._end(vertex)

    def _vertex(self, digest: str) -> _Vertex:
        return self._vertices.setdefault(digest, _Vertex(len(self._vertices) + 1))

    def _see_vertex(self, message: bytes, ended: list[_Vertex]) -> Iterator[str]:
        fields = dict(read_fields(message))
        vertex = self._vertex(_text(fields.get(1)))
        vertex.name = _text(fields.get(3)) or vertex.name
        vertex.is_cached = vertex.is_cached or bool(fields.get(4))
        vertex.error = _text(fields.get(7)) or vertex.error
        started, completed = _seconds(fields.get(5)), _seconds(fields.get(6))
        if started is not None and started != vertex.started:
            vertex.started = started
            vertex.is_done = False
            if not vertex.is_announced:
                vertex.is_announced = True
                yield f"#{vertex.number} {vertex.name}"
        # BuildKit tells the same end again whenever anything else of the step changes.
        if completed is not None and not vertex.is_done:
            vertex.seconds += max(0.0, completed - (completed if vertex.started is None else vertex.started))
            vertex.is_done = True
            ended.append(vertex)

    def _end(self, vertex: _Vertex) -> Iterator[str]:
        for rest in vertex.rest.values():
            if rest:
                yield self._told(vertex, rest)
        vertex.rest.clear()
        if vertex.error:
            yield f"#{vertex.number} ERROR: {vertex.error}"
        elif vertex.is_cached:
            yield f"#{vertex.number} CACHED"
        else:
            yield f"#{vertex.number} DONE {vertex.seconds:.1f}s"

    def _see_status(self, message: bytes) -> Iterator[str]:
        fields = dict(read_fields(message))
        name = _text(fields.get(1))
        vertex = self._vertex(_text(fields.get(2)))
        key = f"{vertex.number} {name}"
        if name and fields.get(8) and key not in self._finished:
            self._finished.add(key)
            total = fields.get(5) or fields.get(4)
            size = f" {total / 1e6:.1f} MB" if isinstance(total, int) and total > 1e5 else ""
            yield f"#{vertex.number} {name}{size} done"

    def _see_log(self, message: bytes) -> Iterator[str]:
        fields = dict(read_fields(message))
        vertex = self._vertex(_text(fields.get(1)))
        stream, text = fields.get(3, 1), fields.get(4)
        if not isinstance(text, bytes) or not isinstance(stream, int):
            return
        *lines, vertex.rest[stream] = (vertex.rest.get(stream, b"") + text).split(b"\n")
        for line in lines:
            yield self._told(vertex, line)

    @staticmethod
    def _told(vertex: _Vertex, line: bytes) -> str:
        # A progress bar redraws its line with carriage returns; its last state is what a log should keep.
        text = line.decode("utf-8", "replace").rstrip("\r").rpartition("\r")[2]
        vertex.tail.append(text)
        return f"#{vertex.number} {text}"


def read_fields(message: bytes) -> Iterator[tuple[int, Value]]:
    """Yield (field number, value) of one protobuf message; groups, which nothing here uses, are refused.

    Protocol: https://protobuf.dev/programming-guides/encoding/

    Raises:
        ValueError: It is not a protobuf message.
    """
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        wire_type = key & 7
        value: Value
        if wire_type == 0:
            value, position = _varint(message, position)
        elif wire_type == 2:
            size, position = _varint(message, position)
            value, position = message[position : position + size], position + size
        elif wire_type in {1, 5}:
            size = 8 if wire_type == 1 else 4
            value, position = (
                int.from_bytes(message[position : position + size], "little"),
                position + size,
            )
        else:
            raise ValueError(f"unknown protobuf wire type {wire_type}")
        if position > len(message):
            raise ValueError("a protobuf message ends too early")
        yield key >> 3, value


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(message):
        byte = message[position]
        value |= (byte & 0x7F) << shift
        position += 1
        shift += 7
        if byte < 0x80:
            return value, position
    raise ValueError("a protobuf message ends too early")


def _text(value: Value | None) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else ""


def _seconds(value: Value | None) -> float | None:
    """A google.protobuf.Timestamp in seconds since 1970."""
    if not isinstance(value, bytes):
        return None
    fields = dict(read_fields(value))
    whole, nanos = fields.get(1, 0), fields.get(2, 0)
    return (whole if isinstance(whole, int) else 0) + (nanos if isinstance(nanos, int) else 0) / 1e9
