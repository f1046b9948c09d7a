"""Browsers: a key once, then a cookie that other sites, scripts and time cannot misuse."""

from __future__ import annotations

import re
import time
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from constellation_docker.errors import InvalidInput
from constellation_docker.gateway.access.login import safe_target
from constellation_docker.gateway.access.principal import Role
from constellation_docker.gateway.access.sessions import COOKIE, TLS_COOKIE, Sessions
from constellation_docker.settings import GatewaySettings
from constellation_docker_tests.gateway.access_parts import (
    ISSUER,
    ORIGIN,
    OpenGateway,
    audit_lines,
    audited,
    hs256,
    open_gateway,
)

SECRET = "a-shared-secret-of-more-than-32-bytes"
FROM_HERE = {"Origin": ORIGIN}
REGISTRATION = {"model_name": "acme/x"}


def log_in(gateway: OpenGateway, key: str, **fields: str) -> httpx.Response:
    response: Any = gateway.client.post("/login", data={"key": key, **fields}, headers=FROM_HERE)
    return response


def test_a_key_once_and_then_a_cookie(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with open_gateway(tmp_path) as gateway, audited(caplog):
        page = gateway.client.get("/login", params={"next": "/docs"})
        assert page.status_code == 200
        assert 'name="next" type="hidden" value="/docs"' in page.text
        key = gateway.key(Role.OPERATOR)
        answer = log_in(gateway, key, next="/docs")
        assert (answer.status_code, answer.headers["Location"]) == (303, "/docs")
        cookie = SimpleCookie(answer.headers["Set-Cookie"])[COOKIE]
        assert cookie["httponly"]
        assert cookie["samesite"] == "strict"
        assert cookie["path"] == "/"
        assert not cookie["secure"]
        assert cookie["max-age"] == str(8 * 3600)
        assert key.rsplit("_", 1)[1] not in answer.headers["Set-Cookie"]
        assert gateway.client.get("/docs").status_code == 200
        # It reaches the endpoint, which finds that the body is not whole.
        assert gateway.client.post("/docker/models/", json=REGISTRATION, headers=FROM_HERE).status_code == 422
        line = audit_lines(caplog)[-1] if audit_lines(caplog) else {}
        assert {"action": "log_in", "outcome": "done", "who": "ann"}.items() <= line.items()


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "https://evil.example"},
        {"Origin": "http://localhost.evil.example"},
        {"Origin": "http://localhost:81"},
        {"Origin": "null"},
        {"Origin": ORIGIN, "Sec-Fetch-Site": "cross-site"},
        {"Origin": ORIGIN, "Sec-Fetch-Site": "same-site"},
        {"Referer": f"{ORIGIN}/docs"},
    ],
)
def test_another_sites_page_gets_nothing_by_a_browsers_session(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    with open_gateway(tmp_path) as gateway:
        key = gateway.key(Role.ADMIN)
        log_in(gateway, key)
        answer = gateway.client.post("/docker/models/", json=REGISTRATION, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "cross_site")
        # A program that has the key itself is no browser that was tricked.
        answer = gateway.client.post(
            "/docker/models/", json=REGISTRATION, headers={**headers, "Authorization": f"Bearer {key}"}
        )
        assert answer.status_code == 422


@pytest.mark.parametrize("headers", [{}, {"Origin": "https://evil.example"}, {"Origin": "null"}])
def test_another_sites_form_logs_nobody_in_or_out(tmp_path: Path, headers: dict[str, str]) -> None:
    with open_gateway(tmp_path) as gateway:
        answer = gateway.client.post("/login", data={"key": gateway.key()}, headers=headers)
        assert answer.status_code == 403
        assert "Set-Cookie" not in answer.headers
        log_in(gateway, gateway.key())
        assert gateway.client.post("/logout", headers=headers).status_code == 403
        assert gateway.client.get("/docs").status_code == 200


def test_logging_out_ends_it(tmp_path: Path) -> None:
    with open_gateway(tmp_path) as gateway:
        log_in(gateway, gateway.key())
        assert "Log out" in gateway.client.get("/logout").text
        assert gateway.client.post("/logout", headers=FROM_HERE).headers["Location"] == "/login"
        assert gateway.client.get("/docs").status_code == 401


def test_revoking_the_key_ends_the_session(tmp_path: Path) -> None:
    with open_gateway(tmp_path) as gateway:
        key, made = gateway.access.keys.create("ann", Role.ADMIN)
        log_in(gateway, key)
        assert gateway.client.get("/docs").status_code == 200
        gateway.access.keys.revoke(made.key_id)
        answer = gateway.client.get("/docs")
        assert (answer.status_code, "is revoked" in answer.text) == (401, True)


def test_a_tokens_session_ends_with_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JWT_SECRET", SECRET)
    with open_gateway(tmp_path, tokens={"secret": "env:JWT_SECRET", "issuer": ISSUER}) as gateway:
        answer = log_in(gateway, hs256(SECRET, exp=int(time.time()) + 100))
        assert int(SimpleCookie(answer.headers["Set-Cookie"])[COOKIE]["max-age"]) <= 100
        assert gateway.client.get("/docs").status_code == 200


def session(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    usual = {
        "aud": "constellation-session",
        "iat": now,
        "exp": now + 600,
        "sub": "token:x",
        "kind": "token",
        "name": "mallory",
        "role": "admin",
        "environments": None,
    }
    return usual | changes


# Cookies differ in each process, so they cannot name the tests.
FOREIGN_COOKIES = [
    "",
    "x",
    jwt.encode(session(), "y" * 32, algorithm="HS256"),
    jwt.encode(session(), None, algorithm="none"),
    jwt.encode(session(exp=1), SECRET, algorithm="HS256"),
    jwt.encode(session(aud="authenticated"), SECRET, algorithm="HS256"),
    jwt.encode(session(role="root"), SECRET, algorithm="HS256"),
    jwt.encode(session(), SECRET, algorithm="HS512"),
]


@pytest.mark.parametrize(
    "cookie", FOREIGN_COOKIES, ids=[str(number) for number in range(len(FOREIGN_COOKIES))]
)
def test_a_cookie_that_is_not_ours_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cookie: str
) -> None:
    monkeypatch.setenv("SESSION_SECRET", SECRET)
    with open_gateway(tmp_path, session_secret="env:SESSION_SECRET") as gateway:
        good = gateway.client.get("/docs", cookies={COOKIE: jwt.encode(session(), SECRET, algorithm="HS256")})
        assert good.status_code == 200
        gateway.client.cookies.clear()
        assert gateway.client.get("/docs", cookies={COOKIE: cookie}).status_code == 401


def test_a_session_of_one_gateway_is_good_at_another_with_the_same_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SESSION_SECRET", SECRET)
    with open_gateway(tmp_path, session_secret="env:SESSION_SECRET") as one:
        log_in(one, one.key())
        cookies = dict(one.client.cookies)
    with open_gateway(tmp_path, session_secret="env:SESSION_SECRET") as other:
        assert other.client.get("/docs", cookies=cookies).status_code == 200
    with open_gateway(tmp_path) as stranger:
        assert stranger.client.get("/docs", cookies=cookies).status_code == 401


def test_over_tls_the_cookie_is_bound_to_it_and_to_the_host(tmp_path: Path) -> None:
    with open_gateway(tmp_path) as gateway:
        key = gateway.key()
        secure = TestClient(gateway.client.app, base_url="https://localhost", follow_redirects=False)
        answer = secure.post("/login", data={"key": key}, headers={"Origin": "https://localhost"})
        cookie = SimpleCookie(answer.headers["Set-Cookie"])[TLS_COOKIE]
        assert cookie["secure"]
        assert not cookie["domain"]
        assert secure.get("/docs").status_code == 200
        # A cookie that something without TLS planted is not looked at.
        secure.cookies.clear()
        assert secure.get("/docs", headers={"Cookie": f"{COOKIE}={cookie.value}"}).status_code == 401


def test_a_wrong_key_is_told_on_the_page(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with open_gateway(tmp_path) as gateway, audited(caplog):
        wrong = gateway.key()[:-4] + "0000"
        answer = log_in(gateway, wrong, next='"><script>alert(1)</script>')
        assert answer.status_code == 401
        assert "The API key is not valid." in answer.text
        assert "<script" not in answer.text
        assert wrong not in answer.text
        assert "Set-Cookie" not in answer.headers
        assert [line["outcome"] for line in audit_lines(caplog)] == ["denied"]
        assert log_in(gateway, "").status_code == 401
        assert gateway.client.post("/login", content=b"\xff" * 100, headers=FROM_HERE).status_code == 401
        assert (
            gateway.client.post("/login", content=b"key=" + b"x" * 100_000, headers=FROM_HERE).status_code
            == 401
        )


def test_the_page_says_what_it_may_load_and_that_is_its_own_style(tmp_path: Path) -> None:
    with open_gateway(tmp_path) as gateway:
        page = gateway.client.get("/login")
        policy = page.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert not re.search(r"<script|https?://|\son\w+=|style=", page.text)


@pytest.mark.parametrize(
    "given",
    [
        "",
        "docs",
        "//evil.example",
        "///evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "https://evil.example/",
        "javascript:alert(1)",
        "/\t/evil.example",
        "/\n/evil.example",
    ],
)
def test_after_the_login_nobody_is_sent_elsewhere(given: str) -> None:
    assert safe_target(given) == "/ui/"


@pytest.mark.parametrize("given", ["/docs", "/ui/runs?a=1&b=https://x", "/"])
def test_after_the_login_one_is_where_one_wanted_to_be(given: str) -> None:
    assert safe_target(given) == given


def test_a_browser_is_shown_the_login_and_a_program_the_error(tmp_path: Path) -> None:
    with open_gateway(tmp_path) as gateway:
        page = gateway.client.get("/docs?a=1", headers={"Accept": "text/html,*/*"})
        assert (page.status_code, page.headers["Location"]) == (303, "/login?next=%2Fdocs%3Fa%3D1")
        assert gateway.client.get("/docs", headers={"Accept": "application/json"}).status_code == 401
        assert gateway.client.post("/docs", headers={"Accept": "text/html"}).status_code == 401
        script = {"Accept": "text/html", "Sec-Fetch-Mode": "cors"}
        assert gateway.client.get("/docs", headers=script).status_code == 401


def test_a_websocket_needs_the_login_and_our_own_page(tmp_path: Path) -> None:
    with open_gateway(tmp_path) as gateway:
        with pytest.raises(WebSocketDisconnect), gateway.client.websocket_connect("/ui/graphql"):
            pass
        log_in(gateway, gateway.key())
        for headers in ({}, {"Origin": "https://evil.example"}):
            with (
                pytest.raises(WebSocketDisconnect),
                gateway.client.websocket_connect("/ui/graphql", headers=headers),
            ):
                pass


def test_a_short_secret_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SESSION_SECRET", "short")
    with pytest.raises(InvalidInput, match="fewer than 32 bytes"):
        Sessions(GatewaySettings(session_secret="env:SESSION_SECRET"))
