"""The maintained card: a README with front matter, the writer's Markdown, and what packaging learned."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from constellation_docker.cards.front_matter import MAINTAINED_END, MAINTAINED_START, render_front_matter
from constellation_docker.cards.publication import Publication
from constellation_docker.cards.registration import FRONT_MATTER_FIELDS, PROSE_FIELDS

if TYPE_CHECKING:
    from constellation_docker.cards.model_card import ModelCard

_TITLES = {
    "model_id": "Model id",
    "commit": "Commit",
    "source_digest": "Source digest",
    "lock_digest": "Dependency lock",
    "image": "Image",
    "image_digest": "Image digest",
    "image_size_bytes": "Image size",
    "runtime": "Runtime",
    "task": "Task",
    "port": "Port",
    "health_path": "Health path",
    "ready_path": "Ready path",
    "server_version": "Server",
    "is_pushed": "In a registry",
    "published_at": "Published",
}


def render_card(card: ModelCard, learned: Publication | Mapping[str, Any] | None = None) -> str:
    """The maintained card; see `ModelCard.render`."""
    heading = [] if card.body else [f"# {card.model_name}"]
    parts = [card.body, MAINTAINED_START, *heading, _registration(card)]
    if learned is not None:
        facts = learned.model_dump() if isinstance(learned, Publication) else dict(learned)
        parts.append(_facts(facts))
    parts.append(MAINTAINED_END)
    markdown = "\n\n".join(part for part in parts if part)
    return f"{render_front_matter(_front_matter(card))}\n{markdown}\n"


def _front_matter(card: ModelCard) -> dict[str, Any]:
    """Everything the card says but its Markdown: the Hub's own keys first, ours in `constellation:`."""
    registration = card.to_registration()
    given = registration.pop("model_card")
    prose = {name: given[name] for name in PROSE_FIELDS if given[name]}
    identity = {name: value for name, value in registration.items() if value is not None}
    return {
        **{name: given[name] for name in FRONT_MATTER_FIELDS if name in given},
        **card.front_matter,
        "constellation": {**identity, **prose, **card.serving.written()},
    }


def _registration(card: ModelCard) -> str:
    rows: dict[str, Any] = {
        "Name": card.model_name,
        "Version": card.model_version,
        "Repository": card.repo_url,
        "Branch": card.branch,
        "Task": card.task,
        "Licence": card.license,
        "Card digest": card.digest,
    }
    parts = [f"## {card.key}", _table(rows)]
    if card.description:
        parts += ["### Description", card.description]
    if card.data_used:
        parts += ["### Data used", card.data_used]
    if card.dependencies:
        parts += ["### Dependencies", "\n".join(f"* {_code(line)}" for line in card.dependencies)]
    # A description that holds our own end mark would end the maintained part too early.
    return "\n\n".join(part.replace(MAINTAINED_END, "").replace(MAINTAINED_START, "") for part in parts)


def _facts(facts: Mapping[str, Any]) -> str:
    rows = {_TITLES.get(name, name.replace("_", " ").capitalize()): value for name, value in facts.items()}
    size = facts.get("image_size_bytes")
    if isinstance(size, int):
        rows[_TITLES["image_size_bytes"]] = f"{size / 1e6:,.1f} MB ({size:,} bytes)"
    return f"## Packaging\n\n{_table(rows)}"


def _table(rows: Mapping[str, Any]) -> str:
    lines = ["| | |", "|---|---|"]
    for name, value in rows.items():
        if value is not None and value != "":
            lines.append(f"| {_cell(name)} | {_value(value)} |")
    return "\n".join(lines)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S} UTC"
    if isinstance(value, list | tuple):
        return ", ".join(_value(item) for item in value)
    return _code(str(value))


def _code(text: str) -> str:
    return f"`{_cell(text).replace('`', chr(39))}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
