"""Where the engine is: a URL given, DOCKER_HOST, the Docker CLI's current context, or the default socket."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from docker.context import ContextAPI
from docker.errors import DockerException
from docker.tls import TLSConfig
from docker.utils import parse_host

from constellation_docker.errors import InvalidInput

DEFAULT_URL = "unix:///var/run/docker.sock"
_CONTEXT = "context://"


@dataclass(frozen=True)
class EngineAddress:
    """An engine's URL, and the certificates that it wants.

    Attributes:
        url: `unix://`, `tcp://` or `ssh://`.
        tls: Client certificates, where the engine is behind TLS.
        origin: What named it: `given`, `DOCKER_HOST`, `context <name>` or `default socket`.
    """

    url: str
    origin: str
    tls: TLSConfig | None = field(default=None, repr=False)

    @property
    def is_ssh(self) -> bool:
        """Whether the engine is reached by running the `ssh` program."""
        return self.url.startswith("ssh://")

    @property
    def is_local(self) -> bool:
        """Whether the engine is on this machine."""
        return self.url.startswith("unix://")


def resolve_engine_address(url: str | None = None, environ: Mapping[str, str] | None = None) -> EngineAddress:
    """Find the engine in the order in which the Docker CLI does.

    Args:
        url: An address; `context://name` takes that context of the Docker CLI. None looks in DOCKER_HOST, the CLI's
            current context (DOCKER_CONTEXT or `currentContext`), then takes the default socket.
        environ: Environment variables (default: this process's).

    Raises:
        InvalidInput: The address cannot be read, or there is no such context.
    """
    environ = os.environ if environ is None else environ
    if url and url.startswith(_CONTEXT):
        return _context_address(url.removeprefix(_CONTEXT))
    if url:
        return _checked(url, "given", environ)
    if host := environ.get("DOCKER_HOST"):
        return _checked(host, "DOCKER_HOST", environ)
    return _context_address(environ.get("DOCKER_CONTEXT") or None)


def _checked(url: str, origin: str, environ: Mapping[str, str]) -> EngineAddress:
    scheme = url.partition("://")[0]
    if "://" not in url or scheme not in {"unix", "tcp", "http", "https", "ssh"}:
        raise InvalidInput(
            f"{url!r} is not the address of a Docker engine.",
            remedy="Use unix:///path/to/docker.sock, tcp://host:port, ssh://user@host or context://name.",
            origin=origin,
        )
    tls = _environment_tls(environ) if scheme in {"tcp", "https"} else None
    try:
        parse_host(url, tls=tls is not None)
        urlsplit(url).port  # noqa: B018  reading it checks it
    except (DockerException, ValueError) as error:
        raise InvalidInput(
            f"{url!r} is not the address of a Docker engine: {error}.", remedy="Correct it.", origin=origin
        ) from error
    return EngineAddress(url, origin, tls)


def _environment_tls(environ: Mapping[str, str]) -> TLSConfig | None:
    # https://docs.docker.com/engine/security/protect-access/: the same variables as the CLI's.
    verify = environ.get("DOCKER_TLS_VERIFY", "")
    folder = environ.get("DOCKER_CERT_PATH", "")
    if not verify and not folder:
        return None
    certificates = Path(folder) if folder else Path.home() / ".docker"
    try:
        return TLSConfig(
            client_cert=(str(certificates / "cert.pem"), str(certificates / "key.pem")),
            ca_cert=str(certificates / "ca.pem"),
            verify=bool(verify),
        )
    except DockerException as error:
        raise InvalidInput(
            f"The engine's certificates in {certificates} cannot be used: {error}.",
            remedy="Put ca.pem, cert.pem and key.pem there, or set DOCKER_CERT_PATH.",
        ) from error


def _context_address(name: str | None) -> EngineAddress:
    try:
        context = ContextAPI.get_context(name)
    except Exception as error:  # docker-py raises bare Exception for a damaged context file
        raise InvalidInput(
            f"The Docker CLI's context {name or '(current)'} cannot be read: {error}.",
            remedy="Repair it with `docker context`, or set DOCKER_HOST.",
        ) from error
    if context is None or not context.Host:
        raise InvalidInput(
            f"The Docker CLI has no context named {name or '(current)'}.",
            remedy="`docker context ls` lists them.",
        )
    if context.Name == "default":
        return EngineAddress(DEFAULT_URL, "default socket")
    return EngineAddress(context.Host, f"context {context.Name}", context.TLSConfig)
