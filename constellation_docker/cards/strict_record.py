"""Records that refuse fields they do not know, and say which one was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from constellation_docker.cards.errors import InvalidCard


def nearest_name(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """The known name that looks most like a given one, if any does."""
    matches = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=cutoff)
    return matches[0] if matches else None


class StrictRecord(BaseModel):
    """A frozen record that refuses unknown fields with the nearest known name."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        populate_by_name=True,
        protected_namespaces=(),
        allow_inf_nan=False,
    )

    @classmethod
    def known_names(cls) -> list[str]:
        """The names that the outside may use: a field's alias, where it has one."""
        return [info.alias or name for name, info in cls.model_fields.items()]

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        accepted = set(cls.known_names()) | set(cls.model_fields)
        for name in data:
            if name in accepted:
                continue
            near = nearest_name(str(name), cls.known_names())
            hint = f"did you mean {near}?" if near else f"known are {', '.join(cls.known_names())}"
            raise PydanticCustomError(
                "unknown_field", "unknown field {name}; {hint}", {"name": repr(name), "hint": hint}
            )
        return data


# pydantic's own sentences name Python types; these name what the writer of a card sees.
_PLAIN_WORDS = {
    "string_type": "must be text (in YAML, write numbers and yes/no values in quotes)",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "dict_type": "must be a mapping of names to values",
    "mapping_type": "must be a mapping of names to values",
    "model_type": "must be a mapping of names to values",
    "model_attributes_type": "must be a mapping of names to values",
    "missing": "is required",
}


def problems_of(error: ValidationError) -> list[dict[str, str]]:
    """Every problem as `{"field", "problem"}`, without the offending values (they may be secrets)."""
    problems: list[dict[str, str]] = []
    for item in error.errors(include_input=False, include_url=False):
        if item["type"] == "default_factory_not_called":
            continue  # a default that depends on a field which has a problem of its own
        field = ".".join(str(part) for part in item["loc"]) or "the card"
        problems.append({"field": field, "problem": plain_words(item)})
    return problems


def plain_words(item: Mapping[str, Any]) -> str:
    """One of pydantic's errors in words for people, without the offending value."""
    return _PLAIN_WORDS.get(item["type"]) or str(item["msg"]).removeprefix("Value error, ")


def invalid_card(
    what: str, problems: list[dict[str, str]], *, remedy: str = "", **details: Any
) -> InvalidCard:
    """The error for a card with problems; the sentence tells the first and counts the rest."""
    first = problems[0]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return InvalidCard(
        f"{what} is not valid: {first['field']}: {first['problem']}{more}.",
        remedy=remedy or "Correct it as docs/model-cards.md describes.",
        problems=problems,
        **details,
    )
