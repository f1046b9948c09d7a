"""The store's tables, as SQLAlchemy sees them. `migrations` makes them; docs/model-cards.md promises them.

Defaults, revisions, timestamps and the release history are the database's own work (column defaults and
triggers), so that a row which somebody else writes with plain SQL is as good as one that we write.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, FetchedValue, ForeignKey, Integer, String, Text, TypeDecorator, Uuid
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeEngine


class UtcTimestamp(TypeDecorator[datetime]):
    """A moment in UTC: `timestamptz` in PostgreSQL, sortable text (`2026-01-31 12:00:00.000000`) in SQLite."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "sqlite":
            return dialect.type_descriptor(Text())
        return dialect.type_descriptor(DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        moment = value.astimezone(UTC)
        return f"{moment:%Y-%m-%d %H:%M:%S.%f}" if dialect.name == "sqlite" else moment

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


# Both databases compare and sort these byte by byte, so that a page's last key means the same to both.
Name = Text().with_variant(Text(collation="C"), "postgresql")
ModelId = String(36).with_variant(Uuid(as_uuid=False), "postgresql")
Json = JSON(none_as_null=True)


class Tables(DeclarativeBase):
    """All tables of the store."""


class ModelCardRecord(Tables):
    """A row of `model_cards`: one model version."""

    __tablename__ = "model_cards"

    model_id: Mapped[str] = mapped_column(ModelId, primary_key=True, server_default=FetchedValue())
    model_name: Mapped[str] = mapped_column(Name)
    model_version: Mapped[str] = mapped_column(Name)
    repo_url: Mapped[str] = mapped_column(Text)
    branch: Mapped[str | None] = mapped_column(Text)
    card: Mapped[Any] = mapped_column(Json, server_default=FetchedValue(), nullable=False)
    revision: Mapped[int] = mapped_column(Integer, server_default=FetchedValue())
    created_at: Mapped[datetime] = mapped_column(UtcTimestamp, server_default=FetchedValue())
    updated_at: Mapped[datetime] = mapped_column(UtcTimestamp, server_default=FetchedValue())
    publication: Mapped[Any] = mapped_column(Json, nullable=True)
    published_at: Mapped[datetime | None] = mapped_column(UtcTimestamp)
    deleted_at: Mapped[datetime | None] = mapped_column(UtcTimestamp)


class ModelSlugRecord(Tables):
    """A row of `model_slugs`: whose a slug is. Ours alone; nobody else needs to write it."""

    __tablename__ = "model_slugs"

    slug: Mapped[str] = mapped_column(Name, primary_key=True)
    model_name: Mapped[str] = mapped_column(Name, unique=True)


class DeploymentRecord(Tables):
    """A row of `deployments`: what is wanted of a model in an environment."""

    __tablename__ = "deployments"

    environment: Mapped[str] = mapped_column(Name, primary_key=True)
    model_name: Mapped[str] = mapped_column(Name, primary_key=True)
    model_id: Mapped[str] = mapped_column(ModelId, ForeignKey("model_cards.model_id"))
    replicas: Mapped[int | None] = mapped_column(Integer)
    resources: Mapped[Any] = mapped_column(Json, nullable=True)
    state: Mapped[str] = mapped_column(Text, server_default=FetchedValue())
    revision: Mapped[int] = mapped_column(Integer, server_default=FetchedValue())
    stable_revision: Mapped[int | None] = mapped_column(Integer)
    requested_by: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcTimestamp, server_default=FetchedValue())
    updated_at: Mapped[datetime] = mapped_column(UtcTimestamp, server_default=FetchedValue())
    lease_holder: Mapped[str | None] = mapped_column(Text)
    lease_until: Mapped[datetime | None] = mapped_column(UtcTimestamp)


class ReleaseRecord(Tables):
    """A row of `deployment_releases`: one revision of a deployment, written by a trigger."""

    __tablename__ = "deployment_releases"

    environment: Mapped[str] = mapped_column(Name, primary_key=True)
    model_name: Mapped[str] = mapped_column(Name, primary_key=True)
    revision: Mapped[int] = mapped_column(Integer, primary_key=True)
    model_id: Mapped[str] = mapped_column(ModelId)
    image: Mapped[str | None] = mapped_column(Text)
    replicas: Mapped[int | None] = mapped_column(Integer)
    resources: Mapped[Any] = mapped_column(Json, nullable=True)
    state: Mapped[str] = mapped_column(Text)
    requested_by: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcTimestamp, server_default=FetchedValue())
    stable_at: Mapped[datetime | None] = mapped_column(UtcTimestamp)


class ApiKeyRecord(Tables):
    """A row of `api_keys`: who may call the gateway. The key itself is nowhere, only its digest."""

    __tablename__ = "api_keys"

    key_id: Mapped[str] = mapped_column(Name, primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    role: Mapped[str] = mapped_column(Text)
    environments: Mapped[Any] = mapped_column(Json, nullable=True)
    digest: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcTimestamp, server_default=FetchedValue())
    expires_at: Mapped[datetime | None] = mapped_column(UtcTimestamp)
    last_used_at: Mapped[datetime | None] = mapped_column(UtcTimestamp)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcTimestamp)


class LaunchGuardRecord(Tables):
    """A row of `launch_guards`: somebody is about to start a run."""

    __tablename__ = "launch_guards"

    subject: Mapped[str] = mapped_column(Name, primary_key=True)
    holder: Mapped[str] = mapped_column(Text)
    until: Mapped[datetime] = mapped_column(UtcTimestamp)


class AnsweredCallRecord(Tables):
    """A row of `answered_calls`: a call with an Idempotency-Key, and its answer once it has one."""

    __tablename__ = "answered_calls"

    caller: Mapped[str] = mapped_column(Name, primary_key=True)
    key: Mapped[str] = mapped_column(Name, primary_key=True)
    fingerprint: Mapped[str] = mapped_column(Text)
    status: Mapped[int | None] = mapped_column(Integer)
    answer: Mapped[Any] = mapped_column(Json, nullable=True)
    created_at: Mapped[datetime] = mapped_column(UtcTimestamp)
