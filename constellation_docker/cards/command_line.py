"""`constellation-docker cards …` and `constellation-docker store …`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from constellation_docker.errors import InvalidInput

if TYPE_CHECKING:
    from constellation_docker.cards.rows import InvalidRow, ModelRow
    from constellation_docker.cards.store import CardStore

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


@click.group()
def cards() -> None:
    """Register, list, show and remove model versions."""


@cards.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--name", help="Model name, instead of the file's.")
@click.option("--version", help="Version, instead of the file's.")
@click.option("--repo", help="Repository: a git address, hf://owner/name or file:///directory.")
@click.option("--branch", help="Branch, tag or commit.")
@as_json
def add(
    path: Path, name: str | None, version: str | None, repo: str | None, branch: str | None, as_json: bool
) -> None:
    """Register the model version that PATH describes.

    PATH is a YAML or JSON file in the form of the REST body, a Hugging Face README.md, or a directory that holds
    one of them. The same card again changes nothing; another card corrects the version until it is published.
    """
    from constellation_docker.cards.model_card import ModelCard

    card = ModelCard.from_file(path, model_name=name, model_version=version, repo_url=repo, branch=branch)
    with _store() as store:
        before = store.find(card.model_name, card.model_version)
        row = store.add(card)
    outcome = "registered" if before is None else "unchanged" if before == row else "corrected"
    if as_json:
        _print_json({**_facts(row), "outcome": outcome})
    else:
        click.echo(f"{row.key} is {outcome}: model_id {row.model_id}, revision {row.revision}.")


@cards.command("list")
@click.option("--search", help="Only names, versions and descriptions that contain this.")
@click.option("--all", "include_deleted", is_flag=True, help="Removed versions too.")
@click.option("--after", help="Only those after this NAME@VERSION.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many.")
@as_json
def list_cards(
    search: str | None, include_deleted: bool, after: str | None, limit: int | None, as_json: bool
) -> None:
    """List the registered model versions."""
    with _store() as store:
        rows = store.list_models(include_deleted=include_deleted, search=search, after=after, limit=limit)
    if as_json:
        _print_json([_facts(row) for row in rows])
        return
    if not rows:
        click.echo("There are no model versions." if not search else f"No model version matches {search!r}.")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("model", "version", "task", "state", "changed (UTC)", "model id", box=None, pad_edge=False)
    problems = []
    for row in rows:
        facts = _facts(row)
        moment = f"{row.updated_at:%Y-%m-%d %H:%M:%S}"
        values = (
            facts["model_name"],
            facts["model_version"],
            facts.get("task") or "",
            facts["state"],
            moment,
        )
        table.add_row(*(Text(" ".join(value.split())) for value in values), row.model_id)
        if facts["state"] == "invalid":
            problems.append(facts["problem"])
    # Piped into another program there is no terminal whose width could cut a name short.
    console = Console(soft_wrap=True) if Console().is_terminal else Console(width=240)
    console.print(table)
    for problem in problems:
        click.echo(problem, err=True)


@cards.command()
@click.argument("key", metavar="NAME@VERSION")
@as_json
def show(key: str, as_json: bool) -> None:
    """Show a model version's maintained card: what was registered and what packaging learned."""
    with _store() as store:
        row = _row(store, key)
    if as_json:
        publication = row.publication.model_dump(mode="json") if row.publication else None
        _print_json({**_facts(row), **row.card.to_registration(), "publication": publication})
        return
    text = row.card.render(row.publication)
    if not sys.stdout.isatty():
        click.echo(text, nl=False)
        return
    from rich.console import Console
    from rich.markdown import Markdown
    from rich.syntax import Syntax

    from constellation_docker.cards.front_matter import split_front_matter

    front_matter, markdown = split_front_matter(text)
    console = Console()
    console.print(Syntax((front_matter or "").strip(), "yaml", background_color="default"))
    console.print(Markdown(markdown))


@cards.command()
@click.argument("key", metavar="NAME@VERSION")
@as_json
def remove(key: str, as_json: bool) -> None:
    """Mark a model version as removed. Its name and version stay used, its image and containers stay as they are."""
    with _store() as store:
        row = store.remove(store.id_of(*_split(key)))
    if as_json:
        _print_json(_facts(row))
    else:
        click.echo(f"{key} is removed.")


@click.group()
def store() -> None:
    """Look after the card store's database."""


@store.command()
@as_json
def migrate(as_json: bool) -> None:
    """Bring the database to the schema that this version needs. Every other command does so too."""
    with _store() as opened:
        version, address = opened.schema_version(), opened.address
    if as_json:
        _print_json({"address": address, "schema_version": version})
    else:
        click.echo(f"The card store at {address} has schema version {version}.")


@contextmanager
def _store() -> Iterator[CardStore]:
    from constellation_docker.cards.store import open_store
    from constellation_docker.settings import load_settings

    with open_store(load_settings()) as opened:
        yield opened


def _row(store: CardStore, key: str) -> ModelRow:
    name, version = _split(key)
    return store.get(store.id_of(name, version))


def _split(key: str) -> tuple[str, str]:
    name, separator, version = key.rpartition("@")
    if not separator:
        raise InvalidInput(
            f"{key!r} is not NAME@VERSION.", remedy="Write it as `cards list` shows it: acme/x@1.0.0."
        )
    return name, version


def _facts(row: ModelRow | InvalidRow) -> dict[str, Any]:
    from constellation_docker.cards.rows import InvalidRow

    facts: dict[str, Any] = {
        "model_id": row.model_id,
        "revision": row.revision,
        "created_at": row.created_at.isoformat(),
        "updated_at": row.updated_at.isoformat(),
        "deleted_at": row.deleted_at.isoformat() if row.deleted_at else None,
    }
    if isinstance(row, InvalidRow):
        named = {"model_name": row.model_name, "model_version": row.model_version}
        return facts | named | {"state": "invalid", "problem": row.problem}
    state = "removed" if row.deleted_at else "published" if row.is_published else "registered"
    return facts | {
        "model_name": row.card.model_name,
        "model_version": row.card.model_version,
        "slug": row.card.slug,
        "task": row.card.task or (row.publication.task if row.publication else None),
        "state": state,
        "published_at": row.published_at.isoformat() if row.published_at else None,
        "image": row.publication.image if row.publication else None,
    }


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
