"""Guards around launches: whoever is about to start a run says so first, so that nobody else starts the same.

Between "there is no run yet" and "the run is in Dagster's storage" lies the time of a launch. Two gateways, or a
gateway and a sensor, would both look into that gap. So each takes the subject's guard in the database first; who
does not get it waits and then finds the run. A guard that was left runs out by itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from constellation_docker.cards.database import Database
from constellation_docker.cards.records import insert_or_ignore
from constellation_docker.cards.tables import LaunchGuardRecord


class LaunchGuards:
    """The guards of one database; every call is one transaction and may raise as the store's do."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def take(self, subjects: Iterable[str], *, holder: str, seconds: float) -> set[str]:
        """Take the guards of some subjects, as far as they are free or the holder's already.

        Args:
            subjects: What is to be launched, such as `packaging name@version`.
            holder: Who launches; one name for each launch, so that nobody gives up another one's guard.
            seconds: How long the guards last where they are not given up.

        Returns:
            The subjects whose guard is now the holder's. The others are being launched by somebody else.
        """
        wanted = sorted(set(subjects))
        if not wanted:
            return set()
        taken = set()
        with self._database.writing() as session:
            now = self._database.now(session)
            session.execute(delete(LaunchGuardRecord).where(LaunchGuardRecord.until <= now))
            until = now + timedelta(seconds=seconds)
            for subject in wanted:
                row = insert_or_ignore(session, LaunchGuardRecord).values(
                    subject=subject, holder=holder, until=until
                )
                is_new = session.scalar(row.returning(LaunchGuardRecord.subject)) is not None
                if is_new or self._is_extended(session, subject, holder, until):
                    taken.add(subject)
        return taken

    @staticmethod
    def _is_extended(session: Session, subject: str, holder: str, until: datetime) -> bool:
        extended = (
            update(LaunchGuardRecord)
            .where(LaunchGuardRecord.subject == subject, LaunchGuardRecord.holder == holder)
            .values(until=until)
            .returning(LaunchGuardRecord.subject)
        )
        return session.scalar(extended) is not None

    def give_up(self, subject: str, *, holder: str) -> None:
        """Free a guard, if the holder still has it."""
        with self._database.writing() as session:
            session.execute(
                delete(LaunchGuardRecord).where(
                    LaunchGuardRecord.subject == subject, LaunchGuardRecord.holder == holder
                )
            )

    def until(self, subject: str) -> datetime | None:
        """Until when a subject is guarded; None where it is free."""
        with self._database.reading() as session:
            return session.scalar(
                select(LaunchGuardRecord.until).where(
                    LaunchGuardRecord.subject == subject,
                    LaunchGuardRecord.until > self._database.now(session),
                )
            )


def packaging_subject(key: str) -> str:
    """The subject of a packaging: of `name@version`."""
    return f"packaging {key}"


def deployment_subject(key: str) -> str:
    """The subject of a deployment: of `environment|name`."""
    return f"deployment {key}"
