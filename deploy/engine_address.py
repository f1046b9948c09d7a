"""Where the Docker engine is, as the Docker CLI looks for it, and whether it answers.

Only the standard library is used: `bootstrap_engine` runs before anything is installed.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

CALL_SECONDS = 10.0


class Unusable(Exception):
    """There is no engine and none can be had; the message is the sentence to print."""


class _SocketConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=CALL_SECONDS)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(CALL_SECONDS)
        self.sock.connect(self._path)


def find_address(default: Path) -> tuple[str, str]:
    """The engine's URL and what names it: DOCKER_HOST, the CLI's context or `default socket`."""
    if host := os.environ.get("DOCKER_HOST"):
        return host, "DOCKER_HOST"
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    name = (
        os.environ.get("DOCKER_CONTEXT")
        or _read_json(folder / "config.json").get("currentContext")
        or "default"
    )
    if name != "default":
        meta = folder / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest() / "meta.json"
        host = _read_json(meta).get("Endpoints", {}).get("docker", {}).get("Host")
        if not host:
            raise Unusable(
                f"The Docker CLI's context {name} cannot be read: choose another with `docker context use`, or set "
                "DOCKER_HOST."
            )
        return host, f"the Docker CLI's context {name}"
    return f"unix://{default}", "default socket"


def _read_json(path: Path) -> dict[str, Any]:
    """A JSON file; empty where there is none."""
    with contextlib.suppress(OSError, ValueError):
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict):
            return content
    return {}


def ask_version(url: str) -> str:
    """The version of the engine at `url`.

    Raises:
        OSError: None answers there.
    """
    parts = urlsplit(url)
    if parts.scheme == "ssh":
        command = ["ssh", "-o", "ConnectTimeout=10", "-o", "BatchMode=yes"]
        command += ["-p", str(parts.port)] if parts.port else []
        target = f"{parts.username}@{parts.hostname}" if parts.username else str(parts.hostname)
        try:
            asked = subprocess.run(
                [*command, "--", target, "docker", "version", "--format", "{{.Server.Version}}"],
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise OSError(str(error)) from error
        if asked.returncode != 0:
            raise OSError(asked.stderr.strip().rpartition("\n")[2] or "ssh failed")
        return asked.stdout.strip()
    connection: http.client.HTTPConnection
    if parts.scheme == "unix":
        connection = _SocketConnection(parts.path)
    elif parts.scheme in {"tcp", "http", "https"} and parts.hostname:
        folder = os.environ.get("DOCKER_CERT_PATH", "")
        verify = os.environ.get("DOCKER_TLS_VERIFY", "")
        if folder or verify or parts.scheme == "https":
            connection = http.client.HTTPSConnection(
                parts.hostname,
                parts.port or 2376,
                timeout=CALL_SECONDS,
                context=_read_certificates(folder, bool(verify)),
            )
        else:
            connection = http.client.HTTPConnection(parts.hostname, parts.port or 2375, timeout=CALL_SECONDS)
    else:
        raise Unusable(f"{url} is not the address of a Docker engine: use unix://, tcp:// or ssh://.")
    try:
        connection.request("GET", "/version")
        return str(json.loads(connection.getresponse().read())["Version"])
    except (http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        raise OSError(f"what answers is not a Docker engine: {error}") from error
    finally:
        connection.close()


def _read_certificates(folder: str, is_verified: bool) -> ssl.SSLContext:
    """TLS as DOCKER_CERT_PATH and DOCKER_TLS_VERIFY describe it."""
    certificates = Path(folder) if folder else Path.home() / ".docker"
    authority = certificates / "ca.pem"
    context = ssl.create_default_context(cafile=str(authority) if authority.is_file() else None)
    if not is_verified:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if (certificates / "cert.pem").is_file():
        context.load_cert_chain(certificates / "cert.pem", certificates / "key.pem")
    return context
