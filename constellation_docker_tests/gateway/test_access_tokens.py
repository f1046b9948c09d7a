"""Tokens: good ones of the one issuer, and every way of making a bad one."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from pydantic import ValidationError

from constellation_docker.errors import InvalidInput
from constellation_docker.gateway.access.errors import Forbidden, IssuerUnavailable, Unauthenticated
from constellation_docker.gateway.access.jwks import LARGEST_ANSWER_BYTES, LONGEST_STALE_SECONDS, KeySet
from constellation_docker.gateway.access.principal import Principal, Role
from constellation_docker.gateway.access.tokens import Tokens
from constellation_docker.settings import TokenSettings
from constellation_docker_tests.gateway.access_parts import ISSUER, bearer, claims, hs256, open_gateway

SECRET = "a-shared-secret-of-more-than-32-bytes"
EC_KEY = ec.generate_private_key(ec.SECP256R1())
OTHER_EC_KEY = ec.generate_private_key(ec.SECP256R1())
RSA_KEY = rsa.generate_private_key(65537, 2048)


class Issuer:
    """A real HTTP server that publishes keys as an issuer does.

    Attributes:
        keys: By id.
        asked: How often it was asked.
        answer: What it does instead, where a test sets it: gets the handler.
    """

    def __init__(self) -> None:
        self.keys: dict[str, Any] = {"first": EC_KEY.public_key()}
        self.asked = 0
        self.answer: Callable[[BaseHTTPRequestHandler], None] | None = None
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked += 1
                if issuer.answer:
                    issuer.answer(self)
                    return
                body = json.dumps(issuer.document()).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/.well-known/jwks.json"

    def document(self) -> dict[str, Any]:
        found = []
        for key_id, key in self.keys.items():
            algorithm = RSAAlgorithm if isinstance(key, rsa.RSAPublicKey) else ECAlgorithm
            name = "RS256" if algorithm is RSAAlgorithm else "ES256"
            found.append({**algorithm.to_jwk(key, as_dict=True), "kid": key_id, "alg": name, "use": "sig"})
        return {"keys": found}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Clock:
    """Seconds that a test lets pass."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    made = Issuer()
    yield made
    made.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JWT_SECRET", SECRET)


def shared_secret(**settings: Any) -> Tokens:
    return Tokens(TokenSettings(**{"secret": "env:JWT_SECRET", "issuer": ISSUER, **settings}))


def published(issuer: Issuer, clock: Clock, **settings: Any) -> Tokens:
    known = TokenSettings(**{"jwks_url": issuer.url, "issuer": ISSUER, **settings})
    keys = KeySet(issuer.url, timeout_seconds=1, lifetime_seconds=600, refresh_seconds=30, clock=clock)
    return Tokens(known, keys)


def es256(key: Any = EC_KEY, key_id: str | None = "first", **changes: Any) -> str:
    return jwt.encode(claims(**changes), key, algorithm="ES256", headers={"kid": key_id} if key_id else None)


def unsigned(header: dict[str, Any], **changes: Any) -> str:
    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return f"{part(header)}.{part(claims(**changes))}."


def signed_with_bytes(secret: bytes, header: dict[str, Any]) -> str:
    """HS256 by hand, because the library refuses to sign with a public key."""
    message = unsigned(header).rstrip(".")
    signature = hmac.new(secret, message.encode(), hashlib.sha256).digest()
    return f"{message}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


def pem(key: Any) -> bytes:
    made: bytes = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return made


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


def test_a_token_is_checked_with_the_key_that_its_issuer_publishes(issuer: Issuer, clock: Clock) -> None:
    tokens = published(issuer, clock)
    for _ in range(3):
        assert tokens.check(es256()).principal.name == "ann@acme.example"
    assert issuer.asked == 1


def test_rs256_works_where_it_is_the_configured_algorithm(issuer: Issuer, clock: Clock) -> None:
    issuer.keys = {"rsa": RSA_KEY.public_key()}
    token = jwt.encode(claims(), RSA_KEY, algorithm="RS256", headers={"kid": "rsa"})
    assert published(issuer, clock, algorithm="RS256").check(token)
    with pytest.raises(Unauthenticated, match="not signed with ES256"):
        published(issuer, clock).check(token)


def test_a_public_key_is_never_taken_for_a_shared_secret(issuer: Issuer, clock: Clock) -> None:
    issuer.keys = {"rsa": RSA_KEY.public_key()}
    tokens = published(issuer, clock, algorithm="RS256")
    jwk = json.dumps(issuer.document()["keys"][0]).encode()
    for secret in (pem(RSA_KEY), pem(RSA_KEY).strip(), jwk):
        with pytest.raises(Unauthenticated, match="not signed with RS256"):
            tokens.check(signed_with_bytes(secret, {"alg": "HS256", "kid": "rsa"}))
        with pytest.raises(Unauthenticated, match="is not valid"):
            tokens.check(signed_with_bytes(secret, {"alg": "RS256", "kid": "rsa"}))


def test_a_key_that_the_token_itself_brings_is_not_believed(issuer: Issuer, clock: Clock) -> None:
    own = {**ECAlgorithm.to_jwk(OTHER_EC_KEY.public_key(), as_dict=True), "kid": "first"}
    with _another_issuer(OTHER_EC_KEY) as evil:
        for header in ({"kid": "first", "jwk": own}, {"kid": "first", "jku": evil.url}, {"kid": evil.url}):
            token = jwt.encode(claims(), OTHER_EC_KEY, algorithm="ES256", headers=header)
            with pytest.raises(Unauthenticated):
                published(issuer, clock).check(token)
        assert evil.asked == 0


