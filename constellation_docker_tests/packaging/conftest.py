"""The fixtures of built images, for this room's tests."""

from constellation_docker_tests.packaging.images import build_settings, built, stand_in_image

__all__ = ["build_settings", "built", "stand_in_image"]
