"""API keys: made once, checked always, and never to be read from the store."""

from __future__ import annotations

import json
import os
import pwd
import re
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from constellation_docker.cards import CardStore
from constellation_docker.cards.database import store_url
from constellation_docker.cli import main
from constellation_docker.errors import InvalidInput
from constellation_docker.gateway.access.api_keys import ApiKeys, KeyNotFound, KeyRefused
from constellation_docker.gateway.access.command_line import moment_of
from constellation_docker.gateway.access.principal import Principal, Role

NOW = datetime(2027, 1, 31, 12, tzinfo=UTC)


class Clock:
    """A time that a test sets."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'cards.db'}"
    made: str = request.getfixturevalue("postgres_url")
    return made


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(url: str, clock: Clock) -> Iterator[ApiKeys]:
    with CardStore.open(url, clock=clock) as store:
        yield ApiKeys(store.database)


def test_a_key_is_whoever_it_was_made_for(keys: ApiKeys) -> None:
    key, made = keys.create("ann", Role.OPERATOR, environments=["production", "dev", "dev"])
    assert keys.check(key).principal == Principal(
        "ann", Role.OPERATOR, frozenset({"dev", "production"}), "api_key", f"key:{made.key_id}"
    )


def test_no_grant_and_no_environment_at_all_are_told_apart(keys: ApiKeys) -> None:
    free, _ = keys.create("free", Role.OPERATOR)
    bound, _ = keys.create("bound", Role.OPERATOR, environments=[])
    assert keys.check(free).environments is None
    assert keys.check(bound).environments == frozenset()


def test_the_store_holds_nothing_that_lets_anybody_in(keys: ApiKeys, url: str) -> None:
    key, _ = keys.create("ann", Role.ADMIN)
    secret = key.rsplit("_", 1)[1]
    assert len(bytes.fromhex(secret)) * 8 == 256
    engine = create_engine(store_url(url))
    with engine.connect() as connection:
        rows = str(connection.exec_driver_sql("SELECT * FROM api_keys").all())
    engine.dispose()
    assert secret not in rows
    digest = re.search(r"[0-9a-f]{64}", rows)
    assert digest
    for attempt in (digest[0], f"{key.rsplit('_', 1)[0]}_{digest[0]}"):
        with pytest.raises(KeyRefused):
            keys.check(attempt)


@pytest.mark.parametrize(
    "change",
    [
        lambda key: key[:-1] + ("0" if key[-1] != "0" else "1"),
        lambda key: key[:-1],
        lambda key: key + "0",
        lambda key: key.upper(),
        lambda key: key.replace("constellation_", "constellation__"),
        lambda key: "constellation_000000000000_" + key.rsplit("_", 1)[1],
        lambda _key: "",
        lambda _key: "constellation_' OR 1=1 --_" + "0" * 64,
        lambda key: key + "\x00",
        lambda _key: "\udcff" * 90,
    ],
)
def test_what_is_not_the_whole_key_lets_nobody_in(keys: ApiKeys, change) -> None:  # type: ignore[no-untyped-def]
    key, _ = keys.create("ann", Role.ADMIN)
    with pytest.raises(KeyRefused, match="is not valid") as caught:
        keys.check(change(key))
    assert caught.value.is_guess
    assert key[20:] not in str(caught.value)


def test_a_revoked_key_ends_at_once_and_stays_on_the_list(keys: ApiKeys) -> None:
    key, made = keys.create("ann", Role.ADMIN)
    keys.revoke(made.key_id)
    with pytest.raises(KeyRefused, match="is revoked") as caught:
        keys.check(key)
    assert not caught.value.is_guess
    with pytest.raises(KeyRefused, match="is revoked"):
        keys.check_id(made.key_id)
    assert [known.revoked_at for known in keys.list()] == [NOW]
    assert keys.revoke(made.key_id).revoked_at == NOW
    assert not keys.any_usable()


def test_a_key_ends_when_it_expires(keys: ApiKeys, clock: Clock) -> None:
    key, _ = keys.create("ann", Role.VIEWER, expires_at=NOW + timedelta(hours=1))
    assert keys.check(key).name == "ann"
    assert keys.any_usable()
    clock.now += timedelta(hours=1)
    with pytest.raises(KeyRefused, match="expired at 2027-01-31 13:00 UTC"):
        keys.check(key)
    assert not keys.any_usable()


def test_when_a_key_was_last_used_is_known_to_the_minute(keys: ApiKeys, clock: Clock) -> None:
    key, _ = keys.create("ann", Role.VIEWER)
    assert [known.last_used_at for known in keys.list()] == [None]
    keys.check(key)
    clock.now += timedelta(seconds=1)
    keys.check(key)
    assert [known.last_used_at for known in keys.list()] == [NOW]


def test_a_key_that_would_have_expired_is_not_made(keys: ApiKeys) -> None:
    with pytest.raises(InvalidInput, match="expired already"):
        keys.create("ann", Role.VIEWER, expires_at=NOW)
    assert keys.list() == []


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "x" * 101, "\x1b[31m"])
def test_a_name_is_short_and_printable(keys: ApiKeys, name: str) -> None:
    with pytest.raises(InvalidInput, match="printable"):
        keys.create(name, Role.VIEWER)


def test_an_unknown_key_cannot_be_revoked(keys: ApiKeys) -> None:
    with pytest.raises(KeyNotFound, match="no API key 'nope'"):
        keys.revoke("nope")


def test_a_row_that_grants_in_another_form_grants_nothing(tmp_path: Path) -> None:
    with CardStore.open(f"sqlite:///{tmp_path / 'cards.db'}") as store:
        keys = ApiKeys(store.database)
        key, _ = keys.create("ann", Role.OPERATOR)
        with sqlite3.connect(tmp_path / "cards.db") as connection:
            connection.execute("UPDATE api_keys SET environments = '\"production\"'")
        assert keys.check(key).environments == frozenset()


def test_supabases_public_role_sees_no_key(postgres_url: str) -> None:
    with CardStore.open(postgres_url) as store:
        ApiKeys(store.database).create("ann", Role.ADMIN)
    engine = create_engine(store_url(postgres_url), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("GRANT ALL ON api_keys TO secured")
        connection.exec_driver_sql("SET ROLE secured")
        assert connection.exec_driver_sql("SELECT * FROM api_keys").all() == []
        with pytest.raises(Exception, match="row-level security"):
            connection.exec_driver_sql(
                f"INSERT INTO api_keys (key_id, name, role, digest) VALUES ('x', 'x', 'admin', '{'0' * 64}')"
            )
    engine.dispose()


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("90d", NOW + timedelta(days=90)),
        ("12h", NOW + timedelta(hours=12)),
        ("30m", NOW + timedelta(minutes=30)),
        ("2027-03-01", datetime(2027, 3, 2, tzinfo=UTC)),
        ("2027-03-01T12:00+01:00", datetime(2027, 3, 1, 11, tzinfo=UTC)),
        ("2027-03-01T12:00", datetime(2027, 3, 1, 12, tzinfo=UTC)),
    ],
)
def test_when_a_key_expires_is_written_as_people_write_it(text: str, moment: datetime) -> None:
    assert moment_of(text, NOW) == moment


@pytest.mark.parametrize("text", ["", "soon", "90", "-1d", "2027-13-01", "9999-12-31"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="is no moment"):
        moment_of(text, NOW)


def test_the_command_line_makes_lists_and_revokes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CONSTELLATION_HOME", str(tmp_path))
    monkeypatch.setenv("CONSTELLATION_ENVIRONMENTS", '{"dev": {}, "production": {}}')
    main(["keys", "list"])
    assert capsys.readouterr().out == "There are no API keys.\n"
    main(
        [
            "keys",
            "create",
            "--name",
            "ci",
            "--role",
            "operator",
            "--environment",
            "production",
            "--expires",
            "90d",
        ]
    )
    made = capsys.readouterr()
    assert re.fullmatch(r"constellation_[0-9a-f]{12}_[0-9a-f]{64}\n", made.out)
    key, key_id = made.out.strip(), made.out.split("_")[1]
    assert "not shown again" in made.err
    assert key not in made.err
    main(["keys", "list"])
    listed = capsys.readouterr().out
    assert key_id in listed
    assert "production" in listed
    assert key not in listed
    with CardStore.open(f"sqlite:///{tmp_path / 'cards.db'}") as store:
        assert ApiKeys(store.database).check(key).environments == frozenset({"production"})
        main(["keys", "revoke", key_id, "--json"])
        assert json.loads(capsys.readouterr().out)["revoked_at"]
        with pytest.raises(KeyRefused):
            ApiKeys(store.database).check(key)


def test_what_the_command_line_does_to_keys_is_in_the_audit_file_with_the_account_that_did_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "audit.log"
    monkeypatch.setenv("CONSTELLATION_HOME", str(tmp_path))
    monkeypatch.setenv("CONSTELLATION_GATEWAY__AUDIT_FILE", str(file))
    monkeypatch.setenv("SUDO_USER", "maria")
    main(["keys", "create", "--name", "ci", "--role", "viewer"])
    made = capsys.readouterr()
    key_id = made.out.split("_")[1]
    main(["keys", "list"])
    main(["keys", "revoke", key_id])
    written = file.read_text(encoding="utf-8")
    lines = [json.loads(line) for line in written.splitlines()]
    account = pwd.getpwuid(os.getuid()).pw_name
    assert [{name: line[name] for name in line if name != "time"} for line in lines] == [
        {
            "log": "audit",
            "who": "maria" if account == "root" else account,
            "id": f"account:{account}",
            "action": action,
            "subject": f"{key_id} of ci (viewer; as the role)",
            "outcome": "done",
        }
        for action in ("create_key", "revoke_key")
    ]
    assert all(datetime.fromisoformat(line["time"]).tzinfo for line in lines)
    assert made.out.strip().rsplit("_", 1)[1] not in written
    assert "create_key" not in made.err


def test_without_an_audit_file_the_line_goes_to_standard_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CONSTELLATION_HOME", str(tmp_path))
    main(["keys", "create", "--name", "ci", "--role", "viewer"])
    first, second = capsys.readouterr().err.splitlines()
    assert json.loads(first)["action"] == "create_key"
    assert "not shown again" in second


def test_where_the_audit_file_cannot_be_written_no_key_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CONSTELLATION_HOME", str(tmp_path))
    monkeypatch.setenv("CONSTELLATION_GATEWAY__AUDIT_FILE", str(tmp_path / "missing" / "audit.log"))
    with pytest.raises(SystemExit):
        main(["keys", "create", "--name", "ci", "--role", "viewer"])
    assert "audit.log cannot be written: No such file or directory" in capsys.readouterr().err
    main(["keys", "list"])
    assert capsys.readouterr().out == "There are no API keys.\n"


def test_a_misspelt_environment_makes_no_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CONSTELLATION_HOME", str(tmp_path))
    with pytest.raises(SystemExit):
        main(["keys", "create", "--name", "ci", "--role", "operator", "--environment", "prod"])
    assert "There is no environment named 'prod'. Use dev or *" in capsys.readouterr().err
