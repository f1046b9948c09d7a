"""One POST to Dagster's webserver, answered in bounded time or not at all."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import httpx

from constellation_docker.errors import ConstellationError
from constellation_docker.gateway.deadline import seconds_left

MOST_BYTES = 64 * 1024 * 1024


class DagsterUnavailable(ConstellationError):
    """Dagster's webserver does not answer, or answers with an error of its own.

    Attributes:
        was_sent: Whether the webserver may have done what it was asked; what starts something looks then first.
    """

    code = "dagster_unavailable"
    is_transient = True

    def __init__(self, message: str, *, remedy: str = "", was_sent: bool = True, **details: Any) -> None:
        super().__init__(message, remedy=remedy, **details)
        self.was_sent = was_sent


class GraphQL:
    """The webserver's GraphQL.

    Args:
        url: The webserver's address.
        timeout_seconds: Longest for one call from its beginning to its end, also where the answer trickles.
    """

    def __init__(self, url: str, *, timeout_seconds: float) -> None:
        self.url = url
        self.timeout_seconds = timeout_seconds
        self._http = httpx.Client(
            trust_env=False, limits=httpx.Limits(max_connections=200, max_keepalive_connections=50)
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def ask(self, document: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Send one operation and return its data.

        Raises:
            DagsterUnavailable: No answer in time, or an error inside Dagster.
        """
        try:
            answer = json.loads(self._post({"query": document, "variables": variables}))
        except (httpx.HTTPError, ValueError) as error:
            raise DagsterUnavailable(
                f"Dagster's webserver does not answer at {self.url}.",
                remedy="Start it, or try again in a moment.",
                was_sent=not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout),
                cause=type(error).__name__,
            ) from error
        if not isinstance(answer, dict) or answer.get("errors") or not isinstance(answer.get("data"), dict):
            found = answer.get("errors") if isinstance(answer, dict) else None
            raise DagsterUnavailable(
                "Dagster answered a query with an error.",
                remedy="Look into the webserver's log.",
                errors=[str(item.get("message")) for item in found or [] if isinstance(item, dict)],
            )
        data: dict[str, Any] = answer["data"]
        return data

    def _post(self, body: Mapping[str, Any]) -> bytes:
        """The answer's bytes. httpx bounds each read only, so a trickling answer is bounded here."""
        allowed = seconds_left(self.timeout_seconds)
        if allowed <= 0:
            raise httpx.ConnectTimeout("no time was left to ask")
        until = time.monotonic() + allowed
        content = bytearray()
        with self._http.stream("POST", f"{self.url}/graphql", json=body, timeout=allowed) as response:
            for chunk in response.iter_bytes():
                content += chunk
                if time.monotonic() > until:
                    raise httpx.ReadTimeout("the answer took too long")
                if len(content) > MOST_BYTES:
                    raise ValueError("the answer is too large")
        return bytes(content)
