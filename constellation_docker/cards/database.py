"""One database: its connection, its transactions, and its failures as our own errors."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session
from tenacity import retry, retry_if_exception, stop_after_delay, wait_random

from constellation_docker.cards.errors import StoreRefused, StoreUnavailable
from constellation_docker.cards.schema import HEAD, migrate, schema_version
from constellation_docker.errors import ConstellationError, InvalidInput

BUSY_TIMEOUT_SECONDS = 30
CONNECT_TIMEOUT_SECONDS = 10

# What a pooler's documentation adds to a URL for other clients, and libpq would refuse.
_FOREIGN_OPTIONS = ("pgbouncer", "connection_limit", "pool_timeout", "schema")
_LASTING_SQLSTATES = ("28", "3D", "42", "25006")
_PASSING_SQLITE_CODES = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
}
_LASTING_WORDS = (
    "password authentication failed",
    "no password supplied",
    "no pg_hba.conf entry",
    "does not exist",
    "permission denied",
    "invalid sslmode",
)


def store_url(url: str, password: str | None = None) -> URL:
    """A card store's URL as SQLAlchemy needs it.

    Args:
        url: `sqlite:///path`, `postgresql://…` or `postgres://…` (Supabase's own form).
        password: The password, where the URL has none.

    Raises:
        InvalidInput: It is not such a URL. The message never holds it: it may hold a password.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        parsed = None
    kind = parsed.get_backend_name() if parsed is not None and "://" in url else ""
    if parsed is None or kind not in {"sqlite", "postgresql", "postgres"}:
        raise InvalidInput(
            "The database_url is not the URL of a card store.",
            remedy="Write sqlite:////absolute/path/cards.db or postgresql://user@host:5432/name.",
        )
    if kind == "sqlite":
        if parsed.database in {None, "", ":memory:"}:
            raise InvalidInput(
                "The database_url names a SQLite database in memory, which every connection would lose.",
                remedy="Give a file: sqlite:////absolute/path/cards.db.",
            )
        return parsed.set(drivername="sqlite")
    parsed = parsed.set(drivername="postgresql+psycopg").difference_update_query(_FOREIGN_OPTIONS)
    inside = parsed.query.get("password")
    if isinstance(inside, str):
        # libpq takes it there too; here it would be part of every message that names the address.
        parsed = parsed.difference_update_query(["password"]).set(password=inside)
    return parsed.set(password=password) if password else parsed


_PASSING_ERRORS = (
    sqlalchemy.exc.OperationalError,
    sqlalchemy.exc.InterfaceError,
    sqlalchemy.exc.TimeoutError,
    sqlite3.OperationalError,
)


class Database:
    """One database, shared by all threads of a process.

    Args:
        url: See `store_url`.
        password: The password, where the URL has none.
        clock: Gives the time for leases (aware, UTC). Default: the database's own clock, which all machines share.
    """

    def __init__(
        self, url: str, password: str | None = None, *, clock: Callable[[], datetime] | None = None
    ) -> None:
        self.url = store_url(url, password)
        shown = self.url.difference_update_query(["sslpassword"])
        self.address = shown.set(drivername=self.url.get_backend_name()).render_as_string(hide_password=True)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._clock = clock
        self._engine = self._sqlite_engine() if self.is_sqlite else self._postgresql_engine()
        # SQLite cannot turn a reader into a writer while another writes; writers say so at once.
        self._writer = self._engine.execution_options(constellation_begin="BEGIN IMMEDIATE")

    def _postgresql_engine(self) -> Engine:
        options = {
            "application_name": "constellation_docker",
            "connect_timeout": CONNECT_TIMEOUT_SECONDS,
            # Prepared statements live in a session, and a transaction pooler (Supabase's port 6543) gives
            # each transaction another one.
            "prepare_threshold": None,
        }
        given = {name: value for name, value in options.items() if name not in self.url.query}
        return create_engine(
            self.url,
            connect_args=given,
            pool_pre_ping=True,
            pool_size=2,
            max_overflow=18,
            hide_parameters=True,
            json_serializer=_json,
        )

    def _sqlite_engine(self) -> Engine:
        path = Path(str(self.url.database))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreRefused(
                f"The directory {path.parent} for the card store cannot be made: {error.strerror}.",
                remedy="Set database_url or home to a place that can be written.",
            ) from error
        engine = create_engine(
            self.url,
            connect_args={"timeout": BUSY_TIMEOUT_SECONDS},
            pool_size=5,
            max_overflow=45,
            hide_parameters=True,
            json_serializer=_json,
        )

        @event.listens_for(engine, "connect")
        def _prepare(connection: Any, _record: Any) -> None:
            # The driver's own idea of transactions leaves DDL and SELECT outside of them; see
            # https://docs.sqlalchemy.org/en/20/dialects/sqlite.html#pysqlite-serializable
            connection.isolation_level = None
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA synchronous = NORMAL")

        @event.listens_for(engine, "begin")
        def _begin(connection: Connection) -> None:
            connection.exec_driver_sql(connection.get_execution_options().get("constellation_begin", "BEGIN"))

        return engine

    def prepare(self) -> None:
        """Make the schema what this code needs; quick where it is already.

        Raises:
            StoreUnavailable: The database does not answer.
            StoreRefused: It refuses us, or a newer version of this code has changed it.
        """
        with self._failures():
            if self.is_sqlite:
                self._use_write_ahead_log()
            with self._engine.connect() as connection:
                if schema_version(connection) == HEAD:
                    return
            with self._writer.begin() as connection:
                migrate(connection)

    def migrate(self, target: str = "head") -> str:
        """Bring the schema to a version (see `schema.migrate`) and return the version it then has."""
        with self._failures(), self._writer.begin() as connection:
            return migrate(connection, target)

    def version(self) -> str | None:
        """The schema's present version; None for a database without our tables."""
        with self._failures(), self._engine.connect() as connection:
            return schema_version(connection)

    # SQLite answers "locked" to this one without waiting when two processes open a new file at once.
    @retry(
        retry=retry_if_exception(lambda error: "locked" in str(error)),
        stop=stop_after_delay(BUSY_TIMEOUT_SECONDS),
        wait=wait_random(0.01, 0.1),
        reraise=True,
    )
    def _use_write_ahead_log(self) -> None:
        with closing(self._engine.raw_connection()) as connection:
            cursor = connection.cursor()
            if cursor.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                cursor.execute("PRAGMA journal_mode = WAL")

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A transaction that only reads."""
        with self._failures(), Session(self._engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A transaction that may write. It is undone if the block raises."""
        with self._failures(), Session(self._writer, expire_on_commit=False) as session, session.begin():
            yield session

    def now(self, session: Session) -> datetime:
        """The time: the injected clock's, else the database's."""
        if self._clock:
            return self._clock()
        query = (
            "SELECT strftime('%Y-%m-%d %H:%M:%f', 'now')" if self.is_sqlite else "SELECT clock_timestamp()"
        )
        value: Any = session.connection().exec_driver_sql(query).scalar_one()
        if isinstance(value, str):
            return datetime.fromisoformat(value).replace(tzinfo=UTC)
        return datetime.fromtimestamp(value.timestamp(), UTC)

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error) as error:
            # A connection's own PRAGMAs run beside SQLAlchemy, so their errors come as the driver's.
            raise self._as_our_own(error) from error

    def _as_our_own(self, error: SQLAlchemyError | sqlite3.Error) -> ConstellationError:
        cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
        reason = " ".join(str(cause).split()) or type(cause).__name__
        if self.url.password:
            reason = reason.replace(str(self.url.password), "***")
        is_lost = isinstance(error, DBAPIError) and error.connection_invalidated
        is_lasting = _says_lasting(cause, reason)
        if (isinstance(error, _PASSING_ERRORS) or is_lost) and not is_lasting:
            return StoreUnavailable(
                f"The card store at {self.address} does not answer: {reason}.",
                remedy="Nothing was read or changed; try again once the database answers.",
                address=self.address,
            )
        return StoreRefused(
            f"The card store at {self.address} refused: {reason}.",
            remedy="Check database_url and database_password, and the rights of that user; see docs/model-cards.md.",
            address=self.address,
        )


def _says_lasting(cause: BaseException, reason: str) -> bool:
    """Whether trying again cannot help."""
    if isinstance(cause, sqlite3.Error):
        return getattr(cause, "sqlite_errorcode", 0) & 0xFF not in _PASSING_SQLITE_CODES
    # Before a session begins, PostgreSQL's client gives no code: there is only the sentence to go by.
    state = getattr(cause, "sqlstate", None) or ""
    return state.startswith(_LASTING_SQLSTATES) or any(word in reason for word in _LASTING_WORDS)


def _json(value: Any) -> str:
    """JSON for a column: keys stay in their writer's order."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
