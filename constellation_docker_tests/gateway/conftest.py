"""The fixtures that several files of this room's tests share."""

from constellation_docker_tests.gateway.token_issuer import clock, issuer

__all__ = ["clock", "issuer"]
