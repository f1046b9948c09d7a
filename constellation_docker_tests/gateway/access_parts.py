"""A gateway in this process for the tests of who may do what; no Dagster answers behind it."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
import pytest
from starlette.testclient import TestClient

from constellation_docker.gateway.access import audit
from constellation_docker.gateway.access.authentication import Access
from constellation_docker.gateway.access.principal import Role
from constellation_docker.gateway.application import create_app
from constellation_docker.settings import GatewaySettings, Settings

ORIGIN = "http://localhost"
ISSUER = "https://issuer.example/auth/v1"
# Nobody listens there, and connecting fails at once.
NOWHERE = "http://127.0.0.1:9"


@dataclass
class OpenGateway:
    """A gateway, and a client that speaks to it as a browser or program on this machine would."""

    client: TestClient
    access: Access

    def key(self, role: Role = Role.OPERATOR, name: str = "ann", **more: Any) -> str:
        """A new API key."""
        return self.access.keys.create(name, role, **more)[0]


@contextmanager
def open_gateway(home: Path, database_url: str | None = None, **gateway: Any) -> Iterator[OpenGateway]:
    """A gateway with these settings of its section."""
    settings = Settings(
        home=home, database_url=database_url, gateway=GatewaySettings(**{"webserver_url": NOWHERE, **gateway})
    )
    app = create_app(settings)
    with TestClient(app, base_url=ORIGIN, client=("127.0.0.1", 50000), follow_redirects=False) as client:
        yield OpenGateway(client, app.state.ports.access)
        app.state.ports.store.close()


def bearer(key: str) -> dict[str, str]:
    """The header that presents a key or token."""
    return {"Authorization": f"Bearer {key}"}


def claims(**changes: Any) -> dict[str, Any]:
    """What Supabase Auth puts into a token of an operator; a change to None leaves a claim out."""
    now = int(time.time())
    usual = {
        "iss": ISSUER,
        "aud": "authenticated",
        "sub": "7c1b0e8e-0000-4000-8000-000000000001",
        "email": "ann@acme.example",
        "role": "authenticated",
        "app_metadata": {"provider": "email", "constellation_role": "operator"},
        "iat": now,
        "exp": now + 3600,
    }
    return {name: value for name, value in {**usual, **changes}.items() if value is not None}


def hs256(secret: str | bytes, headers: dict[str, Any] | None = None, **changes: Any) -> str:
    """A token signed with a shared secret."""
    return jwt.encode(claims(**changes), secret, algorithm="HS256", headers=headers)


def audit_lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """What the audit trail has so far."""
    return [json.loads(record.getMessage()) for record in caplog.records if record.name == audit.LOGGER]


@contextmanager
def audited(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Keep audit lines for `audit_lines`."""
    with caplog.at_level(logging.INFO, audit.LOGGER):
        yield
