"""Browser sessions: a key or token once, then a signed cookie, so that pages such as Dagster's UI work.

The cookie holds no key. It is signed (HS256), ends by itself, and one that was begun with an API key ends with the
key: each call looks the key up again. One that was begun with a token ends with the token.
"""

from __future__ import annotations

import secrets
import time
from datetime import datetime

import jwt
from jwt.exceptions import PyJWTError
from starlette.requests import HTTPConnection
from starlette.responses import Response

from constellation_docker.errors import InvalidInput
from constellation_docker.gateway.access.errors import Unauthenticated
from constellation_docker.gateway.access.principal import Principal, Role
from constellation_docker.settings import GatewaySettings, resolve_secret

SHORTEST_SECRET_BYTES = 32
COOKIE = "constellation_session"
# Browsers take a cookie of this prefix only over TLS, for one host and all of its paths.
TLS_COOKIE = "__Host-constellation_session"
_AUDIENCE = "constellation-session"


class Sessions:
    """Begins, reads and ends sessions; safe to share between threads.

    Raises:
        InvalidInput: The secret cannot be read, or is too short to be safe.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        self._seconds = settings.session_seconds
        self._public_url = settings.public_url or ""
        self._secret = (
            resolve_secret(settings.session_secret).encode()
            if settings.session_secret
            else secrets.token_bytes(SHORTEST_SECRET_BYTES)
        )
        if len(self._secret) < SHORTEST_SECRET_BYTES:
            raise InvalidInput(
                f"The secret of gateway.session_secret has fewer than {SHORTEST_SECRET_BYTES} bytes.",
                remedy="Make one with `openssl rand -hex 32`.",
            )

    def begin(
        self,
        connection: HTTPConnection,
        response: Response,
        principal: Principal,
        expires_at: datetime | None = None,
    ) -> None:
        """Let an answer set the cookie.

        Args:
            connection: The call that logs in.
            response: Its answer.
            principal: Who logged in.
            expires_at: When the session must end at the latest.
        """
        now = int(time.time())
        ends = now + self._seconds
        if expires_at is not None:
            ends = min(ends, int(expires_at.timestamp()))
        environments = None if principal.environments is None else sorted(principal.environments)
        claims = {
            "aud": _AUDIENCE,
            "iat": now,
            "exp": ends,
            "sub": principal.id,
            "kind": principal.kind,
            "name": principal.name,
            "role": principal.role.value,
            "environments": environments,
        }
        is_secure = self.is_secure(connection)
        response.set_cookie(
            TLS_COOKIE if is_secure else COOKIE,
            jwt.encode(claims, self._secret, algorithm="HS256"),
            max_age=max(0, ends - now),
            path="/",
            secure=is_secure,
            httponly=True,
            samesite="strict",
        )

    def end(self, connection: HTTPConnection, response: Response) -> None:
        """Let an answer take the cookie back."""
        is_secure = self.is_secure(connection)
        name = TLS_COOKIE if is_secure else COOKIE
        response.delete_cookie(name, path="/", secure=is_secure, httponly=True, samesite="strict")

    def read(self, connection: HTTPConnection) -> Principal | None:
        """Who a call's cookie speaks for; None where it has none. Whether a key still lives, `ApiKeys` knows.

        Raises:
            Unauthenticated: The session has ended, or is none of ours.
        """
        cookie = connection.cookies.get(TLS_COOKIE if self.is_secure(connection) else COOKIE)
        if cookie is None:
            return None
        try:
            claims = jwt.decode(
                cookie,
                self._secret,
                algorithms=["HS256"],
                audience=_AUDIENCE,
                options={"require": ["exp", "sub"]},
            )
            environments = claims["environments"]
            return Principal(
                name=claims["name"],
                role=Role(claims["role"]),
                environments=None if environments is None else frozenset(environments),
                kind=claims["kind"],
                id=claims["sub"],
            )
        except (PyJWTError, KeyError, ValueError) as error:
            raise Unauthenticated("The session has ended.", remedy="Log in again at /login.") from error

    def is_secure(self, connection: HTTPConnection) -> bool:
        """Whether the browser speaks TLS: to us, or to a proxy that is believed when it says so."""
        return connection.url.scheme in {"https", "wss"} or self._public_url.startswith("https://")
