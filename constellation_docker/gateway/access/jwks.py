"""The issuer's public keys, fetched from its JWKS address (RFC 7517) in bounded time and kept for a while."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable

import httpx
from jwt import PyJWK, PyJWKSet
from jwt.exceptions import PyJWTError

from constellation_docker.gateway.access.errors import IssuerUnavailable

LARGEST_ANSWER_BYTES = 256 * 1024
# While the issuer is down its last keys are good for so long; signatures are checked either way.
LONGEST_STALE_SECONDS = 24 * 3600.0
RETRY_SECONDS = 5.0

_log = logging.getLogger(__name__)


class KeySet:
    """The keys of one issuer; safe to share between threads.

    Args:
        url: Its JWKS address.
        timeout_seconds: Longest for one fetch.
        lifetime_seconds: How long keys are used before they are fetched again.
        refresh_seconds: Shortest between two fetches for the sake of unknown keys.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_seconds: float,
        lifetime_seconds: float,
        refresh_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._timeout = timeout_seconds
        self._lifetime = lifetime_seconds
        self._refresh = refresh_seconds
        self._clock = clock
        self._keys: dict[str, PyJWK] = {}
        self._fetched_at: float | None = None
        self._tried_at = float("-inf")
        self._has_failed = False
        self._fetching = threading.Lock()

    def find(self, key_id: str) -> PyJWK | None:
        """The key of that id; None where the issuer has no such key.

        Raises:
            IssuerUnavailable: The keys cannot be fetched, and none that is kept will do.
        """
        key = self._keys.get(key_id)
        if key is not None and self._age() < self._lifetime:
            return key
        with self._fetching:  # the others wait for the one fetch, which is bounded
            if self._may_fetch(key_id):
                self._fetch()
        key = self._keys.get(key_id)
        if key is not None and self._age() < self._lifetime + LONGEST_STALE_SECONDS:
            return key
        if self._has_failed:
            raise IssuerUnavailable(
                "The issuer of tokens does not answer, so this token cannot be checked.",
                remedy="Try again in a moment, or use an API key.",
                headers={"Retry-After": str(round(max(RETRY_SECONDS, 1)))},
            )
        return None

    def _age(self) -> float:
        return float("inf") if self._fetched_at is None else self._clock() - self._fetched_at

    def _may_fetch(self, key_id: str) -> bool:
        since = self._clock() - self._tried_at
        if self._has_failed:
            return since >= min(RETRY_SECONDS, self._refresh)
        is_known_and_fresh = key_id in self._keys and self._age() < self._lifetime
        return not is_known_and_fresh and since >= self._refresh

    def _fetch(self) -> None:
        self._tried_at = self._clock()
        try:
            keys = self._download()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, PyJWTError) as error:
            self._has_failed = True
            _log.warning("The keys at %s cannot be fetched: %s", self._url, error or type(error).__name__)
            return
        self._has_failed = False
        self._keys, self._fetched_at = keys, self._clock()

    def _download(self) -> dict[str, PyJWK]:
        deadline = time.monotonic() + self._timeout
        body = b""
        # Redirects are not followed: the address is the one thing here that is trusted.
        with httpx.Client(timeout=self._timeout) as client, client.stream("GET", self._url) as response:
            if response.status_code != httpx.codes.OK:
                raise ValueError(f"status {response.status_code}")
            for piece in response.iter_bytes():
                body += piece
                if len(body) > LARGEST_ANSWER_BYTES:
                    raise ValueError("the answer is too large")
                if time.monotonic() > deadline:
                    raise ValueError("the answer is too slow")
        answer = json.loads(body)
        if not isinstance(answer, dict):
            raise ValueError("the answer is no key set")
        keys = PyJWKSet.from_dict(answer).keys
        return {key.key_id: key for key in keys if key.key_id and key.public_key_use in {None, "sig"}}
