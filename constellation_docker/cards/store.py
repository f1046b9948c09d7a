"""The card store: what is wanted."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from types import TracebackType
from typing import Self

from constellation_docker.cards.database import Database
from constellation_docker.cards.deployment_table import KEEP, DeploymentTable, Keep
from constellation_docker.cards.model_table import ModelTable
from constellation_docker.cards.rows import DeploymentRow, InvalidRow, ModelRow, Release
from constellation_docker.settings import Settings, resolve_secret

__all__ = ["KEEP", "CardStore", "DeploymentRow", "InvalidRow", "Keep", "ModelRow", "Release", "open_store"]


class CardStore(ModelTable, DeploymentTable):
    """Model versions and deployments in one database; safe to share between threads.

    Make one with `CardStore.open`. Model versions: `ModelTable`; deployments: `DeploymentTable`.

    Every call is one transaction. Every call may raise `StoreUnavailable` (the database does not answer; try
    again later) and `StoreRefused` (it answers, and trying again will not help).
    """

    def __init__(self, database: Database) -> None:
        ModelTable.__init__(self, database)
        DeploymentTable.__init__(self, database, self._slug_problems)

    @classmethod
    def open(
        cls, url: str, password: str | None = None, *, clock: Callable[[], datetime] | None = None
    ) -> Self:
        """Open a store and bring its schema up to date. Several processes may open a new one at once.

        Args:
            url: `sqlite:////absolute/path/cards.db` (its directory is made) or `postgresql://user@host/name`,
                with any libpq option such as `?sslmode=require`. A transaction pooler in front is fine.
            password: The password, kept out of the URL.
            clock: The time for leases (aware). Default: the database's own clock.

        Raises:
            InvalidInput: The URL is not one of a store.
            StoreUnavailable: The database does not answer.
            StoreRefused: It refuses us, or a newer version of this code has changed its schema.
        """
        database = Database(url, password, clock=clock)
        try:
            database.prepare()
        except BaseException:
            database.close()
            raise
        return cls(database)

    @property
    def database(self) -> Database:
        """The database itself, for rooms that keep a table of their own in it."""
        return self._database

    @property
    def address(self) -> str:
        """Where the store is, without its password."""
        return self._database.address

    def schema_version(self) -> str | None:
        """The version of the database's schema."""
        return self._database.version()

    def close(self) -> None:
        """Close every connection to the database."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_store(settings: Settings) -> CardStore:
    """The store that the settings name.

    Raises:
        As `CardStore.open`; and InvalidInput where the password's reference cannot be read.
    """
    password = resolve_secret(settings.database_password) if settings.database_password else None
    return CardStore.open(settings.store_url, password)
