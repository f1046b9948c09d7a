"""What happens on an engine, as it tells it, without gaps."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from constellation_docker.engine.connection import Connection
from constellation_docker.engine.errors import CallCancelled, EngineUnreachable
from constellation_docker.engine.stream import never, read_messages

RECONNECT_SECONDS = 60.0
_PAUSE_SECONDS = 0.5
_NANOS = 1_000_000_000


@dataclass(frozen=True)
class Event:
    """One event.

    Attributes:
        type: What it happened to: `container`, `image`, `network`, `volume`, `daemon`…
        action: `start`, `die`, `health_status: healthy`, …
        id: The object's id.
        attributes: Its name, labels, exit code, …
        nanoseconds: The engine's time, since 1970.
    """

    type: str
    action: str
    id: str
    attributes: dict[str, str]
    nanoseconds: int


class Events(Connection):
    """Events of the engine."""

    def now(self) -> float:
        """The engine's own clock, in seconds since 1970: what `since` of `events` and `logs` is measured by."""
        told = str(self.info()["SystemTime"])
        # RFC 3339 with nanoseconds, of which datetime takes six digits.
        head, _, rest = told.partition(".")
        digits = rest.rstrip("Z").partition("+")[0].partition("-")[0][:6] or "0"
        zone = "+00:00" if told.endswith("Z") or not rest else rest.lstrip("0123456789")
        return datetime.fromisoformat(f"{head.removesuffix('Z')}.{digits.ljust(6, '0')}{zone}").timestamp()

    def events(
        self,
        *,
        since: float | None = None,
        until: float | None = None,
        filters: Mapping[str, Sequence[str]] | None = None,
        is_cancelled: Callable[[], bool] = never,
        reconnect_seconds: float = RECONNECT_SECONDS,
    ) -> Iterator[Event]:
        """Yield events as they come, each once.

        An engine that restarts, or a connection that is dropped on the way, ends the stream without a word; this
        takes it up again where it ended. The engine remembers its last 256 events, and none from before its own start.

        Args:
            since: Begin with events after this time by the engine's clock (`now`); None: with the next one.
            until: End there; None: never.
            filters: As of `docker events`: `{"label": ["a=b"], "event": ["die"]}`.
            is_cancelled: Asked about ten times a second; when true, the events end.
            reconnect_seconds: How long to wait for an engine that went away.

        Raises:
            EngineUnreachable: The engine is not there at first, or stays away longer than `reconnect_seconds`.
        """
        position = int((self.now() if since is None else since) * _NANOS)
        seen: set[tuple[str, str, int]] = set()
        away_since: float | None = None
        is_first = True
        while True:
            try:
                for event in self._read_events(position, until, filters, is_cancelled):
                    away_since, is_first = None, False
                    key = (event.id, event.action, event.nanoseconds)
                    if key in seen:
                        continue
                    if event.nanoseconds > position:
                        position, seen = event.nanoseconds, set()
                    seen.add(key)
                    yield event
            except CallCancelled:
                return
            except EngineUnreachable:
                away_since = time.monotonic() if away_since is None else away_since
                if is_first or time.monotonic() - away_since > reconnect_seconds:
                    raise
            else:
                is_first = False
                if until is not None and self.now() >= until:
                    return
            if not _pause(is_cancelled):
                return

    def _read_events(
        self,
        position: int,
        until: float | None,
        filters: Mapping[str, Sequence[str]] | None,
        is_cancelled: Callable[[], bool],
    ) -> Iterator[Event]:
        parameters = {
            "since": f"{position // _NANOS}.{position % _NANOS:09d}",
            "until": None if until is None else f"{until:.9f}",
            "filters": json.dumps({key: list(values) for key, values in (filters or {}).items()}),
        }
        for message in self._streaming(
            "following its events",
            lambda client, _: client.call("GET", "/events", params=parameters, is_stream=True),
            read_messages,
            is_cancelled=is_cancelled,
        ):
            yield read_event(message)


def read_event(message: Mapping[str, Any]) -> Event:
    """An event from the engine's JSON; only the fields that API 1.52 keeps are read."""
    actor = message.get("Actor") or {}
    return Event(
        type=str(message.get("Type", "")),
        action=str(message.get("Action", "")),
        id=str(actor.get("ID", "")),
        attributes=dict(actor.get("Attributes") or {}),
        nanoseconds=int(message.get("timeNano") or 0),
    )


def _pause(is_cancelled: Callable[[], bool]) -> bool:
    """Wait a moment before connecting again; False where nobody wants to any more."""
    end = time.monotonic() + _PAUSE_SECONDS
    while time.monotonic() < end:
        if is_cancelled():
            return False
        time.sleep(0.05)
    return True
