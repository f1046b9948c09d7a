"""Reading BuildKit's progress."""

from __future__ import annotations

import pytest

from constellation_docker.engine.trace import BuildTrace, read_fields


def _varint(value: int) -> bytes:
    out = b""
    while True:
        value, byte = value >> 7, value & 0x7F
        out += bytes([byte | (0x80 if value else 0)])
        if not value:
            return out


def _field(number: int, value: int | bytes | str) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _time(seconds: int, nanos: int = 0) -> bytes:
    return _field(1, seconds) + _field(2, nanos)


def _vertex(
    digest: str, name: str, *, started: int = 0, completed: int = 0, cached: int = 0, error: str = ""
) -> bytes:
    parts = _field(1, digest) + _field(3, name) + _field(4, cached)
    parts += _field(5, _time(started)) if started else b""
    parts += _field(6, _time(completed)) if completed else b""
    parts += _field(7, error) if error else b""
    return _field(1, parts)


def _log(digest: str, text: str, stream: int = 1) -> bytes:
    return _field(3, _field(1, digest) + _field(3, stream) + _field(4, text))


def test_a_step_is_told_from_its_start_to_its_end() -> None:
    trace = BuildTrace()
    lines = [
        *trace.feed(_vertex("a", "[1/2] FROM x", started=10)),
        *trace.feed(_log("a", "half a ")),
        *trace.feed(_log("a", "line\nrest")),
        *trace.feed(_vertex("a", "[1/2] FROM x", started=10, completed=12)),
    ]
    assert lines == ["#1 [1/2] FROM x", "#1 half a line", "#1 rest", "#1 DONE 2.0s"]
    assert [(step.name, step.seconds) for step in trace.steps] == [("[1/2] FROM x", 2.0)]


def test_both_streams_of_a_step_keep_their_own_lines() -> None:
    trace = BuildTrace()
    list(trace.feed(_vertex("a", "x", started=1)))
    lines = [
        *trace.feed(_log("a", "out", 1)),
        *trace.feed(_log("a", "err\n", 2)),
        *trace.feed(_log("a", "put\n", 1)),
    ]
    assert lines == ["#1 err", "#1 output"]


def test_an_end_told_twice_is_one_end() -> None:
    trace = BuildTrace()
    end = _vertex("a", "x", started=1, completed=2)
    assert [*trace.feed(end), *trace.feed(end)] == ["#1 x", "#1 DONE 1.0s"]


def test_of_several_failed_steps_the_one_that_was_not_cancelled_is_to_blame() -> None:
    trace = BuildTrace()
    list(trace.feed(_vertex("a", "beside", started=1, completed=2, error="context canceled")))
    list(trace.feed(_vertex("b", "to blame", started=1) + _log("b", "boom\n")))
    list(trace.feed(_vertex("b", "to blame", started=1, completed=2, error="exit code: 1")))
    assert trace.failure == ("to blame", "exit code: 1", ("boom",))


def test_a_progress_bar_leaves_its_last_state() -> None:
    trace = BuildTrace()
    list(trace.feed(_vertex("a", "x", started=1)))
    assert list(trace.feed(_log("a", "10%\r50%\r100%\r\n"))) == ["#1 100%"]


def test_bytes_that_are_no_text_do_no_harm() -> None:
    trace = BuildTrace()
    message = _field(3, _field(1, "a") + _field(4, b"\xff\xfe\n"))
    assert list(trace.feed(message)) == ["#1 \ufffd\ufffd"]


@pytest.mark.parametrize("message", [b"\x0a", b"\x0a\x05ab", b"\x80", b"\x0b", b"\x09\x01"])
def test_what_is_no_protobuf_is_refused(message: bytes) -> None:
    with pytest.raises(ValueError, match="protobuf"):
        list(read_fields(message))
