"""Finding, comparing and changing records: what the tables' own modules share."""

from __future__ import annotations

import uuid
from datetime import datetime
from importlib import import_module
from typing import Any

from sqlalchemy import ColumnElement, and_, or_, select, update
from sqlalchemy.orm import Session

from constellation_docker.cards.canonical_json import checked_text
from constellation_docker.cards.errors import CardNotFound, InvalidCard
from constellation_docker.cards.model_card import ModelCard
from constellation_docker.cards.registration import IDENTITY_FIELDS
from constellation_docker.cards.tables import ModelCardRecord, Tables
from constellation_docker.errors import InvalidInput


def insert_or_ignore(session: Session, table: type[Tables]) -> Any:
    """An INSERT that does nothing where a key is taken."""
    # Imported here: both dialects together double the time that importing SQLAlchemy takes.
    dialect = import_module(f"sqlalchemy.dialects.{session.get_bind().dialect.name}")
    return dialect.insert(table).on_conflict_do_nothing()


def is_after(since: datetime | tuple[datetime, str], moment: Any, key: Any) -> ColumnElement[bool]:
    """The condition for rows from a moment on, or behind a row that was read: `(moment, key)`."""
    if isinstance(since, datetime):
        condition: ColumnElement[bool] = moment >= since
        return condition
    return or_(moment > since[0], and_(moment == since[0], key > since[1]))


def find_record(
    session: Session, model_name: str, model_version: str, *, lock: bool = False
) -> ModelCardRecord | None:
    """The record of a name and version; locked against other writers until the transaction ends, if asked."""
    query = select(ModelCardRecord).where(
        ModelCardRecord.model_name == model_name, ModelCardRecord.model_version == model_version
    )
    return session.scalar(query.with_for_update() if lock else query)


def not_found(what: str) -> CardNotFound:
    """The error for a model version that is not there."""
    return CardNotFound(
        f"There is no model version {what[:200]} in the card store.",
        remedy="List what there is with `constellation-docker cards list`.",
        model=what[:200],
    )


def checked_uuid(text: str) -> str:
    """A UUID in its usual form.

    Raises:
        InvalidInput: It is none.
    """
    try:
        return str(uuid.UUID(text))
    except (ValueError, AttributeError, TypeError):
        raise InvalidInput(
            f"{str(text)[:80]!r} is not a model_id.",
            remedy="Give the UUID under which the version is registered.",
        ) from None


def is_storable(*texts: str) -> bool:
    """Whether texts can be in a database at all."""
    try:
        return all(checked_text(text) is text for text in texts)
    except ValueError:
        return False


def columns_of(card: ModelCard) -> dict[str, Any]:
    """A card as the columns of its row."""
    registration = card.to_registration()
    return {**{name: registration[name] for name in IDENTITY_FIELDS}, "card": registration["model_card"]}


def update_record(session: Session, record: ModelCardRecord, values: dict[str, Any]) -> None:
    """Change a record and read back what the database's triggers made of it."""
    session.execute(
        update(ModelCardRecord).where(ModelCardRecord.model_id == record.model_id).values(**values),
        execution_options={"synchronize_session": False},
    )
    session.refresh(record)


def differences(record: ModelCardRecord, card: ModelCard) -> list[str]:
    """The fields in which a card differs from a record, `constellation` one level deeper."""
    present: dict[str, Any] = {name: getattr(record, name) for name in IDENTITY_FIELDS} | {
        "card": record.card
    }
    try:
        present = columns_of(ModelCard.from_row(**present))
    except InvalidCard:
        return ["the whole card"]
    return sorted(
        name
        for name in {*_fields(present), *_fields(columns_of(card))}
        if _fields(present).get(name) != _fields(columns_of(card)).get(name)
    )


def _fields(columns: dict[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {name: columns[name] for name in IDENTITY_FIELDS} | columns["card"]
    serving = fields.pop("constellation", {})
    return fields | {f"constellation.{name}": value for name, value in serving.items()}
