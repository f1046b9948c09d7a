"""Why somebody is not let in, or not let on."""

from __future__ import annotations

from constellation_docker.gateway.errors import GatewayError

CHALLENGE = 'Bearer realm="constellation"'


class Unauthenticated(GatewayError):
    """Nobody knows who calls: no key or token, or one that is not valid (any more).

    Args:
        message: See `GatewayError`.
        remedy: See `GatewayError`.
        is_guess: Whether it may be an attempt at guessing, which is counted against the caller's address.
    """

    code = "unauthenticated"
    default_status = 401

    def __init__(self, message: str, *, remedy: str = "", is_guess: bool = False) -> None:
        super().__init__(message, remedy=remedy, headers={"WWW-Authenticate": CHALLENGE})
        self.is_guess = is_guess


class Forbidden(GatewayError):
    """It is known who calls, and they may not do this."""

    code = "forbidden"
    default_status = 403


class TooManyRequests(GatewayError):
    """The caller has used up what they may call in this time."""

    code = "too_many_requests"
    default_status = 429


class IssuerUnavailable(GatewayError):
    """The issuer's keys cannot be fetched, so nobody can say whether a token is good."""

    code = "issuer_unavailable"
    default_status = 503
    is_transient = True
