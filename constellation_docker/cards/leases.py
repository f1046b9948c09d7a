"""A lease: at most one holder works on a deployment at a time, and a holder that dies blocks nobody for long."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self

from sqlalchemy import update
from sqlalchemy.orm import Session

from constellation_docker.cards.database import Database
from constellation_docker.cards.errors import DeploymentNotFound, LeaseHeld, LeaseLost, StoreUnavailable
from constellation_docker.cards.tables import DeploymentRecord

_log = logging.getLogger(__name__)


class Lease:
    """The sole right to work on a deployment, for a while.

    Example:
        >>> with store.lease("dev", "acme/x", holder=run_id, seconds=900) as lease:  # doctest: +SKIP
        ...     step()
        ...     lease.renew()  # before each further long step

    The same holder may take it again, so that a step that is tried again does not wait for itself.

    Args:
        database: The store's database.
        environment: The deployment's environment.
        model_name: The deployment's model.
        holder: Who works, such as a run's id.
        seconds: How long the right lasts when its holder is not heard of again.
    """

    def __init__(
        self, database: Database, environment: str, model_name: str, *, holder: str, seconds: float
    ) -> None:
        self._database = database
        self._key = {"environment": environment, "model_name": model_name}
        self._seconds = seconds
        self.holder = holder
        self.until: datetime | None = None

    def acquire(self) -> Self:
        """Take the lease.

        Raises:
            LeaseHeld: Somebody else has it; `details` say who and until when.
            DeploymentNotFound: There is no such deployment.
        """
        with self._database.writing() as session:
            record = self._record(session)
            now = self._database.now(session)
            if _is_held(record, now) and record.lease_holder != self.holder:
                raise LeaseHeld(
                    f"{self._title} is being worked on by {record.lease_holder} until {record.lease_until:%H:%M:%S} UTC.",
                    remedy="Wait for it to end; if its run is dead, the lease runs out by itself.",
                    holder=record.lease_holder,
                    until=record.lease_until.isoformat() if record.lease_until else None,
                )
            self._extend(session, now, self._seconds)
        return self

    def renew(self, seconds: float | None = None) -> datetime:
        """Extend the lease from now on.

        Returns:
            Until when it now lasts.

        Raises:
            LeaseLost: It ran out and somebody else took it. Stop working.
        """
        with self._database.writing() as session:
            record = self._record(session)
            if record.lease_holder != self.holder:
                now_held = f"{record.lease_holder} has it now" if record.lease_holder else "it was released"
                raise LeaseLost(
                    f"{self.holder} has lost the lease on {self._title}: {now_held}.",
                    remedy="Run again; the next run finds out where things are.",
                    holder=record.lease_holder,
                )
            return self._extend(session, self._database.now(session), seconds or self._seconds)

    def release(self) -> None:
        """Give the lease up, if it is still held."""
        with self._database.writing() as session:
            session.execute(
                update(DeploymentRecord)
                .filter_by(**self._key, lease_holder=self.holder)
                .values(lease_holder=None, lease_until=None)
            )
        self.until = None

    def __enter__(self) -> Self:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.release()
        except StoreUnavailable as problem:
            # The work is done, or has failed with an error of its own; the lease runs out by itself.
            _log.warning("The lease on %s was not released: %s", self._title, problem)

    @property
    def _title(self) -> str:
        return f"{self._key['model_name']} in {self._key['environment']}"

    def _record(self, session: Session) -> DeploymentRecord:
        key: Any = (self._key["environment"], self._key["model_name"])
        record = session.get(DeploymentRecord, key, with_for_update=True)
        if record is None:
            raise DeploymentNotFound(
                f"Nothing was ever deployed of {self._title}.",
                remedy="Deploy a published version of it first.",
            )
        return record

    def _extend(self, session: Session, now: datetime, seconds: float) -> datetime:
        self.until = now + timedelta(seconds=seconds)
        session.execute(
            update(DeploymentRecord)
            .filter_by(**self._key)
            .values(lease_holder=self.holder, lease_until=self.until),
            execution_options={"synchronize_session": False},
        )
        return self.until


def _is_held(record: DeploymentRecord, now: datetime) -> bool:
    return record.lease_holder is not None and record.lease_until is not None and record.lease_until > now
