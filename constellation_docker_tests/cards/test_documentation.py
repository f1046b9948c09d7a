"""docs/model-cards.md says what the code does."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest

from constellation_docker.cards import (
    CardStore,
    DeployOptions,
    ModelCard,
    RateLimit,
    Reservations,
    Resources,
    ServingOptions,
)
from constellation_docker.cards.front_matter import read_yaml
from constellation_docker.cards.rows import DeploymentRow
from constellation_docker.cards.strict_record import StrictRecord
from constellation_docker.cards.tables import Tables
from constellation_docker.cli import constellation_docker
from constellation_docker_tests.cards.conftest import AnySql

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "model-cards.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.M | re.S)


@pytest.mark.parametrize("text", blocks("yaml"))
def test_every_yaml_example_is_a_valid_card(text: str, tmp_path: Path) -> None:
    (tmp_path / "card.yaml").write_text(text, encoding="utf-8")
    card = ModelCard.from_file(tmp_path / "card.yaml").to_registration()["model_card"]
    written = read_yaml(text, what="the example").get("model_card") or {}
    assert {name: card[name] for name in written} == written


def test_the_rest_body_and_the_readme_are_valid_cards() -> None:
    (body,) = blocks("json")
    assert ModelCard.from_registration(json.loads(body)).to_registration() == json.loads(body)
    (readme,) = blocks("markdown")
    card = ModelCard.from_readme(readme)
    assert (card.key, card.body) == ("acme/similarity@1", "# Similarity\n\nWhat people should know.")


def written_default(info: Any) -> str:
    if info.is_required():
        return "required"
    if info.default_factory is not None:
        return (
            "see there"
            if info.default_factory_takes_validated_data
            else f"`{json.dumps(info.default_factory())}`"
        )
    value = info.default
    if value is None:
        return "–"
    if isinstance(value, StrictRecord):
        return "below"
    if isinstance(value, str):
        return f"`{value}`" if value else "empty"
    return f"`{json.dumps(value)}`"


@pytest.mark.parametrize(
    "record", [ModelCard, ServingOptions, Resources, Reservations, DeployOptions, RateLimit]
)
def test_every_field_stands_on_the_page_as_the_code_has_it(record: type[StrictRecord]) -> None:
    rows = [
        f"| `{info.alias or name}` | {written_default(info)} | {info.description} |"
        for name, info in record.model_fields.items()
    ]
    assert "\n".join(["| field | default | meaning |", "|---|---|---|", *rows, ""]) in PAGE


OURS_ALONE = {"model_slugs", "api_keys", "launch_guards", "answered_calls"}


def test_every_column_of_the_public_tables_stands_on_the_page() -> None:
    for table in Tables.metadata.tables.values():
        assert f"`{table.name}`" in PAGE
        for column in table.columns:
            assert f"`{column.name}`" in PAGE or table.name in OURS_ALONE, f"{table.name}.{column.name}"


def test_the_plain_sql_does_what_the_page_says(store: CardStore, sql: AnySql) -> None:
    (script,) = blocks("sql")
    insert, correct, want, scale, remove = [part.strip() for part in script.split(";\n") if part.strip()]
    ((model_id,),) = sql(insert)
    row = store.get(str(model_id))
    assert (row.key, row.card.dependencies, row.revision) == ("acme/sentiment@1.0.0", ("numpy>=2",), 1)
    sql(correct)
    assert store.get(row.model_id).revision == 2
    sql(want)
    sql(scale)
    (wish,) = store.wanted("production")
    assert isinstance(wish, DeploymentRow)
    assert (wish.revision, wish.wanted_replicas, wish.requested_by) == (2, 3, "ada")
    assert [release.requested_by for release in store.releases("production", "acme/sentiment")] == [
        "ada",
        "backend",
    ]
    sql(remove.removesuffix(";"))
    assert store.get(row.model_id).deleted_at is not None


def test_every_command_on_the_page_exists() -> None:
    (session,) = [block for block in blocks("console") if "cards add" in block]
    for line in session.strip().splitlines():
        words = shlex.split(line.removeprefix("$ "))
        command: click.Command | None = constellation_docker
        for word in words[1:3]:
            assert isinstance(command, click.Group)
            command = command.get_command(click.Context(command), word)
        assert command is not None, line
        command.make_parser(click.Context(command)).parse_args(words[3:])


def test_the_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = blocks("python")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "card.yaml").write_text(blocks("yaml")[0], encoding="utf-8")
    exec(code.replace("/srv/constellation", str(tmp_path)), {})
    with CardStore.open(f"sqlite:///{tmp_path}/cards.db") as store:
        assert len(store.wanted("production")) == 1
