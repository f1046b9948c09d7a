"""Addresses of stores, and what happens when the database does not do as asked."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

from constellation_docker.cards import CardStore, LeaseHeld, StoreRefused, StoreUnavailable
from constellation_docker.cards.database import store_url
from constellation_docker.cards.store import open_store
from constellation_docker.errors import InvalidInput
from constellation_docker.settings import Settings
from constellation_docker_tests.cards.conftest import make_card, make_publication
from constellation_docker_tests.fixtures.deadline import wait_for
from constellation_docker_tests.fixtures.debian import require_program
from constellation_docker_tests.fixtures.postgres import OWNER, PASSWORD, PostgresCluster, start_cluster


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("postgresql://me@db.example/cards", "postgresql+psycopg://me@db.example/cards"),
        (
            "postgres://me@db.example:6543/cards?sslmode=require",
            "postgresql+psycopg://me@db.example:6543/cards?sslmode=require",
        ),
        (
            "postgres://me@pooler.example:6543/x?pgbouncer=true&connection_limit=1",
            "postgresql+psycopg://me@pooler.example:6543/x",
        ),
        ("postgresql+psycopg2://me@db.example/cards", "postgresql+psycopg://me@db.example/cards"),
        ("sqlite:////var/cards.db", "sqlite:////var/cards.db"),
    ],
)
def test_addresses_are_taken_as_others_write_them(given: str, used: str) -> None:
    assert store_url(given).render_as_string() == used


@pytest.mark.parametrize(
    "url",
    [
        "",
        "cards.db",
        "mysql://me:hunter2@x/y",
        "postgresql://me:hunter2@x:port/y",
        "sqlite://",
        "sqlite:///:memory:",
    ],
)
def test_what_is_no_address_of_a_store_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(InvalidInput, match="database_url") as caught:
        CardStore.open(url)
    assert "hunter2" not in f"{caught.value} {caught.value.details}"


def test_the_password_is_kept_out_of_the_address(postgres: PostgresCluster, postgres_url: str) -> None:
    name = str(store_url(postgres_url).database)
    postgres.execute(f"GRANT ALL ON DATABASE {name} TO secured")
    postgres.execute("GRANT ALL ON SCHEMA public TO secured", name)
    url = postgres.url(name, user="secured")
    with CardStore.open(url, PASSWORD) as store:
        store.add(make_card())
        assert PASSWORD not in store.address
    with pytest.raises(StoreRefused, match="password authentication failed") as caught:
        CardStore.open(url, "wrong-hunter2")
    assert not caught.value.is_transient
    assert "hunter2" not in f"{caught.value} {caught.value.details} {caught.value.__cause__}"
    with pytest.raises(StoreRefused, match="password"):
        CardStore.open(url)
    with CardStore.open(f"{url}&password={quote(PASSWORD, safe='')}") as store:
        assert quote(PASSWORD, safe="") not in store.address


def test_the_settings_name_the_store_and_its_password(
    postgres: PostgresCluster, postgres_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name = str(store_url(postgres_url).database)
    postgres.execute("GRANT ALL ON SCHEMA public TO secured", name)
    monkeypatch.setenv("STORE_PASSWORD", PASSWORD)
    url = postgres.url(name, user="secured")
    with open_store(Settings(database_url=url, database_password="env:STORE_PASSWORD")) as store:
        assert store.list_models() == []
    with open_store(Settings(home=tmp_path / "home")) as store:
        assert store.add(make_card()).revision == 1
    assert (tmp_path / "home" / "cards.db").is_file()


def test_a_database_that_is_not_there_is_refused(postgres: PostgresCluster) -> None:
    with pytest.raises(StoreRefused, match="does not exist"):
        CardStore.open(postgres.url("nowhere"))


def test_a_server_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    for url in (f"postgresql://me@/cards?host={tmp_path}", "postgresql://me@127.0.0.1:1/cards"):
        with pytest.raises(StoreUnavailable) as caught:
            CardStore.open(url)
        assert caught.value.is_transient


@pytest.fixture
def own_cluster(postgres: PostgresCluster) -> Iterator[PostgresCluster]:
    """A cluster that a test may stop: the session's own serves the other tests."""
    directory = Path(tempfile.mkdtemp(prefix="constellation-pg-", dir="/tmp"))
    directory.chmod(0o755)
    cluster = start_cluster(directory)
    yield cluster
    if cluster.is_running:
        cluster.stop()
    shutil.rmtree(directory)


