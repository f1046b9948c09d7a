"""What the asset checks said of an image, read back before it is published.

Dagster's `blocking` holds only within one run: a click on `published_image` alone runs no check. So the verdicts
are read from the event log, and they count for the very image that they were given for.
"""

from __future__ import annotations

import dagster as dg
from dagster._core.event_api import PartitionKeyFilter
from dagster._core.storage.asset_check_execution_record import COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES

from constellation_docker.errors import ConstellationError
from constellation_docker.packaging import BuiltImage

VERIFICATIONS = {
    "starts_as_in_production": "Runs non-root on a read-only root, without capabilities or network, within its limits.",
    "becomes_ready": "Says that it is ready within its deadline.",
    "answers_examples": "Answers the card's example inputs through the real Hugging Face client.",
    "rejects_malformed_input": "Answers malformed input with 4xx, and goes on.",
    "finishes_request_in_flight": "Finishes the request in flight on SIGTERM, then exits.",
}

IMAGE_ID = "image id"
"""The metadata entry of a verdict that says which image it is for."""


class NotVerified(ConstellationError):
    """An image was not verified, or not with success."""

    code = "not_verified"


def require_verdicts(instance: dg.DagsterInstance, key: str, image: BuiltImage) -> None:
    """Do nothing where every check passed for this very image.

    Args:
        instance: Dagster's instance.
        key: The model version, `name@version`.
        image: The image that is to be published.

    Raises:
        NotVerified: A check failed, or was not made for this image.
    """
    missing = sorted(set(VERIFICATIONS) - _passed_checks(instance, key, image.image_id))
    if missing:
        raise NotVerified(
            f"The image of {key} is not published: it has not passed {', '.join(missing)}.",
            remedy="Launch the job package_model for it, which verifies the image and then publishes it.",
            missing=missing,
        )


def _passed_checks(instance: dg.DagsterInstance, key: str, image_id: str) -> set[str]:
    passed = set()
    for name in VERIFICATIONS:
        # Only verdicts: a run that waits in the queue has its checks in the log as planned ones.
        records = instance.event_log_storage.get_asset_check_execution_history(
            dg.AssetCheckKey(dg.AssetKey("model_image"), name),
            limit=1,
            status=COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES,
            partition_filter=PartitionKeyFilter(key=key),
        )
        verdict = records[0].evaluation if records else None
        of_image = verdict.metadata.get(IMAGE_ID) if verdict is not None and verdict.passed else None
        if of_image is not None and of_image.value == image_id:
            passed.add(name)
    return passed
