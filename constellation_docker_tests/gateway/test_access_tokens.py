"""Tokens: good ones of the one issuer, and every way of making a bad one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from pydantic import ValidationError

from constellation_docker.errors import InvalidInput
from constellation_docker.gateway.access.errors import Forbidden, Unauthenticated
from constellation_docker.gateway.access.principal import Principal, Role
from constellation_docker.settings import TokenSettings
from constellation_docker_tests.gateway.access_parts import ISSUER, bearer, claims, hs256, open_gateway
from constellation_docker_tests.gateway.token_issuer import (
    OTHER_EC_KEY,
    RSA_KEY,
    SECRET,
    Issuer,
    es256,
    shared_secret,
    unsigned,
)


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JWT_SECRET", SECRET)


def test_a_token_of_supabase_is_its_holder() -> None:
    holder = shared_secret().check(hs256(SECRET))
    assert holder.principal == Principal(
        "ann@acme.example", Role.OPERATOR, None, "token", "token:7c1b0e8e-0000-4000-8000-000000000001"
    )
    assert holder.expires_at.timestamp() > time.time()


def test_environments_and_role_come_from_the_claims_that_are_set() -> None:
    token = hs256(
        SECRET,
        **{"https://acme.example/role": "admin", "teams": {"where": ["dev", "production"]}, "email": None},
    )
    holder = shared_secret(role_claim="https://acme.example/role", environments_claim="teams.where").check(
        token
    )
    assert holder.principal.role is Role.ADMIN
    assert holder.principal.environments == {"dev", "production"}
    assert holder.principal.name == "7c1b0e8e-0000-4000-8000-000000000001"


@pytest.mark.parametrize("grant", ["production", {"production": True}, 1, True])
def test_environments_in_another_form_grant_nothing(grant: Any) -> None:
    token = hs256(SECRET, app_metadata={"constellation_role": "admin", "constellation_environments": grant})
    assert shared_secret().check(token).principal.environments == frozenset()


@pytest.mark.parametrize(
    "metadata", [{}, {"constellation_role": "root"}, {"constellation_role": ["admin"]}, "admin", 7]
)
def test_who_has_no_role_here_may_do_nothing(metadata: Any) -> None:
    # What users may write themselves never gives a role.
    token = hs256(SECRET, app_metadata=metadata, user_metadata={"constellation_role": "admin"})
    with pytest.raises(Forbidden, match=r"no role here.*app_metadata\.constellation_role"):
        shared_secret().check(token)


def test_a_name_cannot_forge_lines() -> None:
    name = shared_secret().check(hs256(SECRET, email='ann"\n{"who": "bob"}' + "x" * 500)).principal.name
    assert name.isprintable()
    assert len(name) <= 100


NOW = int(time.time())
# Tokens differ in each process, so they cannot name the tests.
BAD_TOKENS = [
    (hs256("another-secret-that-is-long-enough-too"), "is not valid"),
    (hs256(SECRET)[:-3] + "AAA", "is not valid"),
    (hs256(SECRET).rsplit(".", 1)[0] + ".", "is not valid"),
    (hs256(SECRET, exp=NOW - 60), "has expired"),
    (hs256(SECRET, exp=None), "lacks the claim exp"),
    (hs256(SECRET, sub=None), "lacks the claim sub"),
    (hs256(SECRET, nbf=NOW + 600), "not valid yet"),
    (hs256(SECRET, iat=NOW + 600), "not valid yet"),
    (hs256(SECRET, aud="another"), "another audience"),
    (hs256(SECRET, aud=None), "lacks the claim aud"),
    (hs256(SECRET, iss="https://evil.example"), "another issuer"),
    (hs256(SECRET, iss=None), "lacks the claim iss"),
    (hs256(SECRET, exp="soon"), "is not valid"),
    (unsigned({"alg": "none"}), "not signed with HS256"),
    (unsigned({"alg": "None"}), "not signed with HS256"),
    (unsigned({"alg": "HS256"}), "is not valid"),
    (unsigned({"alg": ["HS256"]}), "is not valid|not signed with HS256"),
    (jwt.encode(claims(), SECRET * 2, algorithm="HS512"), "not signed with HS256"),
    (jwt.encode(claims(), RSA_KEY, algorithm="RS256"), "not signed with HS256"),
    (hs256(SECRET, {"crit": ["exp"]}), "is not valid"),
    ("", "is not valid"),
    ("a.b.c", "is not valid"),
    ("...", "is not valid"),
    ("\udcff", "is not valid"),
    ("x" * 20_000, "too long"),
]


@pytest.mark.parametrize(
    ("token", "sentence"), BAD_TOKENS, ids=[str(number) for number in range(len(BAD_TOKENS))]
)
def test_a_bad_token_lets_nobody_in(token: str, sentence: str) -> None:
    with pytest.raises(Unauthenticated, match=sentence) as caught:
        shared_secret().check(token)
    assert SECRET not in str(caught.value)
    assert not token or token[:40] not in str(caught.value)


def test_clocks_may_differ_a_little() -> None:
    assert shared_secret(leeway_seconds=30).check(hs256(SECRET, exp=int(time.time()) - 10))
    assert shared_secret(leeway_seconds=30).check(hs256(SECRET, nbf=int(time.time()) + 10))


def test_over_http_a_bad_token_is_401_an_unknown_role_403_and_an_outage_503(
    tmp_path: Path, issuer: Issuer
) -> None:
    settings = {"jwks_url": issuer.url, "issuer": ISSUER}
    with open_gateway(tmp_path, tokens=settings) as gateway:
        issuer.answer = lambda handler: handler.send_error(500)
        down = gateway.client.get("/openapi.json", headers=bearer(es256()))
        assert (down.status_code, down.json()["error"]["code"]) == (503, "issuer_unavailable")
        assert int(down.headers["Retry-After"]) >= 1
    issuer.answer = None
    with open_gateway(tmp_path, tokens=settings) as gateway:
        assert gateway.client.get("/openapi.json", headers=bearer(es256())).status_code == 200
        bad = gateway.client.get("/openapi.json", headers=bearer(es256(OTHER_EC_KEY)))
        assert (bad.status_code, bad.headers["WWW-Authenticate"]) == (401, 'Bearer realm="constellation"')
        no_role = gateway.client.get("/openapi.json", headers=bearer(es256(app_metadata={})))
        assert no_role.status_code == 403
        # A key header takes keys only.
        assert gateway.client.get("/openapi.json", headers={"X-API-Key": es256()}).status_code == 401


def test_a_gateway_without_an_issuer_takes_no_tokens(tmp_path: Path) -> None:
    with open_gateway(tmp_path) as gateway:
        answer = gateway.client.get("/openapi.json", headers=bearer(hs256(SECRET)))
        assert answer.status_code == 401
        assert "takes no tokens" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"secret": "env:JWT_SECRET", "jwks_url": "https://x", "issuer": "x"}, "not both"),
        ({"secret": "env:JWT_SECRET"}, "an issuer and an audience"),
        ({"secret": "env:JWT_SECRET", "issuer": "x", "audience": ""}, "an issuer and an audience"),
        ({"secret": "env:JWT_SECRET", "issuer": "x", "algorithm": "RS256"}, "RS256 is checked with the keys"),
        ({"jwks_url": "https://x", "issuer": "x", "algorithm": "HS256"}, "HS256 is checked with a secret"),
        ({"jwks_url": "file:///etc/passwd", "issuer": "x"}, "http"),
        ({"secret": "the-secret-itself", "issuer": "x"}, "never as its value"),
        ({"secret": "env:JWT_SECRET", "issuer": "x", "algorithm": "none"}, "HS256"),
    ],
)
def test_settings_that_would_be_unsafe_are_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        TokenSettings(**settings)


def test_a_short_secret_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JWT_SECRET", "short")
    with pytest.raises(InvalidInput, match="fewer than 32 bytes"):
        shared_secret()
