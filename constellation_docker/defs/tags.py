"""Run tags: how runs are found again, however they were launched.

A run from a click carries only Dagster's own partition tag, so the first step of every run adds ours.
"""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg

MODEL_ID = "constellation/model_id"
MODEL = "constellation/model"
VERSION = "constellation/version"
CARD_REVISION = "constellation/card_revision"
ENVIRONMENT = "constellation/environment"
SERVICE_REVISION = "constellation/service_revision"
REQUESTED_BY = "constellation/requested_by"
ATTEMPT = "constellation/attempt"
ACTION = "constellation/action"
IS_TRANSIENT = "constellation/failed_for_passing_reason"

PARTITION = "dagster/partition"

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
