"""Calls that came with an Idempotency-Key, and what they were answered.

Source: the Internet draft draft-ietf-httpapi-idempotency-key-header. A key belongs to its caller; the same key
with another body is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import delete, update

from constellation_docker.cards.database import Database
from constellation_docker.cards.records import insert_or_ignore
from constellation_docker.cards.tables import AnsweredCallRecord


@dataclass(frozen=True)
class AnsweredCall:
    """A call that was seen before.

    Args:
        fingerprint: What distinguishes its request from others.
        answer: The body that it was answered; None where it was not answered well yet.
        status: The answer's HTTP status.
    """

    fingerprint: str
    answer: Mapping[str, Any] | None
    status: int | None


class AnsweredCalls:
    """The table of one database; every call is one transaction and may raise as the store's do."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, caller: str, key: str, fingerprint: str, *, keep: timedelta) -> AnsweredCall | None:
        """Note that a call begins.

        Args:
            caller: Who calls; two callers may use the same key.
            key: The Idempotency-Key.
            fingerprint: What distinguishes the request from others.
            keep: How long calls are remembered.

        Returns:
            The call as it was seen before; None where it is new.
        """
        with self._database.writing() as session:
            now = self._database.now(session)
            session.execute(delete(AnsweredCallRecord).where(AnsweredCallRecord.created_at <= now - keep))
            row = insert_or_ignore(session, AnsweredCallRecord).values(
                caller=caller, key=key, fingerprint=fingerprint, created_at=now
            )
            if session.scalar(row.returning(AnsweredCallRecord.key)) is not None:
                return None
            found = session.get_one(AnsweredCallRecord, (caller, key))
            return AnsweredCall(found.fingerprint, found.answer, found.status)

    def answer(self, caller: str, key: str, status: int, answer: Mapping[str, Any]) -> None:
        """Keep what a call was answered, for the next time that it comes."""
        with self._database.writing() as session:
            session.execute(
                update(AnsweredCallRecord)
                .where(AnsweredCallRecord.caller == caller, AnsweredCallRecord.key == key)
                .values(status=status, answer=dict(answer))
            )

    def forget(self, caller: str, key: str) -> None:
        """Let a key that was answered with an error be used again, also with a corrected body."""
        with self._database.writing() as session:
            session.execute(
                delete(AnsweredCallRecord).where(
                    AnsweredCallRecord.caller == caller,
                    AnsweredCallRecord.key == key,
                    AnsweredCallRecord.status.is_(None),
                )
            )
