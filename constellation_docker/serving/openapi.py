"""The OpenAPI document of a loaded model: its task's real schema and the card's examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import __version__
from .config import Config
from .model import Model

ERRORS = {
    "400": "The request is malformed.",
    "408": "The request did not arrive in time.",
    "413": "The body, or an input in it, is too large.",
    "415": "The content type is not one that the task takes.",
    "422": "The request is well-formed and its values cannot be used.",
    "429": "The queue is full; come back after `Retry-After` seconds.",
    "431": "The headers are too large.",
    "500": "The model failed.",
    "503": "The model is loading, or the server is stopping.",
    "504": "The answer was not ready in time.",
}

_ERROR_SCHEMA = {
    "type": "object",
    "required": ["error", "error_type"],
    "properties": {"error": {"type": "string"}, "error_type": {"type": "string"}},
}
_STATUS_SCHEMA = {
    "type": "object",
    "required": ["status"],
    "properties": {
        "status": {"type": "string"},
        "error": {"type": "string"},
        "error_type": {"type": "string"},
    },
}


def render_openapi(config: Config, model: Model | None) -> dict[str, Any]:
    """The document as a dictionary; before the model is loaded it holds the operational routes only."""
    paths: dict[str, Any] = {
        "/": {
            "get": _get("A page to try the model in a browser; JSON for other clients.", {"type": "object"})
        }
    }
    if model is not None:
        schemas = model.schema()
        for path in sorted(model.paths):
            operation = _inference(path, schemas.get(path, {}), config)
            paths.setdefault(path, {})["post"] = operation
            if path == "/":
                paths["/predict"] = {"post": {**operation, "operationId": "predict"}}
    paths["/live"] = {"get": _get("Whether the process lives; true while loading.", _STATUS_SCHEMA)}
    for path in ("/health", "/ready"):
        paths[path] = {"get": _get("Whether the model can answer now.", _STATUS_SCHEMA, may_be_unready=True)}
    paths["/info"] = {"get": _get("Model, version, task, runtime, device and limits.", {"type": "object"})}
    paths["/metrics"] = {
        "get": {
            "summary": "Prometheus metrics.",
            "responses": {
                "200": {"description": "Metrics.", "content": {"text/plain": {"schema": {"type": "string"}}}}
            },
        }
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": config.model_name,
            "version": config.model_version,
            "description": config.description,
            "x-server-version": __version__,
        },
        "servers": [{"url": "."}],
        "paths": paths,
        "components": {"schemas": {"Error": _ERROR_SCHEMA}},
    }


def _get(summary: str, schema: Mapping[str, Any], *, may_be_unready: bool = False) -> dict[str, Any]:
    answer = {"content": {"application/json": {"schema": schema}}}
    responses: dict[str, Any] = {"200": {"description": summary, **answer}}
    if may_be_unready:
        responses["503"] = {"description": "Not now: loading, stopping or stuck.", **answer}
    return {"summary": summary, "responses": responses}


def _inference(path: str, schema: Mapping[str, Any], config: Config) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": schema.get("request", {})}
    examples = _examples(config) if path == "/" else {}
    if examples:
        content["examples"] = examples
    media = {"application/json": content}
    for media_type in schema.get("media_types", ()):
        media[media_type] = {"schema": {"type": "string", "format": "binary"}}
    responses: dict[str, Any] = {
        "200": {
            "description": "The model's answer.",
            "content": {"application/json": {"schema": schema.get("response", {})}},
        }
    }
    if schema.get("streams"):
        responses["200"]["content"]["text/event-stream"] = {"schema": {"type": "string"}}
    for status, description in ERRORS.items():
        responses[status] = {
            "description": description,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
        }
    return {
        "summary": config.task or "Inference",
        "operationId": path.strip("/").replace("/", "_") or "infer",
        "requestBody": {"required": True, "content": media},
        "responses": responses,
    }


def _examples(config: Config) -> dict[str, Any]:
    return {
        str(example.get("name") or f"example {number}"): {
            "value": {key: example[key] for key in ("inputs", "parameters") if example.get(key) is not None}
        }
        for number, example in enumerate(config.examples, start=1)
        if "inputs" in example
    }
