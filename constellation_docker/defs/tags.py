"""Run tags: how runs are found again, however they were launched.

A run from a click carries only Dagster's own partition tag, so the first step of every run adds ours.
"""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg

from constellation_docker.run_tags import (
    ACTION,
    ATTEMPT,
    CARD_REVISION,
    ENVIRONMENT,
    ERROR,
    HEALING,
    IMAGE,
    IS_TRANSIENT,
    MODEL,
    MODEL_ID,
    OUTCOME,
    PARTITION,
    REQUESTED_BY,
    SERVICE_REVISION,
    VERSION,
)

__all__ = [
    "ACTION",
    "ATTEMPT",
    "CARD_REVISION",
    "ENVIRONMENT",
    "ERROR",
    "HEALING",
    "IMAGE",
    "IS_TRANSIENT",
    "MODEL",
    "MODEL_ID",
    "OUTCOME",
    "PARTITION",
    "REQUESTED_BY",
    "SERVICE_REVISION",
    "VERSION",
    "StepContext",
    "identify_run",
    "requester_of",
]

StepContext = dg.OpExecutionContext | dg.AssetExecutionContext | dg.AssetCheckExecutionContext


def identify_run(context: StepContext, tags: Mapping[str, str]) -> None:
    """Add tags to the run that is executing, so that status can be read back by them."""
    present = context.run.tags
    missing = {key: value for key, value in tags.items() if present.get(key) != value}
    if missing:
        context.instance.add_run_tags(context.run.run_id, missing)


def requester_of(context: StepContext) -> str:
    """Who asked for the run: the gateway's user, the sensor or schedule, or a click in the UI."""
    tags = context.run.tags
    return (
        tags.get(REQUESTED_BY)
        or tags.get("user")
        or (f"sensor:{tags['dagster/sensor_name']}" if "dagster/sensor_name" in tags else "")
        or (f"schedule:{tags['dagster/schedule_name']}" if "dagster/schedule_name" in tags else "")
        or "dagster-ui"
    )
