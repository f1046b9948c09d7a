"""The official schema of Compose files, and the check against it.

`compose-spec.json` is `schema/compose-spec.json` of compose-go 2.9.1 (the one in Compose 2.40), unchanged.
Copyright 2020 The Compose Specification Authors, Apache License 2.0, https://github.com/compose-spec/compose-go.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from constellation_docker.compose.errors import InvalidComposeFile

if TYPE_CHECKING:
    from jsonschema import Draft7Validator

# jsonschema takes 80 ms to import: only a run that compiles a file pays for it.


@cache
def compose_validator() -> Draft7Validator:
    """The schema's validator. The class is named because jsonschema does not know the schema's own `$schema` URL."""
    from jsonschema import Draft7Validator

    text = resources.files("constellation_docker.compose").joinpath("compose-spec.json").read_text("utf-8")
    return Draft7Validator(json.loads(text))


def check_compose_document(document: dict[str, Any]) -> None:
    """Check a document against the official schema.

    Raises:
        InvalidComposeFile: It does not fit; the message names the place.
    """
    from jsonschema.exceptions import best_match

    validator = compose_validator()
    if validator.is_valid(document):
        return
    error = best_match(validator.iter_errors(document))
    if error is None:
        return
    place = ".".join(str(part) for part in error.absolute_path) or "the file"
    raise InvalidComposeFile(
        # The schema's message may quote a value, so it is told what was expected instead.
        f"The Compose file of {document.get('name', 'this environment')} is not valid: {place} does not fit "
        f"the schema's rule {error.validator}.",
        remedy="Correct that model's card, or report this as a bug of the Compose compiler.",
        place=place,
    )
