"""Reaching an engine through the `ssh` program, as the Docker CLI does.

docker-py has a transport for this too, but it needs paramiko even when it runs `ssh`, and it knows no timeouts. Here
the program gets one end of a socket pair, so that everything else is as with a local socket.
"""

from __future__ import annotations

import http.client
import socket
import subprocess
import tempfile
from typing import IO, Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPResponse
from urllib3.connection import HTTPConnection

CONNECT_SECONDS = 30


def render_ssh_command(url: str) -> list[str]:
    """The command that connects its standard input and output with the engine's socket.

    Args:
        url: `ssh://[user@]host[:port]`. Keys, jumps and the like come from the user's ssh configuration.
    """
    parts = urlsplit(url)
    command = ["ssh", "-T", "-o", f"ConnectTimeout={CONNECT_SECONDS}", "-o", "BatchMode=yes"]
    if parts.username:
        command += ["-l", parts.username]
    if parts.port:
        command += ["-p", str(parts.port)]
    return [*command, "--", str(parts.hostname), "docker", "system", "dial-stdio"]


class SshConnection(HTTPConnection):
    """One connection, through one `ssh` process that ends with it.

    Args:
        url: The engine's address.
        timeout_seconds: Longest silence.
    """

    def __init__(self, url: str, timeout_seconds: float) -> None:
        super().__init__("localhost", timeout=timeout_seconds)
        self._url = url
        self._complaints: IO[bytes] | None = None

    def connect(self) -> None:
        """Start the program."""
        ours, theirs = socket.socketpair()
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115  lives as long as the connection
        with theirs:
            subprocess.Popen(
                render_ssh_command(self._url),
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=self._complaints,
                start_new_session=True,  # Ctrl-C is for us, not for it
            )
        ours.settimeout(self.timeout if isinstance(self.timeout, float | int) else None)
        self.sock = ours

    def send(self, data: Any) -> None:
        """Send, or say what `ssh` complained about instead."""
        try:
            super().send(data)
        except ConnectionError as error:
            raise self._refusal() from error

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # as urllib3 does
        """The response, or what `ssh` complained about instead."""
        try:
            return super().getresponse()
        except (http.client.RemoteDisconnected, ConnectionError) as error:
            raise self._refusal() from error

    def _refusal(self) -> ConnectionError:
        said = b""
        if self._complaints is not None:
            self._complaints.seek(0)
            said = self._complaints.read()
        return ConnectionRefusedError(
            said.decode("utf-8", "replace").strip().rpartition("\n")[2] or "ssh ended"
        )


class SshPool(HTTPConnectionPool):
    """Connections to one engine.

    Args:
        url: The engine's address.
        timeout_seconds: Longest silence.
    """

    def __init__(self, url: str, timeout_seconds: float) -> None:
        super().__init__("localhost", timeout=timeout_seconds, maxsize=4)
        self._url = url
        self._seconds = timeout_seconds

    def _new_conn(self) -> Any:
        return SshConnection(self._url, self._seconds)


class SshAdapter(HTTPAdapter):
    """Sends a client's requests through `ssh`.

    Args:
        url: `ssh://[user@]host[:port]`.
        timeout_seconds: Longest silence.
    """

    def __init__(self, url: str, timeout_seconds: float) -> None:
        super().__init__()
        self._pool = SshPool(url, timeout_seconds)

    def get_connection_with_tls_context(self, *_: Any, **__: Any) -> SshPool:
        """The pool; there is one engine, whatever the request's URL says."""
        return self._pool

    def request_url(self, request: requests.PreparedRequest, proxies: Any) -> str:
        """The path: web proxies have no place between `ssh` and its host."""
        return str(request.path_url)
