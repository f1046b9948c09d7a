"""Every call as every role in every environment, over HTTP, before a real webserver whose runs wait for ever."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from constellation_docker.gateway.access.permissions import Action, is_allowed
from constellation_docker.gateway.access.principal import Principal, Role
from constellation_docker_tests.cards.conftest import make_publication, registration
from constellation_docker_tests.fixtures.gateway import QueuedDagster, RunningGateway, running_gateway

PRINCIPALS = (
    Principal("viewer-everywhere", Role.VIEWER, frozenset({"*"})),
    Principal("viewer", Role.VIEWER),
    Principal("operator-nowhere", Role.OPERATOR, frozenset()),
    Principal("operator-production", Role.OPERATOR, frozenset({"production"})),
    Principal("operator", Role.OPERATOR),
    Principal("admin-dev", Role.ADMIN, frozenset({"dev"})),
    Principal("operator-everywhere", Role.OPERATOR, frozenset({"*"})),
    Principal("admin", Role.ADMIN),
)
NOBODY = "nobody"
OPEN = {("get", "/health"), ("get", "/ready")}


@dataclass(frozen=True)
class Row:
    """One call of the contract, and what it needs.

    Args:
        call: Method and path, as OpenAPI has it.
        action: What it is.
        environment: Where.
        body: What is sent.
        model: Which of the prepared models it is about.
    """

    call: tuple[str, str]
    action: Action
    environment: str | None = None
    body: dict[str, Any] | None = None
    model: str = "deployed"


MODELS = "/docker/models/"
MODEL = "/docker/models/{model_id}/"
IMAGES = "/docker/images/"
TABLE = (
    Row(("post", MODELS), Action.REGISTER, body=registration(model_name="access/registered")),
    Row(("get", MODELS), Action.READ),
    Row(("get", f"{MODEL}status/"), Action.READ),
    Row(("get", f"{MODEL}history/"), Action.READ),
    Row(("get", f"{MODEL}schema/"), Action.READ),
    Row(("get", f"{MODEL}logs/"), Action.READ),
    Row(("get", "/docker/environments/"), Action.READ),
    Row(("get", "/docker/events/"), Action.READ),
    Row(("get", f"{IMAGES}{{image_id}}/status/"), Action.READ),
    Row(("get", "/metrics"), Action.READ_METRICS),
    *(
        Row(("post", f"{MODEL}{action.value}/"), action, environment, {"environment": environment, **more})
        for environment in ("dev", "production")
        for action, more in ((Action.DEPLOY, {}), (Action.ROLLBACK, {"to": 1}), (Action.CANCEL, {}))
    ),
    Row(("delete", MODEL), Action.DELETE, None, model="fresh"),
    Row(("delete", MODEL), Action.DELETE, "dev", model="in dev"),
    Row(("delete", MODEL), Action.DELETE, "production", model="in production"),
    Row(
        ("post", f"{IMAGES}pull/"),
        Action.PULL_IMAGE,
        body={"repository": "registry.example/access", "tag": "1"},
    ),
    Row(
        ("post", f"{IMAGES}push/"),
        Action.PUSH_IMAGE,
        body={"image_name": "access", "tag": "1", "repository": "registry.example/access"},
    ),
)


@pytest.fixture(scope="module")
def served(queued: QueuedDagster) -> Iterator[RunningGateway]:
    impatient = queued.settings.gateway.model_copy(update={"delete_wait_seconds": 0.1})
    with running_gateway(queued.settings.model_copy(update={"gateway": impatient})) as gateway:
        for principal in PRINCIPALS:
            gateway.new_key(principal.name, principal.role, _grants(principal))
        yield gateway


@pytest.fixture(scope="module")
def clients(served: RunningGateway) -> Iterator[dict[str, httpx.Client]]:
    """A client of each principal, and one of nobody."""
    with ExitStack() as stack:
        made = {
            principal.name: stack.enter_context(served.client(principal.name)) for principal in PRINCIPALS
        }
        made[NOBODY] = stack.enter_context(httpx.Client(base_url=served.url, timeout=60, trust_env=False))
        yield made


def _grants(principal: Principal) -> tuple[str, ...] | None:
    return None if principal.environments is None else tuple(principal.environments)


@pytest.fixture(scope="module")
def models(served: RunningGateway) -> dict[str, str]:
    """Published versions by what is wanted of them."""
    made = {}
    wanted = {
        "deployed": ("dev", "production"),
        "fresh": (),
        "in dev": ("dev",),
        "in production": ("production",),
    }
    with served.store() as store, served.client("admin") as admin:
        for title, environments in wanted.items():
            name = f"access/{uuid.uuid4().hex[:12]}"
            answer = admin.post(MODELS, json=registration(model_name=name))
            assert answer.status_code == 202, answer.text
            made[title] = answer.json()["model_id"]
            store.publish(made[title], make_publication(made[title]))
            for environment in environments:
                answer = admin.post(f"{MODELS}{made[title]}/deploy/", json={"environment": environment})
                assert answer.status_code == 202, answer.text
    return made


def test_every_call_of_the_contract_is_in_the_table(served: RunningGateway) -> None:
    with served.client("viewer") as client:
        document = client.get("/openapi.json").json()
    calls = {(method, path) for path, methods in document["paths"].items() for method in methods}
    assert {row.call for row in TABLE} == calls - OPEN
    for method, path in calls - OPEN:
        assert document["paths"][path][method]["security"] == [{"bearer": []}, {"api_key": []}]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.action} {row.environment or ''} {row.call[1]}")
def test_a_call_is_let_on_for_those_who_may_and_for_nobody_else(
    clients: dict[str, httpx.Client], models: dict[str, str], row: Row
) -> None:
    method, path = row.call
    url = path.format(model_id=models[row.model], image_id="0" * 32)
    decided = {name: _status(client, method, url, row) for name, client in clients.items() if name != NOBODY}
    # Anything else than a denial means that it was let on, to what there is or is not to do.
    assert {name: status != 403 for name, status in decided.items()} == {
        principal.name: is_allowed(principal, row.action, row.environment) for principal in PRINCIPALS
    }
    assert not {401, 500, 503} & set(decided.values()), decided
    assert _status(clients[NOBODY], method, url, row) == 401


def _status(client: httpx.Client, method: str, url: str, row: Row) -> int:
    # Streams go on for ever; their status comes at once.
    with client.stream(method, url, json=row.body) as answer:
        return answer.status_code
