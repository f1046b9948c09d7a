"""Refusing what other sites' pages make a browser send.

A browser says where a request comes from: `Sec-Fetch-Site` (Fetch Metadata) and `Origin` (RFC 6454). The session's
cookie is `SameSite=Strict`, so this is the second lock on the same door, and the only one on websockets of
sites that share our registrable domain.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from constellation_docker.gateway.errors import GatewayError

SAFE_METHODS = frozenset({"GET", "HEAD"})
DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


class CrossSite(GatewayError):
    """A page of another site made the browser send this."""

    code = "cross_site"
    default_status = 403


def refuse_other_sites(connection: HTTPConnection) -> None:
    """Let on what our own pages, people's address bars and programs send.

    A link on another site may lead here: opening a page changes nothing, and the browser leaves our cookie out.

    Raises:
        CrossSite: Another site's page sent it.
    """
    site = connection.headers.get("Sec-Fetch-Site", "none").lower()
    origin = connection.headers.get("Origin")
    if origin is not None and not _is_ours(origin, connection):
        raise _refusal()
    if site in {"same-origin", "none"}:
        return
    if not _opens_a_page(connection):
        raise _refusal()


def _opens_a_page(connection: HTTPConnection) -> bool:
    return (
        connection.scope["type"] == "http"
        and connection.scope["method"] in SAFE_METHODS
        and connection.headers.get("Sec-Fetch-Mode") == "navigate"
        and connection.headers.get("Sec-Fetch-Dest") == "document"
    )


def _is_ours(origin: str, connection: HTTPConnection) -> bool:
    try:
        given = urlsplit(origin)
        port = given.port or DEFAULT_PORTS.get(given.scheme)
    except ValueError:
        return False
    own = connection.url
    # Behind a balancer that ends TLS we may not know of it, so the scheme counts by its port only where none is named.
    own_port = own.port or DEFAULT_PORTS.get(given.scheme)
    return given.scheme in {"http", "https"} and given.hostname == own.hostname and port == own_port


def _refusal() -> CrossSite:
    return CrossSite(
        "Requests that another site's page sends are refused.", remedy="Use the gateway's own pages."
    )
