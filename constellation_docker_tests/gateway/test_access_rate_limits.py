"""How often a caller may call: counted over a moving window, by all gateways together where Redis counts."""

from __future__ import annotations

import contextlib
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from constellation_docker.errors import InvalidInput
from constellation_docker.gateway.access.errors import TooManyRequests
from constellation_docker.gateway.access.principal import Role
from constellation_docker.gateway.access.rate_limits import PAUSE_SECONDS, RateLimits
from constellation_docker.settings import RateLimitSettings
from constellation_docker_tests.fixtures.redis import PASSWORD, RedisServer
from constellation_docker_tests.gateway.access_parts import bearer, open_gateway


class Clock:
    """Seconds that a test lets pass."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def shared(server: RedisServer, clock: Clock | None = None, **settings: str) -> RateLimits:
    known = RateLimitSettings(
        storage_url=server.url, storage_password="env:REDIS_PASSWORD", **{"per_caller": "5/hour", **settings}
    )
    return RateLimits(known, clock=clock) if clock else RateLimits(known)


@pytest.fixture(autouse=True)
def _password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_PASSWORD", PASSWORD)


def test_who_has_no_calls_left_is_told_when_to_come_back(tmp_path: Path) -> None:
    with open_gateway(tmp_path, rate_limits={"per_caller": "2/hour"}) as gateway:
        key = gateway.key(Role.VIEWER)
        first = gateway.client.get("/openapi.json", headers=bearer(key))
        assert (
            first.status_code,
            first.headers["RateLimit-Limit"],
            first.headers["RateLimit-Remaining"],
        ) == (
            200,
            "2",
            "1",
        )
        gateway.client.get("/openapi.json", headers=bearer(key))
        refused = gateway.client.get("/openapi.json", headers=bearer(key))
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "too_many_requests"
        assert refused.headers["RateLimit-Remaining"] == "0"
        assert 3590 <= int(refused.headers["Retry-After"]) <= 3600
        assert refused.headers["Retry-After"] == refused.headers["RateLimit-Reset"]
        assert gateway.client.get("/health").status_code == 200
        assert (
            gateway.client.get("/openapi.json", headers=bearer(gateway.key(Role.VIEWER))).status_code == 200
        )


def test_an_address_that_guesses_is_stopped_and_others_are_not(tmp_path: Path) -> None:
    with open_gateway(tmp_path, rate_limits={"failed_logins": "3/hour"}) as gateway:
        key = gateway.key()
        wrong = key[:-4] + "0000"
        statuses = [gateway.client.get("/openapi.json", headers=bearer(wrong)).status_code for _ in range(4)]
        assert statuses == [401, 401, 401, 429]
        stopped = gateway.client.get("/openapi.json", headers=bearer(key))
        assert stopped.status_code == 429
        assert int(stopped.headers["Retry-After"]) > 3000
        form = {"key": key}
        login = gateway.client.post("/login", data=form, headers={"Origin": "http://localhost"})
        assert login.status_code == 429
        gateway.access.limits.check_address("203.0.113.9")


def test_who_lost_a_key_is_not_taken_for_somebody_who_guesses(tmp_path: Path) -> None:
    with open_gateway(tmp_path, rate_limits={"failed_logins": "2/hour"}) as gateway:
        lost, made = gateway.access.keys.create("bob", Role.VIEWER)
        gateway.access.keys.revoke(made.key_id)
        for _ in range(4):
            assert gateway.client.get("/openapi.json", headers=bearer(lost)).status_code == 401
            assert gateway.client.get("/openapi.json").status_code == 401
        assert gateway.client.get("/openapi.json", headers=bearer(gateway.key())).status_code == 200


def test_two_gateways_count_together_in_redis(redis_server: RedisServer) -> None:
    one, other = shared(redis_server), shared(redis_server)
    let_on = []
    begin = threading.Barrier(20)

    def call(number: int) -> None:
        begin.wait()
        with contextlib.suppress(TooManyRequests):
            let_on.append((one if number % 2 else other).count_call("ann"))

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(call, range(20)))
    assert len(let_on) == 5
    assert other.count_call("bob").remaining == 4


def test_the_password_may_also_stand_in_the_address(redis_server: RedisServer) -> None:
    limits = RateLimits(RateLimitSettings(storage_url=redis_server.url_with_password, per_caller="5/hour"))
    limits.count_call("ann")
    assert shared(redis_server).count_call("ann").remaining == 3


def test_without_redis_each_gateway_counts_for_itself_and_says_so(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    limits = shared(redis_server, clock)
    limits.count_call("ann")
    redis_server.stop()
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            limits.count_call("ann")
        with pytest.raises(TooManyRequests):
            limits.count_call("ann")
    told = [record.getMessage() for record in caplog.records if "counts for itself" in record.getMessage()]
    assert len(told) == 1
    assert PASSWORD not in caplog.text

    redis_server.start()
    clock.now += PAUSE_SECONDS
    assert limits.count_call("ann").remaining == 4
    assert shared(redis_server).count_call("ann").remaining == 3


def test_a_redis_that_was_started_anew_is_used_at_once(redis_server: RedisServer) -> None:
    limits = shared(redis_server)
    limits.count_call("ann")
    redis_server.stop()
    redis_server.start()
    limits.count_call("ann")
    assert shared(redis_server).count_call("ann").remaining == 3


@pytest.mark.parametrize(
    "settings",
    [
        {"per_caller": "often"},
        {"failed_logins": "0.5/minute"},
        {"storage_url": "memcached://host"},
        {"storage_url": "redis"},
        {"storage_url": "redis://host:port"},
    ],
)
def test_what_is_no_limit_or_storage_stops_the_start(settings: dict[str, str]) -> None:
    with pytest.raises(InvalidInput, match=rf"gateway\.rate_limits\.{next(iter(settings))}"):
        RateLimits(RateLimitSettings(**settings))
