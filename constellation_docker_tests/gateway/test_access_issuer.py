"""Tokens whose keys their issuer publishes: which key is believed, and what happens while it is down."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

import jwt
import pytest
from jwt.algorithms import ECAlgorithm

from constellation_docker.gateway.access.errors import IssuerUnavailable, Unauthenticated
from constellation_docker.gateway.access.jwks import LARGEST_ANSWER_BYTES, LONGEST_STALE_SECONDS
from constellation_docker_tests.gateway.access_parts import claims
from constellation_docker_tests.gateway.token_issuer import (
    OTHER_EC_KEY,
    RSA_KEY,
    SECRET,
    Clock,
    Issuer,
    es256,
    pem,
    published,
    signed_with_bytes,
)


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
