"""A gateway, or any application, in a thread: served as `serve` does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from constellation_docker.gateway.access.principal import Role
from constellation_docker.gateway.application import create_app
from constellation_docker.gateway.server import Server, _listen
from constellation_docker.gateway.tls import Certificates
from constellation_docker.settings import GatewaySettings, Settings
from constellation_docker_tests.fixtures.deadline import wait_for
from constellation_docker_tests.gateway.access_parts import NOWHERE


@contextmanager
def served(home: Path, **gateway: Any) -> Iterator[tuple[str, str]]:
    """A gateway in a thread, served as `serve` does: its address and a viewer's key."""
    known = GatewaySettings(webserver_url=NOWHERE, port=0, **gateway)
    app = create_app(Settings(home=home, gateway=known))
    key, _ = app.state.ports.access.keys.create("ann", Role.VIEWER)
    with serving(app, known) as url:
        yield url, key


@contextmanager
def serving(app: FastAPI, known: GatewaySettings) -> Iterator[str]:
    """An application in a thread, served as `serve` does: its address."""
    certificates = (
        Certificates(known.tls_certificate, known.tls_key)
        if known.tls_certificate and known.tls_key
        else None
    )
    with _listen(known) as listener:
        server = Server(app, known, certificates)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="gateway")
        thread.start()
        try:
            wait_for(lambda: server.started or not thread.is_alive(), what="the gateway")
            scheme = "https" if certificates else "http"
            yield f"{scheme}://localhost:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(timeout=30)
