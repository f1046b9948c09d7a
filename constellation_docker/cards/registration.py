"""What a registration or a README says of a model, by field, before it is validated as a `ModelCard`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from constellation_docker.cards.canonical_json import checked_json
from constellation_docker.cards.front_matter import split_readme
from constellation_docker.cards.strict_record import invalid_card, nearest_name

# What the registration (the REST body, the row) gives beside the card itself.
IDENTITY_FIELDS = ("model_name", "model_version", "repo_url", "branch")
# Ours: a README may give these only inside its `constellation:` block.
PROSE_FIELDS = ("description", "data_used", "dependencies")
# The Hub's: these are a README's own front matter.
FRONT_MATTER_FIELDS = (
    "pipeline_tag",
    "library_name",
    "license",
    "license_name",
    "license_link",
    "language",
    "tags",
    "base_model",
    "datasets",
    "metrics",
    "widget",
)
CARD_FIELDS = (*PROSE_FIELDS, *FRONT_MATTER_FIELDS, "constellation", "front_matter", "body")


def titled(given: Any, what: str = "The model card") -> str:
    """What is spoken of, with the model's name and version where they are known."""
    name = given.get("model_name") if isinstance(given, Mapping) else None
    version = given.get("model_version") if isinstance(given, Mapping) else None
    if isinstance(name, str) and isinstance(version, str):
        return f"{what} of {name[:200]}@{version[:64]}"
    return what


def given_in_registration(body: Any, *, what: str = "The model card") -> dict[str, Any]:
    """The fields of a registration, by the names that the card uses.

    Args:
        body: `{model_name, model_version, repo_url, branch?, model_card: {…}}`.
        what: What it is, for messages.

    Raises:
        InvalidCard: It is not JSON that a store can hold, not of that shape, or has unknown fields.
    """
    what = titled(body, what)
    try:
        body = checked_json(body)
    except ValueError as error:
        raise invalid_card(what, [{"field": "the card", "problem": str(error)}]) from error
    if not isinstance(body, dict):
        raise invalid_card(what, [_not_a_mapping("the card")])
    card = body.get("model_card")
    card = {} if card is None else card
    if not isinstance(card, dict):
        raise invalid_card(what, [_not_a_mapping("model_card")])
    unknown = _unknown(body, (*IDENTITY_FIELDS, "model_card"), "", elsewhere=CARD_FIELDS)
    unknown += _unknown(card, CARD_FIELDS, "model_card.", elsewhere=IDENTITY_FIELDS)
    if unknown:
        raise invalid_card(what, unknown)
    return {name: body[name] for name in IDENTITY_FIELDS if name in body} | card


def given_in_readme(text: str, *, what: str = "README.md") -> dict[str, Any]:
    """The fields of a Hugging Face README, by the names that the card uses; other metadata in `front_matter`.

    Raises:
        InvalidCard: The front matter is malformed, or `constellation` is misspelt or not a mapping.
    """
    data, body = split_readme(text, what=what)
    for name in data:
        if name != "constellation" and nearest_name(name, ["constellation"], cutoff=0.85):
            problem = {"field": name, "problem": "unknown field; did you mean constellation?"}
            raise invalid_card(what, [problem])
    block = data.pop("constellation", None)
    block = {} if block is None else block
    if not isinstance(block, dict):
        raise invalid_card(what, [_not_a_mapping("constellation")])
    given: dict[str, Any] = {}
    for name in (*IDENTITY_FIELDS, *PROSE_FIELDS):
        if name in block:
            given[name] = block.pop(name)
    for name in FRONT_MATTER_FIELDS:
        value = data.pop(name, None)
        if value is not None:
            given[name] = value
    rest: dict[str, Any] = {"constellation": block, "front_matter": data, "body": body}
    return given | {name: value for name, value in rest.items() if value}


def merged(defaults: Mapping[str, Any], wins: Mapping[str, Any]) -> dict[str, Any]:
    """Two mappings as one, key by key at every level; where both give a value, `wins` does."""
    together = dict(defaults)
    for name, value in wins.items():
        below = together.get(name)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        together[name] = merged(below, value) if both else value  # type: ignore[arg-type]
    return together


def _not_a_mapping(field: str) -> dict[str, str]:
    return {"field": field, "problem": "must be a mapping of names to values"}


def _unknown(
    given: Iterable[str], known: Iterable[str], where: str, *, elsewhere: Iterable[str]
) -> list[dict[str, str]]:
    problems = []
    known = list(known)
    for name in given:
        if name in known:
            continue
        near = nearest_name(name, known)
        if name in elsewhere:
            hint = "it belongs beside model_card" if where else "it belongs inside model_card"
        elif near:
            hint = f"did you mean {near}?"
        elif where:
            hint = "other Hugging Face metadata goes into front_matter"
        else:
            hint = f"known are {', '.join(known)}"
        problems.append({"field": f"{where}{name[:80]}", "problem": f"unknown field; {hint}"})
    return problems
