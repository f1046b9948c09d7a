"""API keys: made, shown once, checked, revoked. The store keeps a digest, never a key.

A key is `constellation_<key id>_<secret>`: the prefix lets secret scanners know it, the id finds its row, the
secret is 256 random bits. Its digest is plain SHA-256: slow password hashes make guessing dear where people
choose the secret, and nobody guesses 256 random bits; a slow hash would only make every call dear.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from constellation_docker.cards.database import Database
from constellation_docker.cards.errors import StoreRefused, StoreUnavailable
from constellation_docker.cards.tables import ApiKeyRecord
from constellation_docker.errors import ConstellationError, InvalidInput
from constellation_docker.gateway.access.principal import Principal, Role

PREFIX = "constellation_"
SECRET_BYTES = 32
LAST_USED_SECONDS = 60.0
LONGEST_NAME = 100

_FORM = re.compile(r"constellation_([0-9a-f]{12})_([0-9a-f]{64})")
# Compared with where a key id is unknown, so that both answers cost the same.
_NO_DIGEST = "0" * 64
_log = logging.getLogger(__name__)


class KeyNotFound(ConstellationError):
    """There is no API key of that id."""

    code = "key_not_found"


class KeyRefused(ConstellationError):
    """The presented key lets nobody in: unknown, wrong, revoked or expired.

    Args:
        message: See `ConstellationError`.
        remedy: See `ConstellationError`.
        is_guess: Whether whoever presents it may never have had a right one.
    """

    code = "key_refused"

    def __init__(self, message: str, *, remedy: str = "", is_guess: bool = False) -> None:
        super().__init__(message, remedy=remedy)
        self.is_guess = is_guess


@dataclass(frozen=True)
class ApiKey:
    """What is known of a key: everything but the key itself. Moments are in UTC."""

    key_id: str
    name: str
    role: Role
    environments: frozenset[str] | None
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None

    @property
    def principal(self) -> Principal:
        """Who calls with it."""
        return Principal(self.name, self.role, self.environments, "api_key", f"key:{self.key_id}")

    def problem(self, now: datetime) -> str:
        """Why it is of no use any more; empty where it is."""
        if self.revoked_at is not None:
            return "is revoked"
        if self.expires_at is not None and self.expires_at <= now:
            return f"expired at {self.expires_at:%Y-%m-%d %H:%M} UTC"
        return ""


class ApiKeys:
    """The keys in one store; safe to share between threads. Every call may raise as `CardStore`'s do."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._noted: dict[str, float] = {}
        self._noting = threading.Lock()

    def create(
        self,
        name: str,
        role: Role,
        *,
        environments: Collection[str] | None = None,
        expires_at: datetime | None = None,
    ) -> tuple[str, ApiKey]:
        """Make a key.

        Args:
            name: Whom people know by it.
            role: What its holder may do.
            environments: Where they may change something (`*`: everywhere). None: where the role may.
            expires_at: When it ends (aware). None: when it is revoked.

        Returns:
            The key, which nobody can be shown again, and what is kept of it.
        """
        if not name.strip() or len(name) > LONGEST_NAME or not name.isprintable():
            raise InvalidInput(
                f"The name of an API key is 1 to {LONGEST_NAME} printable characters.",
                remedy="Name the person or program that will hold it.",
            )
        key_id = secrets.token_hex(6)
        key = f"{PREFIX}{key_id}_{secrets.token_hex(SECRET_BYTES)}"
        record = ApiKeyRecord(
            key_id=key_id,
            name=name.strip(),
            role=role.value,
            environments=None if environments is None else sorted(set(environments)),
            digest=_digest(key),
            expires_at=expires_at,
        )
        with self._database.writing() as session:
            if expires_at is not None and expires_at <= self._database.now(session):
                raise InvalidInput("The key would have expired already.", remedy="Give a later moment.")
            session.add(record)
            session.flush()
            session.refresh(record)
            return key, _as_api_key(record)

    def list(self) -> list[ApiKey]:
        """All keys, the revoked and expired ones too, oldest first."""
        query = select(ApiKeyRecord).order_by(ApiKeyRecord.created_at, ApiKeyRecord.key_id)
        with self._database.reading() as session:
            return [_as_api_key(record) for record in session.scalars(query)]

    def revoke(self, key_id: str) -> ApiKey:
        """End a key; it stays on the list. Once more changes nothing.

        Raises:
            KeyNotFound: There is no such key.
        """
        with self._database.writing() as session:
            record = session.get(ApiKeyRecord, key_id)
            if record is None:
                raise KeyNotFound(
                    f"There is no API key {key_id!r}.", remedy="See `constellation-docker keys list`."
                )
            if record.revoked_at is None:
                record.revoked_at = self._database.now(session)
                session.flush()
            return _as_api_key(record)

    def any_usable(self) -> bool:
        """Whether anybody can call with a key."""
        with self._database.reading() as session:
            now = self._database.now(session)
            return any(
                not _as_api_key(record).problem(now) for record in session.scalars(select(ApiKeyRecord))
            )

    def check(self, presented: str) -> ApiKey:
        """The key that somebody presents.

        Raises:
            KeyRefused: It is not one of ours, or of no use any more. The message never repeats it.
        """
        form = _FORM.fullmatch(presented)
        with self._database.reading() as session:
            record = session.get(ApiKeyRecord, form[1]) if form else None
            now = self._database.now(session)
        expected = record.digest if record else _NO_DIGEST
        is_right = hmac.compare_digest(_digest(presented).encode(), expected.encode())
        if record is None or not is_right:
            raise KeyRefused(
                "The API key is not valid.", remedy="Ask an administrator for one.", is_guess=True
            )
        return self._usable(_as_api_key(record), now)

    def check_id(self, key_id: str) -> ApiKey:
        """The key of that id, for a session that was begun with it.

        Raises:
            KeyRefused: It is gone, or of no use any more.
        """
        with self._database.reading() as session:
            record = session.get(ApiKeyRecord, key_id)
            now = self._database.now(session)
        if record is None:
            raise KeyRefused("The API key is not valid.", remedy="Log in again.")
        return self._usable(_as_api_key(record), now)

    def _usable(self, key: ApiKey, now: datetime) -> ApiKey:
        if problem := key.problem(now):
            raise KeyRefused(
                f"The API key {key.key_id} {problem}.", remedy="Ask an administrator for a new one."
            )
        self._note_use(key, now)
        return key

    def _note_use(self, key: ApiKey, now: datetime) -> None:
        """Write down that a key is in use: at most once a minute, and never at the expense of the call."""
        with self._noting:
            if time.monotonic() - self._noted.get(key.key_id, -LAST_USED_SECONDS) < LAST_USED_SECONDS:
                return
            self._noted[key.key_id] = time.monotonic()
        if key.last_used_at and now - key.last_used_at < timedelta(seconds=LAST_USED_SECONDS):
            return
        try:
            with self._database.writing() as session:
                _write_use(session, key.key_id, now)
        except (StoreUnavailable, StoreRefused) as problem:
            _log.warning("When API key %s was last used could not be noted: %s", key.key_id, problem)


def _write_use(session: Session, key_id: str, now: datetime) -> None:
    session.execute(
        update(ApiKeyRecord).where(ApiKeyRecord.key_id == key_id).values(last_used_at=now),
        execution_options={"synchronize_session": False},
    )


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def _as_api_key(record: ApiKeyRecord) -> ApiKey:
    # A column that somebody else's SQL filled may hold JSON of another form: that grants nothing.
    environments = record.environments
    grants = None if environments is None else environments if isinstance(environments, list) else []
    return ApiKey(
        key_id=record.key_id,
        name=record.name,
        role=Role(record.role),
        environments=None if grants is None else frozenset(str(name) for name in grants),
        created_at=record.created_at,
        expires_at=record.expires_at,
        last_used_at=record.last_used_at,
        revoked_at=record.revoked_at,
    )
