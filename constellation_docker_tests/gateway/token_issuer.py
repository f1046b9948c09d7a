"""An issuer of tokens that publishes its keys over HTTP, and tokens good and bad."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from constellation_docker.gateway.access.jwks import KeySet
from constellation_docker.gateway.access.tokens import Tokens
from constellation_docker.settings import TokenSettings
from constellation_docker_tests.gateway.access_parts import ISSUER, claims

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
