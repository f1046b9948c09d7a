"""The command line, as people and programs use it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from constellation_docker.cards import CardStore, ModelCard
from constellation_docker.cards.schema import HEAD
from constellation_docker.cli import COMMANDS, main
from constellation_docker_tests.cards.conftest import make_publication, registration


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    status: int
    out: str
    error: str

    @property
    def json(self) -> Any:
        """Its output, as JSON."""
        return json.loads(self.out)


Run = Callable[..., Outcome]


@pytest.fixture
def run(url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs one command on an empty store of either kind."""
    monkeypatch.delenv("CONSTELLATION_CONFIG", raising=False)
    monkeypatch.setenv("CONSTELLATION_DATABASE_URL", url)

    def run_one(*arguments: str) -> Outcome:
        status = 0
        try:
            main(arguments)
        except SystemExit as end:
            status = int(end.code or 0)
        captured = capsys.readouterr()
        return Outcome(status, captured.out, captured.err)

    return run_one


@pytest.fixture
def card_file(tmp_path: Path) -> Path:
    """A card in a file, in the form of the REST body."""
    path = tmp_path / "card.json"
    path.write_text(json.dumps(registration()), encoding="utf-8")
    return path


def test_a_model_version_is_registered_listed_shown_and_removed(run: Run, card_file: Path, url: str) -> None:
    added = run("cards", "add", str(card_file))
    assert added.status == 0
    assert added.out.startswith("acme/sentiment@1.0.0 is registered: model_id ")
    assert "is unchanged" in run("cards", "add", str(card_file)).out
    assert "is corrected" in run("cards", "add", str(card_file), "--branch", "fix").out
    listed = run("cards", "list")
    assert all(word in listed.out for word in ("acme/sentiment", "1.0.0", "registered"))
    with CardStore.open(url) as store:
        (row,) = store.list_models()
        store.publish(row.model_id, make_publication(row.model_id))
    listed = run("cards", "list", "--search", "sentiment")
    assert all(word in listed.out for word in ("published", "text-classification")), (
        "packaging learned the task"
    )
    shown = run("cards", "show", "acme/sentiment@1.0.0").out
    assert "registry.example/acme-sentiment@sha256:1" in shown
    assert ModelCard.from_readme(shown).branch == "fix"
    assert run("cards", "remove", "acme/sentiment@1.0.0").out == "acme/sentiment@1.0.0 is removed.\n"
    assert run("cards", "list").out == "There are no model versions.\n"
    assert "removed" in run("cards", "list", "--all").out


def test_programs_get_json(run: Run, card_file: Path) -> None:
    added = run("cards", "add", str(card_file), "--json").json
    assert (added["outcome"], added["slug"], added["revision"]) == ("registered", "acme-sentiment", 1)
    assert run("cards", "list", "--json").json == [{key: added[key] for key in added if key != "outcome"}]
    shown = run("cards", "show", "acme/sentiment@1.0.0", "--json").json
    assert shown["model_card"] == registration()["model_card"]
    assert shown["publication"] is None
    assert run("cards", "remove", "acme/sentiment@1.0.0", "--json").json["state"] == "removed"
    assert run("store", "migrate", "--json").json["schema_version"] == HEAD


def test_a_readme_gets_its_name_from_the_command(run: Run, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n# Body\n", encoding="utf-8")
    nameless = run("cards", "add", str(tmp_path))
    assert nameless.status == 1
    assert "--name" in nameless.error
    added = run("cards", "add", str(tmp_path), "--name", "acme/x", "--version", "2", "--repo", "hf://acme/x")
    assert added.out.startswith("acme/x@2 is registered")


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("cards", "show", "nope"), 1, "is not NAME@VERSION"),
        (("cards", "show", "acme/x@1"), 1, "no model version acme/x@1"),
        (("cards", "remove", "acme/x@1"), 1, "no model version acme/x@1"),
        (("cards", "add", "nowhere.yaml"), 1, "no file nowhere.yaml"),
        (("cards", "add"), 2, "Missing argument"),
        (("cards", "list", "--limit", "0"), 2, "--limit"),
        (("cards", "frobnicate"), 2, "No such command"),
        (("frobnicate",), 2, "No such command"),
    ],
)
def test_a_failure_is_one_line_and_a_status(
    run: Run, arguments: tuple[str, ...], status: int, words: str
) -> None:
    outcome = run(*arguments)
    assert (outcome.status, outcome.out) == (status, "")
    assert words in outcome.error
    if status == 1:
        assert outcome.error.startswith("Error: ")
        assert outcome.error.count("\n") == 1


