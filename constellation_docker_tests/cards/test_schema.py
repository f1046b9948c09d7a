"""The schema's migrations, and that the tables are what the code thinks they are."""

from __future__ import annotations

from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect

from constellation_docker.cards import CardStore, StoreRefused
from constellation_docker.cards.database import Database, store_url
from constellation_docker.cards.schema import HEAD, VERSION_TABLE, alembic_config, schema_version
from constellation_docker.cards.tables import Tables
from constellation_docker_tests.cards.conftest import AnySql, make_card


def leftovers(url: str) -> list[str]:
    engine = create_engine(store_url(url))
    with engine.connect() as connection:
        names = inspect(connection).get_table_names()
        if not url.startswith("sqlite"):
            functions = "SELECT proname FROM pg_proc WHERE proname LIKE 'constellation_%%'"
            names += [row[0] for row in connection.exec_driver_sql(functions)]
    engine.dispose()
    return sorted(set(names) - {VERSION_TABLE})


def test_migrations_go_up_down_and_up_again(url: str) -> None:
    database = Database(url)
    assert database.version() is None
    assert database.migrate() == HEAD
    assert database.migrate() == HEAD
    assert database.migrate("base") == "base"
    assert leftovers(url) == []
    database.prepare()
    assert database.version() == HEAD
    CardStore(database).add(make_card())
    database.close()


def test_the_code_knows_the_newest_migration(url: str) -> None:
    database = Database(url)
    with database.writing() as session:
        config = alembic_config(session.connection())
        assert ScriptDirectory.from_config(config).get_heads() == [HEAD]
    database.close()


def test_the_tables_are_what_the_code_thinks_they_are(store: CardStore, url: str) -> None:
    engine = create_engine(store_url(url))
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": VERSION_TABLE, "compare_type": False}
        )
        found: list[Any] = compare_metadata(context, Tables.metadata)
        # Which constraint makes a name unique, and helpful indexes, are the migration's own business.
        differs = [
            entry
            for entry in found
            if entry[0] not in {"remove_index", "add_constraint", "remove_constraint"}
        ]
        assert differs == []
        assert schema_version(connection) == HEAD
    engine.dispose()


def test_a_store_that_newer_code_has_changed_is_left_alone(store: CardStore, sql: AnySql, url: str) -> None:
    sql(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    with pytest.raises(StoreRefused, match="schema version 9999") as caught:
        CardStore.open(url)
    assert not caught.value.is_transient


def test_a_database_that_a_backend_migrates_with_alembic_too_can_be_shared(url: str) -> None:
    engine = create_engine(store_url(url))
    with CardStore.open(url):
        pass
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        connection.exec_driver_sql("INSERT INTO alembic_version VALUES ('theirs')")
    engine.dispose()
    with CardStore.open(url) as store:
        assert store.schema_version() == HEAD


def test_a_failed_migration_leaves_nothing_behind(url: str) -> None:
    Database(url).close()  # makes a SQLite file's directory
    engine = create_engine(store_url(url))
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE deployments (theirs INTEGER)")
    with pytest.raises(StoreRefused, match="already exists"):
        CardStore.open(url)
    assert leftovers(url) == ["deployments"]
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE deployments")
    engine.dispose()
    with CardStore.open(url) as store:
        store.add(make_card())
