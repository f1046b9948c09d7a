"""The API's page: Swagger UI over our OpenAPI document, with every file served from here, so that it needs no CDN."""

from __future__ import annotations

from functools import partial
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

# Swagger UI writes style attributes; scripts come from files only.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
KEEP = "private, max-age=86400"


def docs_routes(app: FastAPI) -> list[BaseRoute]:
    """The routes of `/docs` and `/openapi.json` for an application; who opens `/` in a browser is sent to the page."""
    ours = resources.files("constellation_docker.gateway") / "pages"
    swagger = resources.files("fastapi_offline") / "static"
    files: dict[str, tuple[Traversable, str]] = {
        "/docs": (ours / "docs.html", "text/html"),
        "/docs/start.js": (ours / "docs.js", "text/javascript"),
        "/docs/swagger-ui-bundle.js": (swagger / "swagger-ui-bundle.js", "text/javascript"),
        "/docs/swagger-ui.css": (swagger / "swagger-ui.css", "text/css"),
    }
    pages: list[BaseRoute] = [
        Route(path, partial(_send_file, file, media_type), include_in_schema=False)
        for path, (file, media_type) in files.items()
    ]

    def openapi(_request: Request) -> Response:
        return JSONResponse(with_summaries(app.openapi()))

    def home(_request: Request) -> Response:
        return RedirectResponse("/docs", 303)

    return [
        *pages,
        Route("/openapi.json", openapi, include_in_schema=False),
        Route("/", home, methods=["GET"], include_in_schema=False),
    ]


def with_summaries(document: dict[str, Any]) -> dict[str, Any]:
    """An OpenAPI document whose calls are headed by what they do, the first line of their description.

    FastAPI heads them with the name of the Python function.
    """
    paths = {
        path: {method: _with_summary(operation) for method, operation in operations.items()}
        for path, operations in document["paths"].items()
    }
    return {**document, "paths": paths}


def _with_summary(operation: dict[str, Any]) -> dict[str, Any]:
    summary, _, rest = str(operation.get("description", "")).partition("\n")
    if not summary:
        return operation
    return {**operation, "summary": summary.rstrip("."), "description": rest.strip()}


def _send_file(file: Traversable, media_type: str, _request: Request) -> Response:
    # The page itself is asked for each time: one that a browser kept would not lead to the login any more.
    keep = "no-store" if media_type == "text/html" else KEEP
    headers = {"Content-Security-Policy": POLICY, "Cache-Control": keep}
    return Response(file.read_bytes(), headers=headers, media_type=media_type)
