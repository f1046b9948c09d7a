"""The API's page: Swagger UI over our OpenAPI document, with every file served from here, so that it needs no CDN."""

from __future__ import annotations

from functools import partial
from importlib import resources
from importlib.resources.abc import Traversable

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

# Swagger UI writes style attributes; scripts come from files only.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
KEEP = "private, max-age=86400"


def docs_routes(app: FastAPI) -> list[BaseRoute]:
    """The routes of `/docs` and `/openapi.json` for an application."""
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
        return JSONResponse(app.openapi())

    return [*pages, Route("/openapi.json", openapi, include_in_schema=False)]


def _send_file(file: Traversable, media_type: str, _request: Request) -> Response:
    headers = {"Content-Security-Policy": POLICY, "Cache-Control": KEEP}
    return Response(file.read_bytes(), headers=headers, media_type=media_type)
