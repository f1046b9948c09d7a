"""The gateway as it is served: real processes and sockets."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from constellation_docker.cards import CardStore
from constellation_docker.errors import InvalidInput
from constellation_docker.gateway.access import access_log
from constellation_docker.gateway.access.api_keys import ApiKeys
from constellation_docker.gateway.access.authentication import Access
from constellation_docker.gateway.access.gate import Gate
from constellation_docker.gateway.access.principal import Role
from constellation_docker.gateway.server import NotGuarded, _listen, refuse_unguarded
from constellation_docker.settings import GatewaySettings, Settings
from constellation_docker_tests.fixtures.deadline import wait_for
from constellation_docker_tests.fixtures.ports import free_port
from constellation_docker_tests.fixtures.redis import PASSWORD, RedisServer
from constellation_docker_tests.gateway.access_parts import NOWHERE, bearer
from constellation_docker_tests.gateway.serving import served, serving

ISSUER_OF_TOKENS = {"secret": "env:JWT_SECRET", "issuer": "https://issuer.example"}


def test_only_a_trusted_proxy_says_who_calls(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    told = {"X-Forwarded-For": "198.51.100.7, 203.0.113.9", "X-Forwarded-Proto": "https"}

    def call(home: Path, **gateway: Any) -> tuple[str, bool]:
        caplog.clear()
        with served(home, **gateway) as (url, _), caplog.at_level("INFO", access_log.LOGGER):
            answer = httpx.get(f"{url}/health", headers=told)
        line = json.loads(next(r for r in caplog.records if r.name == access_log.LOGGER).getMessage())
        return line["address"], "Strict-Transport-Security" in answer.headers

    assert call(tmp_path / "one") == ("127.0.0.1", False)
    # What the caller itself put before what our proxy added is not believed.
    assert call(tmp_path / "two", trusted_proxies=["127.0.0.0/8"]) == ("203.0.113.9", True)


def test_a_stream_ends_with_the_key_that_opened_it(tmp_path: Path) -> None:
    has_stopped = threading.Event()

    async def lines() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"line\n"
                await asyncio.sleep(0.01)
        finally:
            has_stopped.set()

    async def stream(_: Request) -> Response:
        return StreamingResponse(lines())

    with CardStore.open(f"sqlite:///{tmp_path / 'cards.db'}") as store:
        access = Access(Settings(home=tmp_path), store)
        key, made = access.keys.create("ann", Role.VIEWER)
        app = FastAPI()
        app.router.routes.append(Route("/stream", stream))
        app.add_middleware(Gate, access=access, recheck_seconds=0.05)
        with (
            serving(app, GatewaySettings(port=0)) as url,
            httpx.stream("GET", f"{url}/stream", headers=bearer(key), timeout=30) as answer,
        ):
            received = answer.iter_lines()
            assert [next(received) for _ in range(50)] == ["line"] * 50
            access.keys.revoke(made.key_id)
            assert set(received) <= {"line"}  # it ends, as a whole answer does
            assert has_stopped.wait(30)


def test_where_nobody_could_be_told_apart_it_starts_on_loopback_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JWT_SECRET", "x" * 32)
    with CardStore.open(f"sqlite:///{tmp_path / 'cards.db'}") as store:

        def start(**gateway: Any) -> None:
            settings = Settings(gateway=GatewaySettings(**gateway))
            refuse_unguarded(settings.gateway, Access(settings, store))

        for bind in ("0.0.0.0", "::", "", "10.0.0.1", "gateway.example.org"):
            with pytest.raises(NotGuarded, match="does not start"):
                start(bind=bind)
            with pytest.raises(NotGuarded, match="does not start"):
                start(bind=bind, allow_local=True)
            start(bind=bind, tokens=ISSUER_OF_TOKENS)
        for bind in ("127.0.0.1", "::1", "localhost"):
            start(bind=bind)
        keys = ApiKeys(store.database)
        _, made = keys.create("ann", Role.VIEWER)
        start(bind="0.0.0.0")
        keys.revoke(made.key_id)
        with pytest.raises(NotGuarded):
            start(bind="0.0.0.0")


@dataclass
class Process:
    """A gateway that was started with the command line."""

    process: subprocess.Popen[bytes]
    port: int
    logs: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def is_up(self) -> bool:
        assert self.process.poll() is None, (self.logs / "err").read_text()
        try:
            return httpx.get(f"{self.url}/health", timeout=30).status_code == 200
        except httpx.TransportError:
            return False

    def lines(self) -> list[dict[str, Any]]:
        """All that it logged; every line must be JSON."""
        return [
            json.loads(line)
            for name in ("out", "err")
            for line in (self.logs / name).read_text().splitlines()
        ]


def start_process(home: Path, name: str, **variables: str) -> Process:
    logs = home / name
    logs.mkdir(parents=True)
    port = free_port()
    environment = {
        **os.environ,
        "CONSTELLATION_HOME": str(home),
        "CONSTELLATION_GATEWAY__PORT": str(port),
        "CONSTELLATION_GATEWAY__WEBSERVER_URL": NOWHERE,
        **variables,
    }
    command = [sys.executable, "-m", "constellation_docker.cli", "gateway", "serve"]
    with (logs / "out").open("wb") as out, (logs / "err").open("wb") as err:
        return Process(subprocess.Popen(command, env=environment, stdout=out, stderr=err), port, logs)


def test_two_gateway_processes_share_one_limit_and_stop_gracefully(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    with CardStore.open(f"sqlite:///{tmp_path / 'cards.db'}") as store:
        key, _ = ApiKeys(store.database).create("ann", Role.OPERATOR)
    audit_file = tmp_path / "audit.log"
    variables = {
        "CONSTELLATION_GATEWAY__AUDIT_FILE": str(audit_file),
        "REDIS_PASSWORD": PASSWORD,
        "CONSTELLATION_GATEWAY__BIND": "0.0.0.0",
        "CONSTELLATION_GATEWAY__RATE_LIMITS": json.dumps(
            {
                "storage_url": redis_server.url,
                "storage_password": "env:REDIS_PASSWORD",
                "per_caller": "7/hour",
            }
        ),
    }
    gateways = [start_process(tmp_path, name, **variables) for name in ("one", "other")]
    try:
        for gateway in gateways:
            wait_for(gateway.is_up, seconds=120, what="a gateway")
        answers = [
            httpx.get(f"{gateways[number % 2].url}/openapi.json", headers=bearer(key), timeout=60)
            for number in range(8)
        ]
        assert [answer.status_code for answer in answers] == [200] * 7 + [429]
        # Both append to one file, and say the same on standard output.
        assert httpx.get(f"{gateways[1].url}/openapi.json", timeout=60).status_code == 401
        assert json.loads(audit_file.read_text())["action"] == "authenticate"
        assert audit_file.read_text() in (gateways[1].logs / "out").read_text()
        assert [int(answer.headers["RateLimit-Remaining"]) for answer in answers] == [6, 5, 4, 3, 2, 1, 0, 0]

        redis_server.empty()
        with socket.create_connection(("127.0.0.1", gateways[0].port), timeout=60) as standing:
            half = b'{"model_name":'
            head = f"POST /docker/models/ HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {key}\r\nContent-Type: application/json\r\n"
            standing.sendall(f"{head}Content-Length: {len(half) + 1}\r\n\r\n".encode() + half)
            # It is known to be in progress once the limit has counted it.
            wait_for(lambda: _counted(redis_server), what="the call to be counted")
            gateways[0].process.send_signal(signal.SIGTERM)
            wait_for(lambda: not _accepts(gateways[0].port), what="the gateway to take no more")
            standing.sendall(b"}")
            assert standing.recv(4096).startswith(b"HTTP/1.1 422 ")
        assert gateways[0].process.wait(60) in {0, -signal.SIGTERM}
        lines = gateways[0].lines()
        assert {line["log"] for line in lines} >= {"access", "constellation_docker.gateway.server"}
        for name in ("out", "err"):
            text = (gateways[0].logs / name).read_text()
            assert key.rsplit("_", 1)[1] not in text
            assert PASSWORD not in text
    finally:
        for gateway in gateways:
            gateway.process.terminate()
        for gateway in gateways:
            gateway.process.wait(60)


def _counted(server: RedisServer) -> bool:
    import redis

    with redis.from_url(server.url, password=PASSWORD) as client:
        return bool(client.dbsize())


def _accepts(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10):
            return True
    except OSError:
        return False


def test_what_stops_the_start_is_one_sentence_and_a_status(tmp_path: Path) -> None:
    stopped = start_process(tmp_path, "open", CONSTELLATION_GATEWAY__BIND="0.0.0.0")
    assert stopped.process.wait(120) == 1
    said = (stopped.logs / "err").read_text()
    assert said.startswith("Error: The gateway does not start on 0.0.0.0: there is no API key")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("bind", "reason"),
    [("127.0.0.1", "Address already in use"), ("192.0.2.1", "Cannot assign requested address")],
)
def test_an_address_that_cannot_be_listened_on_is_named(bind: str, reason: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(InvalidInput, match=rf"cannot listen on {bind}:{port}: {reason}\."):
            _listen(GatewaySettings(bind=bind, port=port))
