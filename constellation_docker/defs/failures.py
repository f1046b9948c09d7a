"""From a typed error to a failed step that a person understands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg

from constellation_docker.defs import tags
from constellation_docker.errors import ConstellationError

MAX_RETRIES = 2
FIRST_PAUSE_SECONDS = 5.0
LONGEST_SENTENCE = 300


@contextmanager
def explained(context: tags.StepContext, subject: str, step: str) -> Iterator[None]:
    """Turn a `ConstellationError` into a failure that names subject, step and remedy.

    An error that passes is tried again, twice, with a growing pause. This is not left to a `RetryPolicy`: Dagster
    gives even an interrupted step another try under one, so a cancelled build would begin anew; and what it says
    after the last retry is only that it was the last.

    Args:
        context: The executing step.
        subject: What the step works on, such as `name@version` or `environment|model`.
        step: What it does, in a few words, such as `locking dependencies`.
    """
    try:
        yield
    except ConstellationError as error:
        tags.identify_run(
            context,
            {
                tags.IS_TRANSIENT: str(error.is_transient).lower(),
                tags.ERROR: sentence_of(error, subject, step),
            },
        )
        failure = failure_of(error, subject, step)
        retries = _retries_of(context)
        if error.is_transient and retries < MAX_RETRIES:
            pause = FIRST_PAUSE_SECONDS * 2**retries
            context.log.warning(f"{failure.description} Trying again in {pause:g} s.")
            raise dg.RetryRequested(max_retries=MAX_RETRIES, seconds_to_wait=pause) from error
        raise failure from error
    if _retries_of(context) or tags.IS_TRANSIENT in context.run.tags:
        # What passed is over: a later step's failure must not be taken for it.
        tags.identify_run(context, {tags.IS_TRANSIENT: "false"})


def sentence_of(error: ConstellationError, subject: str, step: str) -> str:
    """What went wrong, on one line and short enough for a tag: so a status is read without the run's log."""
    line = " ".join(_named(error, subject, step).split())
    return line if len(line) <= LONGEST_SENTENCE else f"{line[: LONGEST_SENTENCE - 1]}…"


def _named(error: ConstellationError, subject: str, step: str) -> str:
    """What went wrong, and with what: an error from a room may not know on whose behalf it was asked."""
    return error.message if subject in error.message else f"{subject}, {step}: {error.message}"


def _retries_of(context: tags.StepContext) -> int:
    if isinstance(context, dg.OpExecutionContext):
        return context.retry_number
    return context.op_execution_context.retry_number


def failure_of(error: ConstellationError, subject: str, step: str) -> dg.Failure:
    """The Dagster failure for an error, with its facts as metadata. It ends the step.

    Args:
        error: What went wrong.
        subject: What the step works on.
        step: What it does.
    """
    sentence = _named(error, subject, step)
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
        allow_retries=False,
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
