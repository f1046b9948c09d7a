"""From a typed error to a failed step that a person understands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg

from constellation_docker.defs import tags
from constellation_docker.errors import ConstellationError

RETRY_WHAT_PASSES = dg.RetryPolicy(
    max_retries=2, delay=5, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS
)
"""Two more tries for errors that say of themselves that they pass; every other failure ends the step at once."""


@contextmanager
def explained(context: tags.StepContext, subject: str, step: str) -> Iterator[None]:
    """Turn a `ConstellationError` into a failure that names subject, step and remedy.

    Args:
        context: The executing step.
        subject: What the step works on, such as `name@version` or `environment|model`.
        step: What it does, in a few words, such as `locking dependencies`.
    """
    try:
        yield
    except ConstellationError as error:
        if error.is_transient:
            tags.identify_run(context, {tags.IS_TRANSIENT: "true"})
        raise failure_of(error, subject, step) from error


def failure_of(error: ConstellationError, subject: str, step: str) -> dg.Failure:
    """The Dagster failure for an error, with its facts as metadata."""
    sentence = error.message if subject in error.message else f"{subject}, {step}: {error.message}"
    metadata: dict[str, dg.MetadataValue] = {
        "code": dg.MetadataValue.text(error.code),
        "subject": dg.MetadataValue.text(subject),
        "step": dg.MetadataValue.text(step),
        "what happened": dg.MetadataValue.text(error.message),
    }
    if error.remedy:
        metadata["what to do"] = dg.MetadataValue.text(error.remedy)
    for name, value in error.details.items():
        metadata[name.replace("_", " ")] = _as_metadata(value)
    return dg.Failure(
        description=f"{sentence} {error.remedy}".strip(), metadata=metadata, allow_retries=error.is_transient
    )


def _as_metadata(value: Any) -> dg.MetadataValue:
    if isinstance(value, bool):
        return dg.MetadataValue.bool(value)
    if isinstance(value, int):
        return dg.MetadataValue.int(value)
    if isinstance(value, float):
        return dg.MetadataValue.float(value)
    if isinstance(value, list | tuple) and value and all(isinstance(item, str) for item in value):
        return dg.MetadataValue.md("```\n" + "\n".join(value) + "\n```")
    if isinstance(value, str):
        return dg.MetadataValue.md(f"```\n{value}\n```") if "\n" in value else dg.MetadataValue.text(value)
    return dg.MetadataValue.json(value)
