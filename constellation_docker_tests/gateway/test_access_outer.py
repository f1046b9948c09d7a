"""What stands around the gateway: closed by default, hosts, CORS, headers, bodies, the audit trail and the access log."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError
from starlette.testclient import TestClient

from constellation_docker.gateway.access import access_log
from constellation_docker.gateway.access.authentication import is_loopback
from constellation_docker.gateway.access.outer import allowed_hosts
from constellation_docker.gateway.access.principal import Role
from constellation_docker.settings import GatewaySettings
from constellation_docker_tests.fixtures.postgres import PostgresCluster
from constellation_docker_tests.gateway.access_parts import (
    OpenGateway,
    audit_lines,
    audited,
    bearer,
    open_gateway,
)

APP = "https://app.example.org"


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[OpenGateway]:
    with open_gateway(tmp_path, cors_origins=[APP], max_body_bytes=1000) as opened:
        yield opened


def test_nothing_but_health_and_readiness_is_open(gateway: OpenGateway) -> None:
    document = gateway.client.get("/openapi.json", headers=bearer(gateway.key())).json()
    paths = [path for path in document["paths"] if path not in {"/health", "/ready"}]
    assert len(paths) > 5
    for path in [
        *paths,
        "/docs",
        "/openapi.json",
        "/metrics",
        "/ui/",
        "/ui/graphql",
        "/",
        "/nope",
        "/docs/start.js",
    ]:
        for method in ("GET", "POST", "DELETE", "PUT", "OPTIONS", "HEAD", "TRACE"):
            answer = gateway.client.request(method, path.replace("{model_id}", "x"))
            assert answer.status_code == 401, (method, path)
    assert gateway.client.get("/health").status_code == 200
    assert gateway.client.get("/ready").status_code == 503  # no Dagster answers here
    for path in (
        "/health/",
        "//health",
        "/health/../docs",
        "/HEALTH",
        "/health%2f..%2fdocs",
        "/health;x",
        "/login/x",
    ):
        assert gateway.client.get(path).status_code == 401, path


def test_a_key_may_be_sent_in_either_header(gateway: OpenGateway) -> None:
    key = gateway.key(Role.VIEWER)
    for headers in (
        {"Authorization": f"Bearer {key}"},
        {"Authorization": f"bearer  {key} "},
        {"X-API-Key": key},
    ):
        assert gateway.client.get("/openapi.json", headers=headers).status_code == 200
    for headers in (
        {"Authorization": f"Basic {key}"},
        {"Authorization": key},
        {"Authorization": "Bearer"},
        {"Authorization": "Basic x", "X-API-Key": key},
        {"X-API-Key": ""},
    ):
        assert gateway.client.get("/openapi.json", headers=headers).status_code == 401
    assert gateway.client.get(f"/openapi.json?key={key}&access_token={key}").status_code == 401


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "", "[::2]", "localhost@evil.example", "a b"]
)
def test_a_call_under_a_foreign_name_gets_nothing(gateway: OpenGateway, host: str) -> None:
    answer = gateway.client.get("/login", headers={"Host": host})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "wrong_host")
    assert gateway.client.get("/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["localhost", "localhost:8700", "LOCALHOST", "127.0.0.1:1", "[::1]:8700"])
def test_loopbacks_names_are_ours(gateway: OpenGateway, host: str) -> None:
    assert gateway.client.get("/login", headers={"Host": host}).status_code == 200


def test_names_are_those_that_are_set(tmp_path: Path) -> None:
    assert allowed_hosts(
        GatewaySettings(public_url="https://gateway.example.org:8443/x", bind="10.0.0.1")
    ) == (
        "gateway.example.org",
        "10.0.0.1",
        "localhost",
        "127.0.0.1",
        "::1",
    )
    with open_gateway(tmp_path, allowed_hosts=["*.example.org"]) as gateway:
        answers = [
            gateway.client.get("/login", headers={"Host": host}).status_code
            for host in ("a.example.org", "a.b.example.org:80", "example.org", "aexample.org", "localhost")
        ]
        assert answers == [200, 200, 400, 400, 400]


def test_only_pages_of_the_allowed_origins_may_call(gateway: OpenGateway) -> None:
    asked = {
        "Origin": APP,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    answer = gateway.client.options("/docker/models/", headers=asked)
    assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (200, APP)
    assert "Access-Control-Allow-Credentials" not in answer.headers
    refused = gateway.client.options("/docker/models/", headers={**asked, "Origin": "https://evil.example"})
    assert refused.status_code == 400
    assert "Access-Control-Allow-Origin" not in refused.headers
    # An error can be read, too.
    assert gateway.client.get("/docs", headers={"Origin": APP}).headers["Access-Control-Allow-Origin"] == APP


def test_by_default_no_other_origin_may_call(tmp_path: Path) -> None:
    with open_gateway(tmp_path) as gateway:
        asked = {"Origin": APP, "Access-Control-Request-Method": "POST"}
        answer = gateway.client.options("/docker/models/", headers=asked)
        assert answer.status_code == 401
        assert "Access-Control-Allow-Origin" not in answer.headers
    for settings in ({"cors_origins": ["*"]}, {"allowed_hosts": ["*"]}, {"tls_key": "/x"}):
        with pytest.raises(ValidationError):
            GatewaySettings(**settings)  # type: ignore[arg-type]


def test_browsers_are_told_to_be_careful(gateway: OpenGateway) -> None:
    headers = bearer(gateway.key())
    for path in ("/health", "/docs", "/nope", "/login", "/docker/models/"):
        answer = gateway.client.get(path, headers=headers)
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["Referrer-Policy"] == "same-origin"
        assert "Strict-Transport-Security" not in answer.headers
        assert "Server" not in answer.headers
    assert gateway.client.get("/docker/models/", headers=headers).headers["Cache-Control"] == "no-store"
    secure = TestClient(gateway.client.app, base_url="https://localhost")
    assert secure.get("/health").headers["Strict-Transport-Security"] == "max-age=31536000"


def test_the_docs_page_needs_no_other_server(gateway: OpenGateway) -> None:
    headers = bearer(gateway.key())
    page = gateway.client.get("/docs", headers=headers)
    assert page.headers["Cache-Control"] == "no-store", "a kept page would not lead to the login any more"
    policy = page.headers["Content-Security-Policy"]
    assert "script-src 'self';" in policy
    assert "http" not in policy
    assert not re.search(r"https?://|<script>|\son\w+=", page.text)
    parts = re.findall(r'(?:src|href)="(?!data:)([^"]+)"', page.text)
    assert len(parts) == 3
    for part in parts:
        answer = gateway.client.get(f"/{part}", headers=headers)
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].split(";")[0] in {"text/javascript", "text/css"}
    document = gateway.client.get("/openapi.json", headers=headers).json()
    assert document["info"]["title"] == "Constellation"
    assert (
        document["paths"]["/docker/models/"]["post"]["summary"] == "Register a model version and package it"
    )
    home = gateway.client.get("/", headers=headers)
    assert (home.status_code, home.headers["Location"]) == (303, "/docs")


@pytest.mark.parametrize("is_announced", [True, False])
def test_a_body_is_read_no_further_than_its_limit(gateway: OpenGateway, is_announced: bool) -> None:
    read = 0

    def pieces() -> Iterator[bytes]:
        nonlocal read
        for _ in range(100):
            read += 100
            yield b" " * 100

    headers = {**bearer(gateway.key()), "Content-Type": "application/json"}
    body = b" " * 1001 if is_announced else pieces()
    answer = gateway.client.post("/docker/models/", content=body, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
    fits = gateway.client.post("/docker/models/", content=b" " * 1000, headers=headers)
    assert fits.status_code == 422


def test_a_body_that_lies_about_its_length_is_still_counted(gateway: OpenGateway) -> None:
    headers = {**bearer(gateway.key()), "Content-Length": "10", "Content-Type": "application/json"}
    answer = gateway.client.post("/docker/models/", content=b" " * 5000, headers=headers)
    assert answer.status_code == 413


def test_every_denial_is_one_line_that_says_who_and_what(
    gateway: OpenGateway, caplog: pytest.LogCaptureFixture
) -> None:
    with audited(caplog):
        key, made = gateway.access.keys.create("ann", Role.VIEWER)
        body = {"model_name": "acme/x", "model_version": "1", "repo_url": "https://git.example/x"}
        answer = gateway.client.post(
            "/docker/models/", json=body, headers={**bearer(key), "X-Request-ID": "call-1"}
        )
        assert answer.status_code == 403
        gateway.client.get("/docs", headers=bearer(key[:-4] + "0000"))
    denied, unknown = audit_lines(caplog)
    assert {
        "log": "audit",
        "who": "ann",
        "id": f"key:{made.key_id}",
        "role": "viewer",
        "action": "register",
        "subject": "/docker/models/",
        "outcome": "denied",
        "address": "127.0.0.1",
        "request_id": "call-1",
    }.items() <= denied.items()
    assert {"action": "authenticate", "outcome": "denied", "subject": "/docs"}.items() <= unknown.items()
    assert "who" not in unknown
    assert key.rsplit("_", 1)[1][:20] not in caplog.text


def test_no_line_can_be_forged_and_no_key_gets_into_one(
    gateway: OpenGateway, caplog: pytest.LogCaptureFixture
) -> None:
    key = gateway.key(name="ann")
    with audited(caplog), caplog.at_level(logging.INFO, access_log.LOGGER):
        gateway.client.get('/x%0a{"log":"audit","who":"bob"}%0d%e2%80%a8%1b[31m/' + "y" * 3000)
        gateway.client.get(f"/{key}?key={key}")
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("constellation.")]
    assert len(lines) == 4
    for line in lines:
        assert line.isascii()
        assert line.isprintable()
        assert len(line) < 1500
        assert json.loads(line).get("who") is None
        assert key not in line
    assert key.rsplit("_", 1)[1] not in "".join(lines)


def test_every_call_is_one_line_without_its_query(
    gateway: OpenGateway, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, access_log.LOGGER):
        answer = gateway.client.get("/openapi.json?secret=1", headers=bearer(gateway.key(name="ann")))
    line = json.loads(
        next(record for record in caplog.records if record.name == access_log.LOGGER).getMessage()
    )
    assert {
        "method": "GET",
        "path": "/openapi.json",
        "status": 200,
        "bytes": len(answer.content),
        "who": "ann",
        "request_id": answer.headers["X-Request-ID"],
    }.items() <= line.items()


def test_only_where_it_is_set_and_nobody_has_a_key_is_this_machine_trusted(tmp_path: Path) -> None:
    with open_gateway(tmp_path / "closed") as closed:
        assert closed.client.get("/docs").status_code == 401
    with open_gateway(tmp_path / "local", allow_local=True) as gateway:
        assert gateway.client.get("/docs").status_code == 200
        assert gateway.client.post("/docker/models/", json={}).status_code == 422
        for headers in (
            {"X-Forwarded-For": "203.0.113.9"},
            {"Forwarded": "for=203.0.113.9"},
            {"Via": "1.1 proxy"},
        ):
            assert gateway.client.get("/docs", headers=headers).status_code == 401
        for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
            assert gateway.client.post("/docker/models/", json={}, headers=headers).status_code == 403
        far = TestClient(gateway.client.app, base_url="http://localhost", client=("203.0.113.9", 1))
        assert far.get("/docs").status_code == 401
        gateway.key()
        assert gateway.client.get("/docs").status_code == 401
    with open_gateway(tmp_path / "wide", allow_local=True, bind="0.0.0.0") as wide:
        assert wide.client.get("/docs").status_code == 401


def test_while_the_store_is_down_nobody_is_let_in_and_nobody_is_called_unknown(
    tmp_path: Path, postgres: PostgresCluster, postgres_url: str
) -> None:
    with open_gateway(tmp_path, postgres_url) as gateway:
        headers = bearer(gateway.key())
        assert gateway.client.get("/docs", headers=headers).status_code == 200
        postgres.stop()
        try:
            answer = gateway.client.get("/docs", headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store_unavailable")
            assert int(answer.headers["Retry-After"]) >= 1
            assert str(postgres.directory) not in answer.text
            assert gateway.client.get("/health").status_code == 200
        finally:
            postgres.start()
        assert gateway.client.get("/docs", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("host", "is_own"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("10.0.0.1", False),
        ("localhost.evil.example", False),
        ("::ffff:10.0.0.1", False),
    ],
)
def test_loopback_is_told_from_the_rest(host: str, is_own: bool) -> None:
    assert is_loopback(host) is is_own