def test_every_problem_of_a_card_is_told_on_a_line_of_its_own(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    body = {**registration(), "licence": "mit"}
    body["model_card"] = {**body["model_card"], "licence": "mit"}
    path.write_text(json.dumps(body), encoding="utf-8")
    first, second = run("cards", "add", str(path)).error.splitlines()
    assert "licence: unknown field" in first
    assert second == "  also model_card.licence: unknown field; did you mean license?"


def test_a_failure_is_json_for_programs(run: Run) -> None:
    error = json.loads(run("cards", "show", "acme/x@1", "--json").error)["error"]
    assert error["code"] == "card_not_found"
    assert error["details"] == {"model": "acme/x@1"}


def test_a_row_that_cannot_be_used_is_listed_with_its_problem(run: Run, card_file: Path, url: str) -> None:
    from sqlalchemy import create_engine

    from constellation_docker.cards.database import store_url

    run("cards", "add", str(card_file))
    engine = create_engine(store_url(url))
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO model_cards (model_name, model_version, repo_url) VALUES ('a b', '1', 'r')"
        )
    engine.dispose()
    listed = run("cards", "list")
    assert "acme/sentiment" in listed.out
    assert "invalid" in listed.out
    assert "model_name" in listed.error
    assert [row["state"] for row in run("cards", "list", "--json").json] == ["invalid", "registered"]
    assert "model_name" in run("cards", "show", "a b@1").error
    assert run("cards", "remove", "a b@1").status == 0
    assert [row["state"] for row in run("cards", "list", "--json").json] == ["registered"]


def test_a_store_that_does_not_answer_is_told_in_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CONSTELLATION_DATABASE_URL", f"postgresql://me:hunter2@/cards?host={tmp_path}")
    outcome = run("cards", "list")
    assert outcome.status == 1
    assert "does not answer" in outcome.error
    assert "hunter2" not in outcome.error


def test_settings_are_shown_without_their_secrets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CONSTELLATION_CONFIG", raising=False)
    monkeypatch.setenv(
        "CONSTELLATION_DATABASE_URL",
        "postgresql://me:hunter2@db.example/cards?sslmode=require&password=hunter2",
    )
    monkeypatch.setenv("CONSTELLATION_INDEX__EXTRA_URLS", '["https://me:hunter2@index.example/simple"]')
    monkeypatch.setenv("CONSTELLATION_DATABASE_PASSWORD", "env:THE_PASSWORD")
    monkeypatch.setenv("THE_PASSWORD", "hunter2")
    for arguments in (["settings", "show"], ["settings", "show", "--json"]):
        main(arguments)
        out = capsys.readouterr().out
        assert "hunter2" not in out
        assert "db.example" in out
        assert "index.example" in out
        assert "env:THE_PASSWORD" in out


def test_wrong_settings_are_told_in_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSTELLATION_BUILD__TIMEOUT_SECONDS", "soon")
    outcome = run("cards", "list")
    assert outcome.status == 1
    assert "build.timeout_seconds" in outcome.error


def test_every_command_that_is_listed_can_be_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    overview = capsys.readouterr().out
    for name in COMMANDS:
        assert name in overview
        main([name, "--help"])
        assert "Usage: constellation-docker" in capsys.readouterr().out


def test_help_and_cards_need_neither_dagster_nor_docker(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom constellation_docker.cli import main\n"
        "main(sys.argv[1:])\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'dagster', 'docker', 'alembic', 'psycopg', 'sqlalchemy'}), file=sys.stderr)"
    )

    def loaded(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            capture_output=True,
            text=True,
            check=True,
            env={"CONSTELLATION_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
            cwd=Path(__file__).parents[2],
        )
        return done.stderr.strip()

    CardStore.open(f"sqlite:///{tmp_path}/cards.db").close()
    assert loaded("--help") == "[]"
    assert loaded("cards", "list") == "['sqlalchemy']"
