"""Changes of status as they happen: one look for all who listen, and none while nobody does.

Every second the store is asked which rows changed and Dagster which runs did; the statuses of these models are
worked out anew, and those that differ from what was told last are told. A change's id is the moment up to which
was looked, so whoever comes back with it is told the present status of all that changed since.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from anyio.to_thread import run_sync

from constellation_docker import run_tags as tags
from constellation_docker.cards import CardStore
from constellation_docker.cards.rows import InvalidRow, ModelRow
from constellation_docker.errors import ConstellationError
from constellation_docker.gateway.dagster_client import DagsterClient, Run, RunSelection
from constellation_docker.gateway.overview import read_facts
from constellation_docker.gateway.statuses import VersionStatus, resolve_status

_log = logging.getLogger(__name__)

MOST_CHANGES = 200
MOST_REMEMBERED = 10_000
WAITING_CHANGES = 1000
LONGEST_PAUSE_SECONDS = 30.0
OVERLAP = timedelta(seconds=5)
"""Transactions and clocks differ by so much: each look begins so much before the end of the last one."""


@dataclass(frozen=True)
class StatusChange:
    """A version, and the status that it has now.

    Args:
        moment: Up to when was looked; the id to come back with.
        row: The version.
        status: Its status.
    """

    moment: datetime
    row: ModelRow | InvalidRow
    status: VersionStatus

    @property
    def told(self) -> tuple[object, ...]:
        """What makes it differ from the change before."""
        services = tuple(
            (known.environment, known.status, known.revision, known.replicas, known.last_error)
            for known in self.status.services
        )
        return (self.status.status, self.status.last_error, services)


class StatusChanges:
    """Looks for changes while somebody listens. One for each gateway; belongs to its event loop.

    Args:
        store: What is wanted.
        dagster: What happened.
        poll_seconds: How often to look.
    """

    def __init__(self, store: CardStore, dagster: DagsterClient, *, poll_seconds: float) -> None:
        self._store = store
        self._dagster = dagster
        self._poll_seconds = poll_seconds
        self._listeners: set[asyncio.Queue[StatusChange]] = set()
        self._told: OrderedDict[str, tuple[object, ...]] = OrderedDict()
        self._task: asyncio.Task[None] | None = None

    async def listen(self, since: datetime | None = None) -> AsyncGenerator[StatusChange]:
        """Changes from now on, or from an earlier moment on.

        Args:
            since: The moment of the last change that was heard; what changed since is told as it is now.
        """
        queue: asyncio.Queue[StatusChange] = asyncio.Queue(WAITING_CHANGES)
        self._listeners.add(queue)
        try:
            if since is not None:
                for change in await run_sync(self._look, since - OVERLAP):
                    yield change
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._watch())
            while True:
                yield await queue.get()
        finally:
            self._listeners.discard(queue)

    async def _watch(self) -> None:
        moment = datetime.now(UTC)
        pause = self._poll_seconds
        while self._listeners:
            began = datetime.now(UTC)
            try:
                for change in await run_sync(self._look, moment - OVERLAP):
                    self._tell(change)
                moment, pause = began, self._poll_seconds
            except ConstellationError as error:
                # What is missed now is told once both answer again: the moment stays where it is.
                _log.warning("Changes of status cannot be looked for: %s", error)
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
            await asyncio.sleep(pause)

    def _tell(self, change: StatusChange) -> None:
        model_id = change.row.model_id
        if self._told.get(model_id) == change.told:
            return
        self._told[model_id] = change.told
        self._told.move_to_end(model_id)
        if len(self._told) > MOST_REMEMBERED:
            self._told.popitem(last=False)
        for queue in list(self._listeners):
            if queue.full():
                # Whoever does not keep up hears the newest; each change tells the whole status.
                queue.get_nowait()
            queue.put_nowait(change)

    def _look(self, since: datetime) -> list[StatusChange]:
        """The statuses of what changed since a moment, oldest change first."""
        began = datetime.now(UTC)
        (runs,) = self._dagster.several_runs(
            [RunSelection(updated_after=since.timestamp(), limit=MOST_CHANGES)]
        )
        rows = {row.model_id: row for row in self._store.changed_since(since, limit=MOST_CHANGES)}
        wishes = self._store.deployments_changed_since(since, limit=MOST_CHANGES)
        missing = {*_ids_of(runs), *(wish.model_id for wish in wishes)} - set(rows)
        # A rollback changes another version than the one that is wanted now.
        for trace in self._store.traces_of({wish.model_name for wish in wishes}) if wishes else []:
            if trace.next_model_id in rows or trace.next_model_id in missing:
                missing.add(trace.model_id)
        for row in self._store.look_up_many(missing - set(rows)) if missing else []:
            rows[row.model_id] = row
        some = list(rows.values())[: MOST_CHANGES * 2]
        found = read_facts(self._store, self._dagster, some)
        changes = [StatusChange(began, facts.row, resolve_status(facts)) for facts in found]
        return sorted(changes, key=lambda change: change.status.last_updated)


def _ids_of(runs: Iterable[Run]) -> set[str]:
    return {run.tags[tags.MODEL_ID] for run in runs if tags.MODEL_ID in run.tags}
