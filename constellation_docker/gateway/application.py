"""The gateway as an ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI

from constellation_docker.cards.store import CardStore, open_store
from constellation_docker.gateway.access.login import LoginPages
from constellation_docker.gateway.access.outer import surround
from constellation_docker.gateway.dagster_client import DagsterClient
from constellation_docker.gateway.docs_page import docs_routes
from constellation_docker.gateway.errors import HANDLED, handle
from constellation_docker.gateway.metrics import Measured
from constellation_docker.gateway.ports import Ports, engine_of_environment
from constellation_docker.gateway.request_id import RequestIds
from constellation_docker.gateway.router import create_router
from constellation_docker.gateway.ui_path import UiPath
from constellation_docker.settings import Settings

DESCRIPTION = """
From a model card to a healthy inference endpoint.

Every call but `/health` and `/ready` needs an API key or a token: `Authorization: Bearer …`.
"""


def create_app(
    settings: Settings, *, store: CardStore | None = None, dagster: DagsterClient | None = None
) -> FastAPI:
    """The whole gateway.

    Args:
        settings: The settings.
        store: The card store; by default the one that the settings name, opened here and closed at the end.
        dagster: The client of Dagster's webserver; by default of the one that the settings name.

    Raises:
        StoreUnavailable, StoreRefused: The card store cannot be opened.
    """
    known = settings.gateway
    ports = Ports(
        settings=settings,
        store=store or open_store(settings),
        dagster=dagster
        or DagsterClient(known.webserver_url, timeout_seconds=known.webserver_timeout_seconds),
        engine_of=engine_of_environment(settings),
    )

    ui = UiPath(ports)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with ui.running():
            yield
        if store is None:
            ports.store.close()
        if dagster is None:
            ports.dagster.close()

    app = FastAPI(
        title="Constellation",
        version=version("constellation-docker"),
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    app.state.ports = ports
    for kind in HANDLED:
        app.add_exception_handler(kind, handle)
    app.include_router(create_router(ports))
    app.router.routes.extend([*LoginPages(ports.access).routes(), *docs_routes(app), *ui.routes()])
    surround(app, known, ports.access)
    app.add_middleware(Measured, metrics=ports.metrics)
    app.add_middleware(RequestIds)
    return app
