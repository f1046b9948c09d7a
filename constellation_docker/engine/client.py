"""docker-py's client with one way to send a request, typed, which its own methods and stubs do not offer."""

from __future__ import annotations

import json as json_codec
from collections.abc import Iterable, Mapping
from typing import Any, cast

import docker
import requests

from constellation_docker.engine.address import EngineAddress
from constellation_docker.engine.ssh import SshAdapter


class EngineClient(docker.APIClient):
    """One thread's client. docker-py brings the transports (socket, TLS, ssh), the rest goes through `call`."""

    def call(
        self,
        method: str,
        path: str,
        *names: str,
        params: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        data: Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        is_stream: bool = False,
        timeout_seconds: float | None = None,
    ) -> requests.Response:
        """Send one request to the Engine API.

        Args:
            method: `GET`, `POST`, …
            path: As `/containers/{0}/json`; `names` are quoted into it.
            names: What stands in the path.
            params: Query.
            body: JSON body.
            data: Body in pieces, sent as a tar archive.
            headers: Further headers.
            is_stream: Leave the response unread and wait for it without limit.
            timeout_seconds: Longest silence; None: the client's own.

        Raises:
            docker.errors.APIError: The engine answers with an error.
        """
        sent = dict(headers or {})
        payload: Any = data
        if body is not None:
            sent["Content-Type"] = "application/json"
            payload = json_codec.dumps(dict(body))
        elif data is not None:
            sent["Content-Type"] = "application/x-tar"
        response = self.request(
            method,
            self._url(path, *names),  # type: ignore[attr-defined]
            params=dict(params or {}),
            data=payload,
            headers=sent,
            stream=is_stream,
            timeout=None if is_stream else (timeout_seconds or self.timeout),
        )
        self._raise_for_status(response)  # type: ignore[attr-defined]
        return response

    def ask(self, method: str, path: str, *names: str, **options: Any) -> Any:
        """`call`, and read the JSON answer (None where the engine answers nothing)."""
        response = self.call(method, path, *names, **options)
        return response.json() if response.content.strip() else None

    def read_credentials(self, registry: str) -> dict[str, str] | None:
        """What the Docker CLI's configuration (`docker login`, credential helpers) has for a registry.

        Raises:
            docker.errors.DockerException: A credential helper cannot be run.
        """
        self.reload_config()  # tokens of credential helpers pass; docker-py would keep the first
        found = self._auth_configs.resolve_authconfig(registry)  # type: ignore[attr-defined]
        return cast("dict[str, str] | None", found)


def open_client(address: EngineAddress, api_version: str, timeout_seconds: float) -> EngineClient:
    """A client for `address`. Its URL is always given: docker-py's own search is not used."""
    client = EngineClient(
        base_url="unix:///unused" if address.is_ssh else address.url,
        version=api_version,
        timeout=timeout_seconds,  # type: ignore[arg-type]  # requests takes fractions, the stubs do not say so
        tls=address.tls or False,
    )
    # Without this, requests puts REQUESTS_CA_BUNDLE above the engine's own authority, sends the traffic through web
    # proxies and looks for a password in ~/.netrc.
    client.trust_env = False
    if address.is_ssh:
        client.mount("http+docker://", SshAdapter(address.url, timeout_seconds))
    return client
