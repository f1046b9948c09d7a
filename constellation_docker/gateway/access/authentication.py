"""Finding out who calls: by API key, by token, by a browser's session, or because the machine is one's own.

A call is known by the first of these that it carries; one that is not valid is refused, not passed over.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from starlette.requests import HTTPConnection

from constellation_docker.cards.store import CardStore
from constellation_docker.gateway.access.api_keys import PREFIX, ApiKey, ApiKeys, KeyRefused
from constellation_docker.gateway.access.audit import SCOPE_KEY, record
from constellation_docker.gateway.access.errors import Forbidden, Unauthenticated
from constellation_docker.gateway.access.permissions import Action, is_allowed
from constellation_docker.gateway.access.principal import Principal, Role
from constellation_docker.gateway.access.rate_limits import RateLimits
from constellation_docker.gateway.access.sessions import Sessions
from constellation_docker.gateway.access.tokens import Tokens
from constellation_docker.gateway.same_site import SAFE_METHODS, CrossSite, refuse_other_sites
from constellation_docker.settings import Settings

PROXY_HEADERS = ("Forwarded", "X-Forwarded-For", "X-Real-IP", "Via")
LOCAL = Principal("local", Role.ADMIN, None, "local", "local")


@dataclass(frozen=True)
class Credential:
    """What a call presents to be let in."""

    kind: str
    value: str


class Access:
    """Knows who calls, and whether they may. One for each gateway; safe to share between threads.

    Raises:
        InvalidInput: A secret cannot be read or is too short, or a limit cannot be read.
    """

    def __init__(self, settings: Settings, store: CardStore) -> None:
        self._settings = settings.gateway
        self.keys = ApiKeys(store.database)
        self.tokens = Tokens(self._settings.tokens) if self._settings.tokens.is_configured else None
        self.sessions = Sessions(self._settings)
        self.limits = RateLimits(self._settings.rate_limits)

    @property
    def is_configured(self) -> bool:
        """Whether there is any way to be let in: a usable key, or tokens."""
        return self.tokens is not None or self.keys.any_usable()

    def identify(self, connection: HTTPConnection) -> Principal:
        """Who calls; found once for each call. May read the store, so call it outside the event loop.

        Raises:
            Unauthenticated: Nobody whom we know.
            TooManyRequests: Too many wrong keys or tokens from this address.
            CrossSite: Another site's page made a logged-in browser send it.
            Forbidden: Somebody whom we know and who may do nothing here.
            StoreUnavailable, StoreRefused, IssuerUnavailable: It cannot be found out now.
        """
        known: Principal | None = connection.scope.get(SCOPE_KEY)
        if known is not None:
            return known
        try:
            principal = self._authenticate(connection)
        except (Unauthenticated, Forbidden, CrossSite) as error:
            record(connection, "authenticate", connection.url.path, outcome="denied", reason=error.message)
            raise
        connection.scope[SCOPE_KEY] = principal
        return principal

    def demand(
        self,
        connection: HTTPConnection,
        principal: Principal,
        action: Action,
        environment: str | None = None,
    ) -> None:
        """Let somebody on who may do this, and nobody else.

        Raises:
            Forbidden: They may not; an audit line says so.
        """
        if is_allowed(principal, action, environment, protected=self._settings.protected_environments):
            return
        where = f" in {environment}" if environment else ""
        message = f"{principal.name} ({principal.role}) may not {action.replace('_', ' ')}{where}."
        record(
            connection,
            action,
            connection.url.path,
            outcome="denied",
            environment=environment,
            reason=message,
        )
        raise Forbidden(message, remedy="Ask an administrator for a key or token that may.")

    def log_in(self, connection: HTTPConnection, presented: str) -> tuple[Principal, datetime | None]:
        """Who presents a key or token, and until when it is good; None: nobody knows.

        Raises:
            As `identify`.
        """
        return self._check(connection, credential_of(presented))

    def _authenticate(self, connection: HTTPConnection) -> Principal:
        credential = presented_credential(connection)
        if credential is not None:
            return self._check(connection, credential)[0]
        session = self.sessions.read(connection)
        if session is not None:
            return self._checked_session(connection, session)
        if self._is_local(connection):
            refuse_other_sites(connection)
            return LOCAL
        raise Unauthenticated(
            "This call needs an API key or a token.", remedy="Send it as `Authorization: Bearer …`."
        )

    def _check(self, connection: HTTPConnection, credential: Credential) -> tuple[Principal, datetime | None]:
        address = connection.client.host if connection.client else "unknown"
        self.limits.check_address(address)
        try:
            if credential.kind == "api_key":
                key = self._usable(self.keys.check, credential.value)
                return key.principal, key.expires_at
            if self.tokens is None:
                raise Unauthenticated(
                    "This is no API key, and this gateway takes no tokens.",
                    remedy="API keys are made with `constellation-docker keys create`.",
                    is_guess=True,
                )
            holder = self.tokens.check(credential.value)
        except Unauthenticated as error:
            if error.is_guess:
                self.limits.count_failure(address)
            raise
        return holder.principal, holder.expires_at

    def _checked_session(self, connection: HTTPConnection, session: Principal) -> Principal:
        """Whom a session speaks for now: its key may have been revoked, and other sites' pages get nothing by it."""
        refuse_other_sites(connection)
        is_safe = connection.scope["type"] == "http" and connection.scope["method"] in SAFE_METHODS
        if not is_safe and "Origin" not in connection.headers:
            raise CrossSite(
                "A browser's session changes something only with an Origin header.",
                remedy="Programs send an API key or a token instead of the cookie.",
            )
        if session.kind == "api_key":
            return self._usable(self.keys.check_id, session.id.removeprefix("key:")).principal
        return session

    @staticmethod
    def _usable(check: Callable[[str], ApiKey], presented: str) -> ApiKey:
        try:
            return check(presented)
        except KeyRefused as error:
            raise Unauthenticated(error.message, remedy=error.remedy, is_guess=error.is_guess) from error

    def _is_local(self, connection: HTTPConnection) -> bool:
        if not self._settings.allow_local or not is_loopback(self._settings.bind):
            return False
        if connection.client is None or not is_loopback(connection.client.host):
            return False
        if any(name in connection.headers for name in PROXY_HEADERS):
            return False  # a proxy on this machine brings somebody from elsewhere
        return not self.is_configured


def presented_credential(connection: HTTPConnection) -> Credential | None:
    """The key or token in a call's headers.

    Raises:
        Unauthenticated: There is something, but in no form that we know.
    """
    authorization = connection.headers.get("Authorization")
    if authorization is not None:
        scheme, _, value = authorization.partition(" ")
        if scheme.lower() != "bearer" or not value.strip():
            raise Unauthenticated(
                "The Authorization header is not `Bearer …`.", remedy="Send an API key or a token so."
            )
        return credential_of(value)
    key = connection.headers.get("X-API-Key")
    return None if key is None else Credential("api_key", key.strip())


def credential_of(presented: str) -> Credential:
    """What somebody presents: a key says so by its prefix, anything else must be a token."""
    value = presented.strip()
    return Credential("api_key" if value.startswith(PREFIX) else "token", value)


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from its own machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
