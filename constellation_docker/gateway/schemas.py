"""What goes into a model and what comes out, as JSON Schema: what the platform's Blocks and Edges connect by.

Before a model is deployed its task speaks for it (`task_schemas.json`, written by `make docs` from the inference
server's tasks). Of a deployed one the endpoint itself can be asked, which also knows a table's columns.
"""

from __future__ import annotations

import json
import ssl
import time
from functools import cache
from importlib.resources import files
from typing import Annotated, Any, Literal

import httpx
from fastapi import APIRouter, Depends, Query

from constellation_docker.cards.rows import InvalidRow, ModelRow
from constellation_docker.compose import endpoint_url
from constellation_docker.gateway.access.guard import guard
from constellation_docker.gateway.access.permissions import Action
from constellation_docker.gateway.bodies import ModelId
from constellation_docker.gateway.deployments import NotDeployed
from constellation_docker.gateway.errors import GatewayError
from constellation_docker.gateway.ports import Ports, Provided
from constellation_docker.gateway.replies import ModelSchema, PathSchema
from constellation_docker.gateway.route import GatewayRoute
from constellation_docker.settings import EnvironmentSettings

router = APIRouter(prefix="/docker/models", tags=["models"], route_class=GatewayRoute)

ENDPOINT_SECONDS = 5.0
MOST_BYTES = 4 * 1024 * 1024
ANYTHING: dict[str, dict[str, Any]] = {"/": {"request": {}, "response": {}}}


class EndpointSilent(GatewayError):
    """A deployed model does not tell its schema."""

    code = "endpoint_silent"
    default_status = 502


@cache
def task_schemas() -> dict[str, dict[str, Any]]:
    """By task: the paths that a model answers at, each with its request and response."""
    text = files("constellation_docker.gateway").joinpath("task_schemas.json").read_text(encoding="utf-8")
    known: dict[str, dict[str, Any]] = json.loads(text)
    return known


@router.get("/{model_id}/schema/", dependencies=[Depends(guard(Action.READ))])
def model_schema(
    model_id: ModelId,
    ports: Provided,
    environment: Annotated[
        str | None,
        Query(
            max_length=40, description="Ask the model that is deployed there; not given: what its task says."
        ),
    ] = None,
) -> ModelSchema:
    """What goes into a model and what comes out, as JSON Schema."""
    row = ports.store.look_up(str(model_id))
    if isinstance(row, InvalidRow):
        raise row.error
    task = (row.publication.task if row.publication else None) or row.card.task
    if environment is not None:
        return _render(row, task, "endpoint", _ask_endpoint(ports, row, environment))
    known = task_schemas().get(task or "")
    return _render(row, task, "task" if known else "unknown", known or ANYTHING)


def _render(
    row: ModelRow, task: str | None, source: Literal["task", "endpoint", "unknown"], paths: dict[str, Any]
) -> ModelSchema:
    main = paths.get("/") or next(iter(paths.values()))
    return ModelSchema(
        model_id=row.model_id,
        task=task,
        source=source,
        inputs=main.get("request", {}),
        outputs=main.get("response", {}),
        media_types=main.get("media_types", []),
        paths={
            path: PathSchema(inputs=schema.get("request", {}), outputs=schema.get("response", {}))
            for path, schema in paths.items()
        },
    )


def _ask_endpoint(ports: Ports, row: ModelRow, environment: str) -> dict[str, Any]:
    """The paths in the OpenAPI document of the model that runs in an environment.

    Raises:
        NotDeployed: Another version runs there, or none.
        EndpointSilent: It does not answer, or has no such document.
    """
    known = ports.settings.environment(environment)
    wishes = [
        wish for wish in ports.store.deployments_of(row.card.model_name) if wish.environment == environment
    ]
    if not any(wish.model_id == row.model_id for wish in wishes):
        raise NotDeployed(
            f"{row.key} is not deployed to {environment}.", remedy="Deploy it, or ask without one."
        )
    try:
        document = _fetch(f"{endpoint_url(known, row.card.slug)}openapi.json", known)
        paths = {
            path: _operation(operations["post"])
            for path, operations in document["paths"].items()
            if "post" in operations and path != "/predict"
        }
    except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise EndpointSilent(
            f"The model {row.key} in {environment} does not tell its schema.",
            remedy="Ask without an environment for what its task says.",
        ) from error
    return paths or ANYTHING


def _fetch(url: str, known: EnvironmentSettings) -> Any:
    content = bytearray()
    until = time.monotonic() + ENDPOINT_SECONDS
    trusted = ssl.create_default_context()
    if known.tls and known.tls.folder and (known.tls.folder / "ca.pem").is_file():
        trusted.load_verify_locations(known.tls.folder / "ca.pem")  # the project's own CA
    with httpx.stream("GET", url, timeout=ENDPOINT_SECONDS, trust_env=False, verify=trusted) as answer:
        answer.raise_for_status()
        for chunk in answer.iter_bytes():
            content += chunk
            if len(content) > MOST_BYTES or time.monotonic() > until:
                raise ValueError("the answer is too long")
    return json.loads(content)


def _operation(operation: dict[str, Any]) -> dict[str, Any]:
    taken = operation["requestBody"]["content"]
    given = operation["responses"]["200"]["content"]
    return {
        "request": taken.get("application/json", {}).get("schema", {}),
        "response": given.get("application/json", {}).get("schema", {}),
        "media_types": [kind for kind in taken if kind != "application/json"],
    }
