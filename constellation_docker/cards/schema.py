"""Bringing a database to the schema that this version of the code needs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect

from constellation_docker.cards.errors import StoreRefused

if TYPE_CHECKING:
    from alembic.config import Config

# Not Alembic's default name: the database may be shared with a backend that has migrations of its own.
VERSION_TABLE = "constellation_schema_version"

# What this code needs. Known here, so that opening a store that is up to date need not import Alembic.
HEAD = "0003"

# Any number that no one else in the same database uses for an advisory lock ("constellation" in ASCII sums).
_MIGRATION_LOCK = 0x636F6E7374656C6C & 0x7FFFFFFFFFFFFFFF


def schema_version(connection: Connection) -> str | None:
    """The schema version of a database; None for one that has none of our tables."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.exec_driver_sql(f"SELECT version_num FROM {VERSION_TABLE}").scalar()  # noqa: S608


def migrate(connection: Connection, target: str = "head") -> str:
    """Bring the schema to a version, within the connection's transaction. Several processes may do so at once.

    Args:
        connection: An open connection in a transaction; for SQLite one begun IMMEDIATE.
        target: A revision, or `head`. An earlier revision than the present one undoes; `base` removes all.

    Returns:
        The version that the schema now has.

    Raises:
        StoreRefused: A newer version of this code has changed the schema already.
    """
    if connection.dialect.name == "postgresql":
        # Held until the transaction ends; unlike a session's lock it also works behind a transaction pooler.
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})")
    present = schema_version(connection)
    if present == target or (target == "head" and present == HEAD):
        return present

    from alembic import command
    from alembic.script import ScriptDirectory

    config = alembic_config(connection)
    known = {script.revision: script for script in ScriptDirectory.from_config(config).walk_revisions()}
    if present is not None and present not in known:
        raise StoreRefused(
            f"The card store has schema version {present}, which this version of constellation-docker does not know.",
            remedy="Upgrade constellation-docker: a newer one has used this store.",
            schema_version=present,
        )
    if target == "base" or (present is not None and target != "head" and target < present):
        command.downgrade(config, target)
    else:
        command.upgrade(config, target)
    return schema_version(connection) or "base"


def alembic_config(connection: Connection) -> Config:
    """Alembic's configuration for one connection; nobody needs an `alembic.ini`."""
    from alembic.config import Config

    config = Config()
    # A percent sign in the installation's path would otherwise be read as an interpolation.
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
