"""How often a caller may call: a moving window for each, counted in memory or in a Redis that all gateways share.

While Redis does not answer each gateway counts for itself, and the log says so: neither does a lost Redis stop the
platform, nor does it lift the limits.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit, urlunsplit

import limits
from limits.errors import ConfigurationError
from limits.storage import MemoryStorage, RedisStorage, Storage
from limits.strategies import MovingWindowRateLimiter
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from constellation_docker.errors import InvalidInput
from constellation_docker.gateway.access.errors import TooManyRequests
from constellation_docker.settings import RateLimitSettings, resolve_secret

REDIS_TIMEOUT_SECONDS = 0.5
# How long a Redis that failed is left alone, so that its outage does not slow every call down.
PAUSE_SECONDS = 5.0

_log = logging.getLogger(__name__)
_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Allowance:
    """What a caller has left.

    Args:
        limit: Calls in the window.
        remaining: Those that are left.
        reset_seconds: Until another one is.
    """

    limit: int
    remaining: int
    reset_seconds: int

    @property
    def headers(self) -> dict[str, str]:
        """As answers carry it (draft-ietf-httpapi-ratelimit-headers-06)."""
        return {
            "RateLimit-Limit": str(self.limit),
            "RateLimit-Remaining": str(self.remaining),
            "RateLimit-Reset": str(self.reset_seconds),
        }


class RateLimits:
    """Counts calls; safe to share between threads.

    Raises:
        InvalidInput: A limit or the storage's address cannot be read.
    """

    def __init__(self, settings: RateLimitSettings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_caller = _limit(settings.per_caller, "per_caller")
        self._failed_logins = _limit(settings.failed_logins, "failed_logins")
        self._own = MovingWindowRateLimiter(MemoryStorage())
        self._shared = MovingWindowRateLimiter(_storage(settings))
        self._clock = clock
        self._paused_until = float("-inf")
        self._pausing = threading.Lock()

    def count_call(self, caller: str) -> Allowance:
        """Count one call of a caller.

        Raises:
            TooManyRequests: They have none left; the answer says when to come back.
        """
        allowance, is_allowed = self._ask(lambda limiter: _hit(limiter, self._per_caller, caller))
        if not is_allowed:
            raise TooManyRequests(
                f"More than {self._per_caller} calls.",
                remedy=f"Come back in {allowance.reset_seconds} s.",
                headers={**allowance.headers, "Retry-After": str(allowance.reset_seconds)},
            )
        return allowance

    def count_failure(self, address: str) -> None:
        """Count one failed authentication from an address."""
        self._ask(lambda limiter: limiter.hit(self._failed_logins, "failure", address))

    def check_address(self, address: str) -> None:
        """Whether an address may still try to be let in.

        Raises:
            TooManyRequests: It failed too often.
        """
        if self._ask(lambda limiter: limiter.test(self._failed_logins, "failure", address)):
            return
        allowance = self._ask(lambda limiter: _left(limiter, self._failed_logins, "failure", address))
        raise TooManyRequests(
            "Too many attempts with a wrong key or token from this address.",
            remedy=f"Come back in {allowance.reset_seconds} s.",
            headers={"Retry-After": str(allowance.reset_seconds)},
        )

    def _ask(self, question: Callable[[MovingWindowRateLimiter], _Answer]) -> _Answer:
        if self._clock() >= self._paused_until:
            try:
                return question(self._shared)
            except (RedisError, OSError) as error:
                self._pause(error)
        return question(self._own)

    def _pause(self, error: Exception) -> None:
        with self._pausing:
            if self._clock() >= self._paused_until:
                _log.warning(
                    "Redis does not count calls (%s); this gateway counts for itself.", type(error).__name__
                )
            self._paused_until = self._clock() + PAUSE_SECONDS


def _hit(
    limiter: MovingWindowRateLimiter, limit: limits.RateLimitItem, caller: str
) -> tuple[Allowance, bool]:
    is_allowed = limiter.hit(limit, "call", caller)
    return _left(limiter, limit, "call", caller), is_allowed


def _left(limiter: MovingWindowRateLimiter, limit: limits.RateLimitItem, *about: str) -> Allowance:
    window = limiter.get_window_stats(limit, *about)
    # At least a second: "come back in 0 s" would only make callers hammer.
    return Allowance(
        limit.amount, max(0, window.remaining), max(1, math.ceil(window.reset_time - time.time()))
    )


def _limit(text: str, name: str) -> limits.RateLimitItem:
    try:
        return limits.parse(text)
    except ValueError as error:
        raise InvalidInput(
            f"The setting gateway.rate_limits.{name} is {text!r}, which is no limit.",
            remedy="Write it as 600/minute or 10/second.",
        ) from error


def _storage(settings: RateLimitSettings) -> Storage:
    url = settings.storage_url
    if url == "memory://":
        return MemoryStorage()
    wrong = InvalidInput(
        "The setting gateway.rate_limits.storage_url is neither memory:// nor the address of a Redis.",
        remedy="Write redis://host:6379/0, or rediss://… for TLS.",
    )
    if not url.startswith(("redis://", "rediss://")):
        raise wrong
    if settings.storage_password:
        parts = urlsplit(url)
        password = quote(resolve_secret(settings.storage_password), safe="")
        host = parts.netloc.rpartition("@")[2]
        url = urlunsplit(parts._replace(netloc=f"{quote(parts.username or '', safe='')}:{password}@{host}"))
    options: Any = {
        "socket_timeout": REDIS_TIMEOUT_SECONDS,
        "socket_connect_timeout": REDIS_TIMEOUT_SECONDS,
        # Once more, at once: a connection that lay idle may have been cut. The client's default waits for seconds.
        "retry": Retry(NoBackoff(), 1),
    }
    try:
        return RedisStorage(url, key_prefix="constellation-limits", **options)
    except (ConfigurationError, ValueError) as error:
        raise wrong from error
