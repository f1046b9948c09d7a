"""The gateway as it is served: real processes, sockets and certificates."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
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
from constellation_docker.gateway.application import create_app
from constellation_docker.gateway.server import NotGuarded, Server, _listen, refuse_unguarded
from constellation_docker.gateway.tls import Certificates
from constellation_docker.settings import GatewaySettings, Settings
from constellation_docker_tests.fixtures.deadline import wait_for
from constellation_docker_tests.fixtures.ports import free_port
from constellation_docker_tests.fixtures.redis import PASSWORD, RedisServer
from constellation_docker_tests.gateway.access_parts import NOWHERE, bearer

ISSUER_OF_TOKENS = {"secret": "env:JWT_SECRET", "issuer": "https://issuer.example"}


@dataclass
class Pair:
    """A certificate and its key, in the two files that a gateway is told."""

    certificate: Path
    key: Path

    def write(self, authority: trustme.CA, *, with_key: bool = True) -> int:
        """Let the files hold a new certificate for loopback; returns its serial number."""
        made = authority.issue_cert("localhost", "127.0.0.1")
        replace(self.certificate, b"".join(pem.bytes() for pem in made.cert_chain_pems))
        if with_key:
            replace(self.key, made.private_key_pem.bytes())
        return serial_of(ssl.PEM_cert_to_DER_cert(made.cert_chain_pems[0].bytes().decode()))


def replace(path: Path, content: bytes) -> None:
    """Write a file as those who renew certificates do: whole, at once."""
    new = path.with_suffix(".new")
    new.write_bytes(content)
    new.rename(path)


def serial_of(certificate: bytes) -> int:
    from cryptography.x509 import load_der_x509_certificate

    return load_der_x509_certificate(certificate).serial_number


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def pair(tmp_path: Path, authority: trustme.CA) -> Pair:
    made = Pair(tmp_path / "tls.crt", tmp_path / "tls.key")
    made.write(authority)
    return made


@pytest.fixture
def trust(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@contextmanager
def served(home: Path, **gateway: Any) -> Iterator[tuple[str, str]]:
    """A gateway in a thread, served as `serve` does: its address and a viewer's key."""
    known = GatewaySettings(webserver_url=NOWHERE, port=0, **gateway)
    app = create_app(Settings(home=home, gateway=known))
    key, _ = app.state.ports.access.keys.create("ann", Role.VIEWER)
    with serving(app, known) as url:
        yield url, key


@contextmanager
def serving(app: FastAPI, known: GatewaySettings) -> Iterator[str]:
    """An application in a thread, served as `serve` does: its address."""
    certificates = (
        Certificates(known.tls_certificate, known.tls_key)
        if known.tls_certificate and known.tls_key
        else None
    )
    with _listen(known) as listener:
        server = Server(app, known, certificates)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="gateway")
        thread.start()
        try:
            wait_for(lambda: server.started or not thread.is_alive(), what="the gateway")
            scheme = "https" if certificates else "http"
            yield f"{scheme}://localhost:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(timeout=30)


def shown_serial(url: str, trust: ssl.SSLContext, *, name: str | None = "localhost") -> int:
    port = int(url.rsplit(":", 1)[1])
    context = trust
    if name is None:  # a client that names no server checks the address
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname=name) as connection,
    ):
        return serial_of(connection.getpeercert(binary_form=True) or b"")


def test_a_certificate_is_exchanged_under_traffic_without_a_failed_call(
    tmp_path: Path, pair: Pair, authority: trustme.CA, trust: ssl.SSLContext
) -> None:
    settings = {"tls_certificate": pair.certificate, "tls_key": pair.key, "tls_reload_seconds": 0.1}
    with served(tmp_path / "home", **settings) as (url, _):
        is_over = threading.Event()
        statuses: list[int] = []
        failures: list[Exception] = []

        def call_anew_each_time() -> None:
            while not is_over.is_set():
                try:
                    statuses.append(httpx.get(f"{url}/health", verify=trust, timeout=30).status_code)
                except httpx.HTTPError as error:
                    failures.append(error)

        callers = [threading.Thread(target=call_anew_each_time) for _ in range(3)]
        with httpx.Client(base_url=url, verify=trust, timeout=30) as standing:
            assert standing.get("/health").headers["Strict-Transport-Security"]
            for caller in callers:
                caller.start()
            for _ in range(5):
                serial = pair.write(authority)
                wait_for(lambda: shown_serial(url, trust) == serial, what="the new certificate")  # noqa: B023
                assert shown_serial(url, trust, name=None) == serial
            before = len(statuses)
            wait_for(lambda: len(statuses) > before + 3, what="calls with the last certificate")
            # The connection that stood all the while still does.
            assert standing.get("/health").status_code == 200
            is_over.set()
            for caller in callers:
                caller.join()
        assert failures == []
        assert set(statuses) == {200}


def test_a_pair_that_is_half_written_leaves_the_old_one_in_use(
    pair: Pair, authority: trustme.CA, trust: ssl.SSLContext
) -> None:
    certificates = Certificates(pair.certificate, pair.key)
    assert not certificates.reload_if_changed()
    pair.write(authority, with_key=False)
    assert not certificates.reload_if_changed()
    replace(pair.certificate, b"no certificate")
    assert not certificates.reload_if_changed()
    pair.certificate.unlink()
    assert not certificates.reload_if_changed()
    pair.write(authority)
    assert certificates.reload_if_changed()
    assert not certificates.reload_if_changed()


def test_tls_older_than_1_2_is_not_spoken(tmp_path: Path, pair: Pair, trust: ssl.SSLContext) -> None:
    with served(tmp_path / "home", tls_certificate=pair.certificate, tls_key=pair.key) as (url, key):
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.set_ciphers("ALL:@SECLEVEL=0")
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
        port = int(url.rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port)) as plain, pytest.raises((ssl.SSLError, OSError)):
            old.wrap_socket(plain)
        assert httpx.get(f"{url}/docs", headers=bearer(key), verify=trust).status_code == 200


def test_a_certificate_that_cannot_be_used_stops_the_start(tmp_path: Path, pair: Pair) -> None:
    with pytest.raises(InvalidInput, match=r"nowhere\.pem.* cannot be used: No such file"):
        Certificates(tmp_path / "nowhere.pem", pair.key)
    other = trustme.CA().issue_cert("localhost").private_key_pem.bytes()
    replace(pair.key, other)
    with pytest.raises(InvalidInput, match="cannot be used"):
        Certificates(pair.certificate, pair.key)


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
