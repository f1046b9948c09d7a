"""Finding out who calls: by API key, by token, by a browser's session, or because the machine is one's own.

A call is known by the first of these that it carries; one that is not valid is refused, not passed over.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from starlette.requests import HTTPConnection

from constellation_docker.cards.store import CardStore
from constellation_docker.gateway.access.api_keys import PREFIX, ApiKeys, KeyRefused
from constellation_docker.gateway.access.audit import SCOPE_KEY, record
from constellation_docker.gateway.access.errors import Forbidden, Unauthenticated
from constellation_docker.gateway.access.permissions import Action, is_allowed
from constellation_docker.gateway.access.principal import Principal, Role
from constellation_docker.settings import Settings

LOCAL = Principal("local", Role.ADMIN, None, "local", "local")


@dataclass(frozen=True)
class Credential:
    """What a call presents to be let in."""

    kind: str
    value: str


class Access:
    """Knows who calls, and whether they may. One for each gateway; safe to share between threads."""

    def __init__(self, settings: Settings, store: CardStore) -> None:
        self._settings = settings.gateway
        self.keys = ApiKeys(store.database)

    @property
    def is_configured(self) -> bool:
        """Whether there is any way to be let in: a usable key, or tokens."""
        return self._settings.tokens.is_configured or self.keys.any_usable()

    def identify(self, connection: HTTPConnection) -> Principal:
        """Who calls; found once for each call. May read the store, so call it outside the event loop.

        Raises:
            Unauthenticated: Nobody whom we know.
            Forbidden: Somebody whom we know and who may do nothing here.
            StoreUnavailable, StoreRefused, IssuerUnavailable: It cannot be found out now.
        """
        known: Principal | None = connection.scope.get(SCOPE_KEY)
        if known is not None:
            return known
        try:
            principal = self._authenticate(connection)
        except (Unauthenticated, Forbidden) as error:
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

    def _authenticate(self, connection: HTTPConnection) -> Principal:
        credential = presented_credential(connection)
        if credential is None:
            if self._is_local(connection):
                return LOCAL
            raise Unauthenticated(
                "This call needs an API key or a token.", remedy="Send it as `Authorization: Bearer …`."
            )
        try:
            return self.keys.check(credential.value).principal
        except KeyRefused as error:
            raise Unauthenticated(error.message, remedy=error.remedy, is_guess=True) from error

    def _is_local(self, connection: HTTPConnection) -> bool:
        if not self._settings.allow_local or not is_loopback(self._settings.bind):
            return False
        return (
            connection.client is not None and is_loopback(connection.client.host) and not self.is_configured
        )


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
        return Credential("api_key" if value.strip().startswith(PREFIX) else "token", value.strip())
    key = connection.headers.get("X-API-Key")
    return None if key is None else Credential("api_key", key.strip())


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from its own machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
