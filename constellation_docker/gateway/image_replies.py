"""What the gateway answers about images; see `replies`."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import ConfigDict, Field

from constellation_docker.gateway.links import Link
from constellation_docker.gateway.replies import MOMENT, RUN, RUN_ID, Reply, shown_as


def _accepted_as(message: str) -> ConfigDict:
    return shown_as({"image_id": RUN_ID, "message": message, "status": "in_progress", "run": RUN})


class ImageAccepted(Reply):
    """A pull or push was asked for."""

    image_id: str = Field(description="Names it in GET /docker/images/{image_id}/status/: the id of its run.")
    message: str
    status: Literal["in_progress"] = "in_progress"
    run: Link


class PullAccepted(ImageAccepted):
    """A pull was asked for."""

    model_config = _accepted_as("Image pull initiated.")

    message: Literal["Image pull initiated."] = "Image pull initiated."


class PushAccepted(ImageAccepted):
    """A push was asked for."""

    model_config = _accepted_as("Image push initiated.")

    message: Literal["Image push initiated."] = "Image push initiated."


class ImageStatus(Reply):
    """How far a pull or push is."""

    model_config = shown_as(
        {
            "image_id": RUN_ID,
            "action": "pull",
            "image": "registry.example/models/sentiment:1.0.0",
            "status": "completed",
            "last_updated": MOMENT,
            "last_error": None,
            "run": RUN,
        }
    )

    image_id: str
    action: Literal["pull", "push"]
    image: str | None = Field(description="`repository:tag`; of a push `image:tag to repository`.")
    status: Literal["pending", "in_progress", "completed", "failed"]
    last_updated: datetime
    last_error: str | None
    run: Link
