"""A page of model versions, with their statuses.

What the store can tell of a status narrows its query; the rest is looked at row by row, a bounded number of
batches for each page: a page may be short, and its cursor goes on behind what was looked at.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from constellation_docker.cards.rows import InvalidRow, ModelRow
from constellation_docker.gateway.deadline import deadline
from constellation_docker.gateway.errors import GatewayError
from constellation_docker.gateway.overview import read_facts
from constellation_docker.gateway.ports import Ports
from constellation_docker.gateway.statuses import Status, VersionStatus, resolve_status

MOST_BATCHES = 4
SMALLEST_BATCH = 50

_UNPUBLISHED = frozenset({Status.PENDING, Status.PACKAGING})
_PUBLISHED = frozenset({Status.PACKAGED, Status.DEPLOYING, Status.DEPLOYED, Status.ROLLED_BACK})


class InvalidCursor(GatewayError):
    """A cursor that no page gave."""

    code = "invalid_cursor"
    default_status = 422


@dataclass(frozen=True)
class Selection:
    """Which versions are wanted; None: any."""

    name: str | None = None
    status: Status | None = None
    environment: str | None = None
    search: str | None = None


def read_page(
    ports: Ports, selection: Selection, *, after: str | None, limit: int
) -> tuple[list[tuple[ModelRow | InvalidRow, VersionStatus]], str | None]:
    """A page of versions with their statuses, and behind which key the next page begins.

    Args:
        ports: The gateway's ports.
        selection: Which versions.
        after: The key of the last version that was looked at before.
        limit: Most versions.

    Raises:
        StoreUnavailable, DagsterUnavailable: One of them does not answer, in the time that one answer may take.
    """
    with deadline(ports.settings.gateway.webserver_timeout_seconds):
        return _read_batches(ports, selection, after, limit)


def _read_batches(
    ports: Ports, selection: Selection, after: str | None, limit: int
) -> tuple[list[tuple[ModelRow | InvalidRow, VersionStatus]], str | None]:
    found: list[tuple[ModelRow | InvalidRow, VersionStatus]] = []
    batch = limit if selection.status is None else max(limit, SMALLEST_BATCH)
    for _ in range(1 if selection.status is None else MOST_BATCHES):
        # One more than is shown tells whether there is a next page.
        rows = _read_rows(ports, selection, after, batch + 1)
        shown = rows[:batch]
        statuses = [resolve_status(facts) for facts in read_facts(ports.store, ports.dagster, shown)]
        for number, (row, status) in enumerate(zip(shown, statuses, strict=True), start=1):
            after = row.key
            if selection.status in {None, status.status}:
                found.append((row, status))
            if len(found) == limit:
                return found, (after if number < len(rows) else None)
        if len(rows) <= batch:
            return found, None
    return found, after


def _read_rows(
    ports: Ports, selection: Selection, after: str | None, limit: int
) -> list[ModelRow | InvalidRow]:
    status = selection.status
    is_published = False if status in _UNPUBLISHED else True if status in _PUBLISHED else None
    return ports.store.list_models(
        include_deleted=status is Status.DELETED,
        name=selection.name,
        environment=selection.environment,
        is_published=is_published,
        search=selection.search,
        after=after,
        limit=limit,
    )


def write_cursor(key: str) -> str:
    """A key as a cursor."""
    return base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")


def read_cursor(cursor: str | None) -> str | None:
    """The key in a cursor.

    Raises:
        InvalidCursor: It is none of ours.
    """
    if cursor is None:
        return None
    try:
        key = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        key = ""
    if "@" not in key:
        raise InvalidCursor(
            "The cursor is not one that a page gave.", remedy="Leave it out to begin at the first page."
        )
    return key