def test_a_published_shared_secret_is_not_used(issuer: Issuer, clock: Clock) -> None:
    oct_key = {
        "kty": "oct",
        "kid": "sym",
        "k": base64.urlsafe_b64encode(SECRET.encode()).decode().rstrip("="),
    }
    document = {"keys": [*issuer.document()["keys"], oct_key]}
    issuer.answer = lambda handler: send(handler, json.dumps(document).encode())
    for algorithm in ("HS256", "ES256"):
        with pytest.raises(Unauthenticated):
            published(issuer, clock).check(
                signed_with_bytes(SECRET.encode(), {"alg": algorithm, "kid": "sym"})
            )


@pytest.mark.parametrize("key_id", [None, "", "../../etc/passwd", "x" * 5000, 7])
def test_a_key_id_of_any_form_is_only_looked_up(issuer: Issuer, clock: Clock, key_id: Any) -> None:
    token = signed_with_bytes(b"x" * 32, {"alg": "ES256", "kid": key_id})
    with pytest.raises(Unauthenticated):
        published(issuer, clock).check(token)


def test_a_new_key_of_the_issuer_is_fetched_and_unknown_ones_do_not_flood_it(
    issuer: Issuer, clock: Clock
) -> None:
    tokens = published(issuer, clock)
    tokens.check(es256())
    issuer.keys["second"] = OTHER_EC_KEY.public_key()
    clock.now += 30
    assert tokens.check(es256(OTHER_EC_KEY, "second"))
    assert issuer.asked == 2
    for number in range(50):
        with pytest.raises(Unauthenticated, match="does not publish"):
            tokens.check(es256(OTHER_EC_KEY, f"unknown-{number}"))
    assert issuer.asked == 2


def test_a_key_that_the_issuer_withdraws_is_no_longer_good(issuer: Issuer, clock: Clock) -> None:
    tokens = published(issuer, clock)
    tokens.check(es256())
    issuer.keys = {"second": OTHER_EC_KEY.public_key()}
    clock.now += 600
    with pytest.raises(Unauthenticated, match="does not publish"):
        tokens.check(es256())


def test_many_calls_at_once_fetch_the_keys_once(issuer: Issuer, clock: Clock) -> None:
    tokens = published(issuer, clock)
    with ThreadPoolExecutor(20) as pool:
        names = list(pool.map(lambda _: tokens.check(es256()).principal.name, range(40)))
    assert names == ["ann@acme.example"] * 40
    assert issuer.asked == 1


def test_while_the_issuer_is_down_nobody_is_called_a_forger(issuer: Issuer, clock: Clock) -> None:
    tokens = published(issuer, clock)
    issuer.answer = lambda handler: handler.send_error(500)
    for _ in range(5):
        with pytest.raises(IssuerUnavailable, match="does not answer") as caught:
            tokens.check(es256())
        assert int(caught.value.headers["Retry-After"]) >= 1
    assert issuer.asked == 1  # and it is left alone for a while
    issuer.answer = None
    clock.now += 5
    assert tokens.check(es256())


def test_known_keys_stay_good_while_the_issuer_is_down_but_not_for_ever(issuer: Issuer, clock: Clock) -> None:
    tokens = published(issuer, clock)
    tokens.check(es256())
    issuer.answer = lambda handler: handler.send_error(503)
    clock.now += 3600
    assert tokens.check(es256())
    with pytest.raises(IssuerUnavailable):
        tokens.check(es256(OTHER_EC_KEY, "unknown"))
    clock.now += LONGEST_STALE_SECONDS
    with pytest.raises(IssuerUnavailable):
        tokens.check(es256())


def send(handler: BaseHTTPRequestHandler, body: bytes, status: int = 200, **headers: str) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def drip(handler: BaseHTTPRequestHandler) -> None:
    """An answer of which a little comes every moment, for ever."""
    handler.send_response(200)
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.05)
    except OSError:
        pass


@pytest.mark.parametrize(
    "answer",
    [
        lambda handler: send(handler, b"not json"),
        lambda handler: send(handler, b"[]"),
        lambda handler: send(handler, b'{"keys": []}'),
        lambda handler: send(handler, b'{"keys": [{"kty": "EC"}]}'),
        lambda handler: send(handler, b" " * (LARGEST_ANSWER_BYTES + 1)),
        lambda handler: send(handler, b"", 302, Location="http://127.0.0.1:9/"),
        lambda handler: handler.connection.close(),
        drip,
    ],
)
def test_a_useless_answer_of_the_issuer_is_an_outage_in_bounded_time(
    issuer: Issuer, clock: Clock, answer: Callable[[BaseHTTPRequestHandler], None]
) -> None:
    issuer.answer = answer
    with pytest.raises(IssuerUnavailable):
        published(issuer, clock).check(es256())


@contextmanager
def _another_issuer(key: Any) -> Iterator[Issuer]:
    made = Issuer()
    made.keys = {"first": key.public_key()}
    try:
        yield made
    finally:
        made.close()


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
