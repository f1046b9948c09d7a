"""JSON lines on standard output: one a request, one an event. No payloads unless the operator asks.

Every value goes through the JSON renderer, so nothing that a client sends can start a line of its own.
"""

from __future__ import annotations

import logging
import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import orjson

MAX_TEXT = 2_000
"""Characters of a payload, a traceback or a foreign log message that a line may hold."""


class Log:
    """Writes whole lines; with `defer` set, lines of one turn of the event loop go out in one write.

    Args:
        write: Takes complete lines; default: standard output's file descriptor.
    """

    def __init__(self, write: Callable[[bytes], None] | None = None) -> None:
        self._write = write or _write_standard_output
        self._lines: list[bytes] = []
        self.defer: Callable[[Callable[[], None]], object] | None = None

    def event(self, name: str, *, level: str = "info", **facts: Any) -> None:
        """Write one event at once; `None` values are left out."""
        self.flush()
        self._write(_render(name, level, facts))

    def request(self, **facts: Any) -> None:
        """Write one request's line, soon."""
        self._lines.append(_render("request", "info" if facts.get("status", 0) < 500 else "error", facts))
        if self.defer is None:
            self.flush()
        elif len(self._lines) == 1:
            self.defer(self.flush)

    def fault(self, name: str, problem: BaseException, **facts: Any) -> None:
        """Write an exception with its traceback; only the log ever sees one."""
        text = "".join(traceback.format_exception(problem))
        self.event(
            name,
            level="error",
            exception=type(problem).__name__,
            message=str(problem)[:MAX_TEXT],
            traceback=text[-2 * MAX_TEXT :],
            **facts,
        )

    def flush(self) -> None:
        """Write the lines that wait."""
        if self._lines:
            lines, self._lines = self._lines, []
            self._write(b"".join(lines))


class ForeignLogHandler(logging.Handler):
    """Brings what libraries log through `logging` into the same JSON lines."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record as one line."""
        text = "".join(traceback.format_exception(record.exc_info[1])) if record.exc_info else ""
        self._log.event(
            "library",
            level=record.levelname.lower(),
            logger=record.name,
            message=record.getMessage()[:MAX_TEXT],
            traceback=text[-2 * MAX_TEXT :] or None,
        )


def _render(name: str, level: str, facts: dict[str, Any]) -> bytes:
    line = {"time": round(time.time(), 3), "level": level, "event": name}
    line.update((key, value) for key, value in facts.items() if value is not None)
    try:
        return orjson.dumps(line, default=repr, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # lone surrogates, from file names and the like
        safe = {
            key: value.encode("ascii", "backslashreplace").decode() if isinstance(value, str) else repr(value)
            for key, value in line.items()
        }
        return orjson.dumps(safe, option=orjson.OPT_APPEND_NEWLINE)


def _write_standard_output(lines: bytes) -> None:
    """Past Python's buffer, so that lines survive `os._exit`; a closed reader must not stop the server."""
    view = memoryview(lines)
    try:
        while view:
            view = view[os.write(sys.__stdout__.fileno() if sys.__stdout__ else 1, view) :]
    except (OSError, ValueError):
        return
