"""What a deployment's history says of one version, without reading the history: first, last, and what came after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import and_, case, func, select, type_coerce
from sqlalchemy.orm import aliased

from constellation_docker.cards.tables import ReleaseRecord, UtcTimestamp


@dataclass(frozen=True)
class ReleaseTrace:
    """One version in the history of one deployment.

    Args:
        environment: The deployment's environment.
        model_name: Its model.
        model_id: The version.
        first: The first revision that wanted the version.
        last: The last one.
        last_at: When that was.
        stable_at: When a rollout of the version ended well last; None where none did.
        next_model_id: The version that the revision after `last` wanted; None where `last` is the newest.
        next_first: The first revision that wanted that one.
    """

    environment: str
    model_name: str
    model_id: str
    first: int
    last: int
    last_at: datetime
    stable_at: datetime | None
    next_model_id: str | None
    next_first: int | None

    @property
    def was_rolled_back(self) -> bool:
        """Whether what came after it had been there before it."""
        return self.next_first is not None and self.next_first < self.last


def trace_query(model_names: Sequence[str]) -> Any:
    """The traces of all versions in the histories of some models' deployments.

    Revisions count up by one within a deployment, so what followed a version is the revision after its last.
    """
    record = ReleaseRecord
    service = (record.environment, record.model_name)
    stable = case((record.state == "running", record.stable_at))
    spans = (
        select(
            *service,
            record.model_id,
            func.min(record.revision).label("first"),
            func.max(record.revision).label("last"),
            func.max(record.created_at).label("last_at"),
            func.max(stable).label("stable_at"),
        )
        .where(record.model_name.in_(model_names))
        .group_by(*service, record.model_id)
        .cte("spans")
    )
    following, theirs = aliased(record), aliased(spans, name="theirs")
    return (
        select(
            spans.c.environment,
            spans.c.model_name,
            spans.c.model_id,
            spans.c.first,
            spans.c.last,
            type_coerce(spans.c.last_at, UtcTimestamp),
            type_coerce(spans.c.stable_at, UtcTimestamp),
            following.model_id,
            theirs.c.first,
        )
        .outerjoin(
            following,
            and_(
                following.environment == spans.c.environment,
                following.model_name == spans.c.model_name,
                following.revision == spans.c.last + 1,
            ),
        )
        .outerjoin(
            theirs,
            and_(
                theirs.c.environment == spans.c.environment,
                theirs.c.model_name == spans.c.model_name,
                theirs.c.model_id == following.model_id,
            ),
        )
        .order_by(spans.c.model_name, spans.c.environment, spans.c.last)
    )
