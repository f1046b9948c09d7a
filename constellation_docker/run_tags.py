"""The names of the run tags: how runs are found again, however they were launched.

Plain names without Dagster, so that `gateway` reads by the same tags that `defs` writes.
"""

from __future__ import annotations

MODEL_ID = "constellation/model_id"
MODEL = "constellation/model"
VERSION = "constellation/version"
CARD_REVISION = "constellation/card_revision"
ENVIRONMENT = "constellation/environment"
SERVICE_REVISION = "constellation/service_revision"
REQUESTED_BY = "constellation/requested_by"
ATTEMPT = "constellation/attempt"
HEALING = "constellation/healing"
OUTCOME = "constellation/outcome"
ACTION = "constellation/action"
IS_TRANSIENT = "constellation/failed_for_passing_reason"
ERROR = "constellation/error"
"""Why the run failed, in one sentence; of a run that ended well, what it overcame."""
IMAGE = "constellation/image"
"""Which image a pull or push is about, as `repository:tag`, and for a push where it goes."""

PARTITION = "dagster/partition"
