"""From a typed error to a failed step that a person understands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg

from constellation_docker.defs import tags
from constellation_docker.errors import ConstellationError

MAX_RETRIES = 2

RETRY_WHAT_PASSES = dg.RetryPolicy(
    max_retries=MAX_RETRIES, delay=5, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS
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
        tags.identify_run(context, {tags.IS_TRANSIENT: str(error.is_transient).lower()})
        raise failure_of(error, subject, step, is_last_try=_retries_of(context) >= MAX_RETRIES) from error
    if _retries_of(context) or tags.IS_TRANSIENT in context.run.tags:
        # What passed is over: a later step's failure must not be taken for it.
        tags.identify_run(context, {tags.IS_TRANSIENT: "false"})


def _retries_of(context: tags.StepContext) -> int:
    if isinstance(context, dg.OpExecutionContext):
        return context.retry_number
    return context.op_execution_context.retry_number


def failure_of(
    error: ConstellationError, subject: str, step: str, *, is_last_try: bool = False
) -> dg.Failure:
    """The Dagster failure for an error, with its facts as metadata.

    Args:
        error: What went wrong.
        subject, step: What the step works on, and what it does.
        is_last_try: Whether no retry is left. Dagster's own failure after the last retry says only that it
            was the last, so then the failure itself ends the step, with its sentence.
    """
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
        description=f"{sentence} {error.remedy}".strip(),
        metadata=metadata,
        allow_retries=error.is_transient and not is_last_try,
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
