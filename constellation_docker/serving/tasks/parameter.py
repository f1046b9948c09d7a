"""A task's parameters: one table says what is allowed, checks what was sent, and describes it in OpenAPI."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..model import InvalidParameters

Kind = Literal["integer", "number", "boolean", "string", "strings", "integers", "object", "any"]

_KIND_IN_WORDS: dict[str, str] = {
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "string": "a string",
    "strings": "a list of strings",
    "integers": "a list of whole numbers",
    "object": "an object",
}


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a task.

    Attributes:
        name: As it is spelled on the wire.
        kind: What its value is; `any` is not checked.
        description: One sentence for the OpenAPI document.
        default: What holds when the client says nothing, or null.
        choices: The only values allowed.
        minimum: Smallest value (of a list: least items).
        maximum: Largest value (of a list: most items; of a string: most characters).
        is_minimum_excluded: Whether the value must lie above `minimum`.
        is_required: Whether a request without it is refused.
        is_single_allowed: Whether one string may stand for a list of one.
    """

    name: str
    kind: Kind
    description: str
    default: Any = None
    choices: tuple[Any, ...] | None = None
    minimum: float | None = None
    maximum: float | None = None
    is_minimum_excluded: bool = False
    is_required: bool = False
    is_single_allowed: bool = False

    def check(self, value: Any) -> Any:
        """The value in its own type.

        Raises:
            InvalidParameters: it has the wrong type or lies out of range; the message names the parameter.
        """
        if self.kind == "strings" and self.is_single_allowed and isinstance(value, str):
            value = [value]
        if not _CHECKS[self.kind](value):
            raise InvalidParameters(
                f"The parameter `{self.name}` must be {_KIND_IN_WORDS[self.kind]}, not {_shown(value)}."
            )
        if self.kind == "number":
            value = float(value)
        if self.choices is not None and value not in self.choices:
            allowed = ", ".join(repr(choice) for choice in self.choices)
            raise InvalidParameters(
                f"The parameter `{self.name}` must be one of {allowed}, not {_shown(value)}."
            )
        self._check_range(value)
        return value

    def _check_range(self, value: Any) -> None:
        if self.kind in ("integer", "number"):
            measure, what = value, ""
        elif self.kind in ("strings", "integers"):
            measure, what = len(value), " items"
        elif self.kind == "string":
            measure, what = len(value), " characters"
        else:
            return
        if self.minimum is not None and (
            measure < self.minimum or (self.is_minimum_excluded and measure == self.minimum)
        ):
            bound = "more than" if self.is_minimum_excluded else "at least"
            raise InvalidParameters(
                f"The parameter `{self.name}` must be {bound} {self.minimum:g}{what}, not {measure:g}."
            )
        if self.maximum is not None and measure > self.maximum:
            raise InvalidParameters(
                f"The parameter `{self.name}` must be at most {self.maximum:g}{what}, not {measure:g}."
            )

    def schema(self) -> dict[str, Any]:
        """Its JSON Schema."""
        schema: dict[str, Any] = {"description": self.description}
        if self.kind in ("strings", "integers"):
            item = "string" if self.kind == "strings" else "integer"
            listed: dict[str, Any] = {"type": "array", "items": {"type": item}}
            for key, bound in (("minItems", self.minimum), ("maxItems", self.maximum)):
                if bound is not None:
                    listed[key] = int(bound)
            alternatives = [{"type": "string"}] if self.is_single_allowed else []
            return schema | {"anyOf": [listed, *alternatives, {"type": "null"}]}
        if self.kind != "any":
            schema["type"] = [self.kind, "null"] if not self.is_required else self.kind
        if self.choices is not None:
            schema["enum"] = [*self.choices, None]
        if self.kind in ("integer", "number"):
            if self.minimum is not None:
                schema["exclusiveMinimum" if self.is_minimum_excluded else "minimum"] = self.minimum
            if self.maximum is not None:
                schema["maximum"] = self.maximum
        elif self.kind == "string":
            if self.minimum is not None:
                schema["minLength"] = int(self.minimum)
            if self.maximum is not None:
                schema["maxLength"] = int(self.maximum)
        if self.default is not None:
            schema["default"] = self.default
        return schema


def read_parameters(given: Any, known: Iterable[Parameter], *, of: str) -> dict[str, Any]:
    """Check what the client sent against a task's parameters.

    Args:
        given: The `parameters` object of the request, or None.
        known: The task's parameters.
        of: The task, for the messages.

    Returns:
        A value for every known parameter. One that is absent or null has its default.

    Raises:
        InvalidParameters: it is not an object, or a parameter is unknown, wrong or missing.
    """
    known = tuple(known)
    if given is None:
        given = {}
    if not isinstance(given, Mapping):
        raise InvalidParameters(f"`parameters` must be an object, not {_shown(given)}.")
    names = {parameter.name for parameter in known}
    unknown = [name for name in given if name not in names]
    if unknown:
        allowed = ", ".join(f"`{name}`" for name in sorted(names)) or "none"
        raise InvalidParameters(
            f"The parameter {_shown(unknown[0])} is not one of {of}; it takes: {allowed}."
        )
    values: dict[str, Any] = {}
    for parameter in known:
        value = given.get(parameter.name)
        if value is not None:
            values[parameter.name] = parameter.check(value)
        elif parameter.is_required:
            raise InvalidParameters(f"The parameter `{parameter.name}` is missing: {parameter.description}")
        else:
            values[parameter.name] = parameter.default
    return values


def render_parameters_schema(known: Iterable[Parameter]) -> dict[str, Any]:
    """The JSON Schema of a `parameters` object."""
    known = tuple(known)
    schema: dict[str, Any] = {
        "type": ["object", "null"],
        "properties": {parameter.name: parameter.schema() for parameter in known},
        "additionalProperties": False,
    }
    required = [parameter.name for parameter in known if parameter.is_required]
    if required:
        schema |= {"type": "object", "required": required}
    return schema


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_integer(value) or (isinstance(value, float) and math.isfinite(value))


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "integer": _is_integer,
    "number": _is_number,
    "boolean": lambda value: isinstance(value, bool),
    "string": lambda value: isinstance(value, str),
    "strings": lambda value: isinstance(value, list) and all(isinstance(item, str) for item in value),
    "integers": lambda value: isinstance(value, list) and all(_is_integer(item) for item in value),
    "object": lambda value: isinstance(value, dict),
    "any": lambda value: True,
}


def _shown(value: Any) -> str:
    """The value as a message may hold it: short, and never a whole payload."""
    if isinstance(value, (list, dict)):
        return "a list" if isinstance(value, list) else "an object"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
