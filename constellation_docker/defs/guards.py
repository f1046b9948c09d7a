"""Sensors and gateways launch side by side; the guards in the store see to it that none launches what another does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import dagster as dg

from constellation_docker.cards import DeploymentRow, ModelRow
from constellation_docker.cards.launch_guards import LaunchGuards
from constellation_docker.defs.resources import CardStoreResource

Row = TypeVar("Row", ModelRow, DeploymentRow)

HOLDER = "sensors"
"""One name for all ticks: a tick that is repeated because its runs never came asks for them again, by the same run
keys. Dagster runs one tick of a sensor at a time."""

GUARD_SECONDS = 15.0
"""How long after a tick the daemon may take to put the runs that it was asked for into its storage."""


def request_guarded(
    cards: CardStoreResource,
    rows: Sequence[Row],
    plan: Callable[[Sequence[Row]], list[dg.RunRequest]],
    subject_of: Callable[[str], str],
    most: int,
) -> tuple[list[dg.RunRequest], set[str]]:
    """The runs that a tick requests, and the partitions that are held back for a later one.

    Whoever has a row's guard is launching it now. A guard that is taken here stays until it runs out, because
    the runs come into the storage only after the tick.

    Args:
        cards: The store.
        rows: Rows that may need a run.
        plan: Decides on the runs of some rows, from the runs that there are at that moment.
        subject_of: The guard's subject for a row's key.
        most: Most runs of one tick.

    Raises:
        StoreUnavailable: The guards cannot be taken; nothing may be launched.
    """
    wanted = plan(rows)
    now = {str(request.partition_key) for request in wanted[:most]}
    if not now:
        return [], set()
    with cards.open() as store:
        guards = LaunchGuards(store.database)
        taken = guards.take([subject_of(key) for key in now], holder=HOLDER, seconds=GUARD_SECONDS)
        # Asked again under the guards: a launch may have ended between the first look and now.
        free = [row for row in rows if row.key in now and subject_of(row.key) in taken]
        requests = plan(free) if free else []
        requested = {str(request.partition_key) for request in requests}
        for row in free:
            if row.key not in requested:
                guards.give_up(subject_of(row.key), holder=HOLDER)
    done = {row.key for row in free}
    return requests, {str(request.partition_key) for request in wanted} - done