def test_a_server_that_goes_away_is_unavailable_and_the_store_works_again_when_it_is_back(
    own_cluster: PostgresCluster,
) -> None:
    with CardStore.open(own_cluster.url("postgres")) as store:
        row = store.add(make_card())
        store.want("dev", row.card.model_name, model_id=row.model_id)
        lease = store.lease("dev", row.card.model_name, holder="run-1", seconds=60).acquire()
        own_cluster.stop()
        calls: list[Callable[[], object]] = [
            store.list_models,
            lambda: store.changed_since(None),
            lambda: store.wanted("dev"),
            lambda: store.get(row.model_id),
            lambda: store.find("acme/sentiment", "1.0.0"),
            lambda: store.add(make_card()),
            lambda: store.publish(row.model_id, make_publication(row.model_id)),
            lambda: store.deployments_changed_since(None),
            lambda: store.releases("dev", "acme/sentiment"),
            lambda: store.newest_published("acme/sentiment"),
            lease.renew,
        ]
        for call in calls:
            with pytest.raises(StoreUnavailable):
                call()
        lease.__exit__(None, None, None)
        own_cluster.start()
        assert store.list_models() == [row]
        with pytest.raises(LeaseHeld):
            store.lease("dev", row.card.model_name, holder="run-2", seconds=60).acquire()
        lease.renew()


def test_a_sqlite_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cards.db"
    path.write_bytes(b"This is not a database at all." * 200)
    with pytest.raises(StoreRefused, match="not a database"):
        CardStore.open(f"sqlite:///{path}")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreRefused, match="cannot be made"):
        CardStore.open(f"sqlite:///{tmp_path}/file/cards.db")
    with pytest.raises(StoreUnavailable, match="unable to open"):
        CardStore.open(f"sqlite:///{tmp_path}")


def test_a_sqlite_store_that_another_process_blocks_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("constellation_docker.cards.database.BUSY_TIMEOUT_SECONDS", 0.1)
    path = tmp_path / "cards.db"
    with CardStore.open(f"sqlite:///{path}") as store:
        row = store.add(make_card())
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked"):
            store.add(make_card(branch="fix"))
        assert store.list_models() == [row], "readers go on"
        other.execute("ROLLBACK")
        other.close()
        assert store.add(make_card(branch="fix")).revision == 2


def test_sqlite_keeps_a_write_ahead_log_so_that_readers_never_wait(tmp_path: Path) -> None:
    with CardStore.open(f"sqlite:///{tmp_path}/cards.db"):
        pass
    connection = sqlite3.connect(tmp_path / "cards.db")
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


@pytest.fixture
def pooler(postgres: PostgresCluster, tmp_path: Path) -> Iterator[Path]:
    """PgBouncer in transaction mode in front of the cluster, with one connection behind: gives its socket's directory."""
    program = require_program("pgbouncer", "pgbouncer")
    directory = postgres.directory / "pooler"
    directory.mkdir()
    directory.chmod(0o777)
    (directory / "users.txt").write_text(f'"{postgres.superuser}" ""\n', encoding="utf-8")
    (directory / "pooler.ini").write_text(
        f"""[databases]
* = host={postgres.directory} user={postgres.superuser}
[pgbouncer]
unix_socket_dir = {directory}
listen_addr =
auth_type = any
auth_file = {directory}/users.txt
pool_mode = transaction
default_pool_size = 2
ignore_startup_parameters = extra_float_digits
""",
        encoding="utf-8",
    )
    command = [str(program), "-q", str(directory / "pooler.ini")]
    if os.geteuid() == 0:
        command = ["runuser", "-u", OWNER, "--", *command]
    process = subprocess.Popen(command, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: list(directory.glob(".s.PGSQL.*")), what="the pooler's socket")
        yield directory
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(directory)


def test_a_pooler_in_transaction_mode_may_stand_in_front(
    postgres: PostgresCluster, postgres_url: str, pooler: Path
) -> None:
    url = store_url(postgres_url)
    through = f"postgresql://{postgres.superuser}@/{url.database}?host={pooler}&port=6432"
    with CardStore.open(through) as store, CardStore.open(through) as other:
        for number in range(12):
            one, two = (store, other) if number % 2 else (other, store)
            row = one.add(make_card(model_version=str(number)))
            two.publish(row.model_id, make_publication(row.model_id))
            with (
                one.lease("dev", row.card.model_name, holder="h", seconds=9)
                if number
                else pytest.MonkeyPatch.context()
            ):
                two.want("dev", row.card.model_name, model_id=row.model_id)
                assert one.changed_since(None, limit=5) == two.changed_since(None, limit=5)
        with psycopg.connect(postgres_url) as connection:
            assert connection.execute(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
            ).fetchone() == (0,)
        assert store.deployment("dev", "acme/sentiment").revision == 12
