"""JSON Web Tokens (RFC 7519), as Supabase Auth and other issuers sign them.

The algorithm is the configured one, whatever a token's header says (RFC 8725, §3.1): a public key is never taken
for a shared secret, and `none` is nothing. Issuer, audience, expiry and holder must be there and right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import jwt
from jwt.exceptions import (
    ExpiredSignatureError,
    ImmatureSignatureError,
    InvalidAlgorithmError,
    InvalidAudienceError,
    InvalidIssuedAtError,
    InvalidIssuerError,
    MissingRequiredClaimError,
    PyJWTError,
)

from constellation_docker.errors import InvalidInput
from constellation_docker.gateway.access.errors import Forbidden, Unauthenticated
from constellation_docker.gateway.access.jwks import KeySet
from constellation_docker.gateway.access.principal import Principal, Role
from constellation_docker.settings import TokenSettings, resolve_secret

SHORTEST_SECRET_BYTES = 32
LONGEST_TOKEN = 16 * 1024
LONGEST_NAME = 100
_REQUIRED = ["exp", "iss", "aud", "sub"]

# What a token with a good signature may lack; said as it is, because it helps its holder and nobody else.
_LACKS: tuple[tuple[type[PyJWTError], str], ...] = (
    (ExpiredSignatureError, "The token has expired."),
    (ImmatureSignatureError, "The token is not valid yet."),
    (InvalidIssuedAtError, "The token is not valid yet."),
    (InvalidAudienceError, "The token is meant for another audience."),
    (InvalidIssuerError, "The token comes from another issuer."),
)


@dataclass(frozen=True)
class Holder:
    """Whom a token speaks for, and until when."""

    principal: Principal
    expires_at: datetime


class Tokens:
    """Checks tokens; safe to share between threads.

    Raises:
        InvalidInput: The shared secret cannot be read, or is too short to be safe.
    """

    def __init__(self, settings: TokenSettings, key_set: KeySet | None = None) -> None:
        self._settings = settings
        self._algorithm = settings.pinned_algorithm
        self._secret = _checked_secret(settings.secret) if settings.secret else None
        self._key_set = key_set
        if settings.jwks_url and key_set is None:
            self._key_set = KeySet(
                settings.jwks_url,
                timeout_seconds=settings.jwks_timeout_seconds,
                lifetime_seconds=settings.jwks_lifetime_seconds,
                refresh_seconds=settings.jwks_refresh_seconds,
            )

    def check(self, token: str) -> Holder:
        """Whom a token speaks for.

        Raises:
            Unauthenticated: It is not valid; the message says why, and never repeats it.
            Forbidden: It is valid and gives no role here.
            IssuerUnavailable: The issuer's keys cannot be fetched.
        """
        claims = self._claims(token)
        return Holder(self._principal(claims), datetime.fromtimestamp(float(claims["exp"]), UTC))

    def _claims(self, token: str) -> dict[str, Any]:
        if len(token) > LONGEST_TOKEN:
            raise _refused("The token is too long.")
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                self._key(token),
                algorithms=[self._algorithm],
                audience=self._settings.audience,
                issuer=self._settings.issuer,
                leeway=self._settings.leeway_seconds,
                options={"require": _REQUIRED},
            )
        except tuple(kind for kind, _ in _LACKS) as error:
            sentence = next(words for kind, words in _LACKS if isinstance(error, kind))
            raise Unauthenticated(sentence, remedy="Get a new one.") from error
        except MissingRequiredClaimError as error:
            raise Unauthenticated(
                f"The token lacks the claim {error.claim}.", remedy="Get another."
            ) from error
        except InvalidAlgorithmError as error:
            raise _refused(f"The token is not signed with {self._algorithm}.") from error
        except (PyJWTError, ValueError, TypeError) as error:
            raise _refused("The token is not valid.") from error
        return claims

    def _key(self, token: str) -> Any:
        header = jwt.get_unverified_header(token)
        if header.get("alg") != self._algorithm:
            raise InvalidAlgorithmError
        if self._secret is not None:
            return self._secret
        key_id = header.get("kid")
        if not isinstance(key_id, str) or self._key_set is None:
            raise _refused("The token does not name its key.")
        key = self._key_set.find(key_id)
        if key is None:
            raise _refused("The token is signed with a key that its issuer does not publish.")
        if key.algorithm_name != self._algorithm:
            raise InvalidAlgorithmError
        return key

    def _principal(self, claims: Mapping[str, Any]) -> Principal:
        known, subject = self._settings, str(claims["sub"])
        role = _at(claims, known.role_claim)
        if not isinstance(role, str) or role not in set(Role):
            raise Forbidden(
                "The token gives no role here.",
                remedy=f"Its claim {known.role_claim} must be one of: {', '.join(Role)}.",
            )
        name = _at(claims, known.name_claim)
        return Principal(
            name=_plain(name) if isinstance(name, str) and name.strip() else _plain(subject),
            role=Role(role),
            environments=_environments(_at(claims, known.environments_claim)),
            kind="token",
            id=f"token:{_plain(subject)}",
        )


def _checked_secret(reference: str) -> bytes:
    secret = resolve_secret(reference).encode()
    if len(secret) < SHORTEST_SECRET_BYTES:
        raise InvalidInput(
            f"The secret of gateway.tokens.secret has fewer than {SHORTEST_SECRET_BYTES} bytes.",
            remedy="Use one that the issuer made, or `openssl rand -hex 32`.",
        )
    return secret


def _refused(sentence: str) -> Unauthenticated:
    return Unauthenticated(sentence, remedy="Get a new one from its issuer.", is_guess=True)


def _at(claims: Mapping[str, Any], path: str) -> Any:
    """The claim at a path: its whole name first, since some issuers name claims by URLs, then step by step."""
    if path in claims:
        return claims[path]
    value: Any = claims
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _environments(value: Any) -> frozenset[str] | None:
    if value is None:
        return None
    # Anything but a list of names was meant to limit, and so grants nothing.
    return (
        frozenset(name for name in value if isinstance(name, str)) if isinstance(value, list) else frozenset()
    )


def _plain(text: str) -> str:
    return "".join(sign if sign.isprintable() else "?" for sign in text.strip())[:LONGEST_NAME]
