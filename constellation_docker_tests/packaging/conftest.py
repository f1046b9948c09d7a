"""The fixtures that several files of this room's tests share."""

from constellation_docker_tests.packaging.images import build_settings, built, source, stand_in_image
from constellation_docker_tests.packaging.locking import lock

__all__ = ["build_settings", "built", "lock", "source", "stand_in_image"]
