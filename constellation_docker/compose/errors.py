"""What can be wrong with an environment's Compose file."""

from __future__ import annotations

from constellation_docker.errors import ConstellationError


class InvalidComposeFile(ConstellationError):
    """What would be written is not a valid Compose file."""

    code = "invalid_compose_file"


class ClashingServices(ConstellationError):
    """Two services of one environment want the same name."""

    code = "clashing_services"


class NotPublished(ConstellationError):
    """A model version was to be deployed before it was packaged."""

    code = "not_published"
