"""What a deployed model says of its own inputs and outputs: a real inference server behind a real HAProxy."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import trustme
from fastapi import FastAPI
from fastapi.testclient import TestClient

from constellation_docker.cards import CardStore
from constellation_docker.gateway.access.api_keys import ApiKeys
from constellation_docker.gateway.access.principal import Role
from constellation_docker.gateway.dagster_client import DagsterClient
from constellation_docker.gateway.ports import Ports
from constellation_docker.gateway.router import create_router
from constellation_docker.settings import EnvironmentSettings, Settings
from constellation_docker.settings.rollout import TlsSettings
from constellation_docker_tests.cards.conftest import make_card, make_publication
from constellation_docker_tests.fixtures.deadline import wait_for
from constellation_docker_tests.fixtures.debian import require_program
from constellation_docker_tests.fixtures.inference_server import InferenceServer, StartServer
from constellation_docker_tests.fixtures.ports import free_port
from constellation_docker_tests.gateway.access_parts import NOWHERE

BALANCER = """
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
listen models
  bind 127.0.0.1:{port}{tls}
  http-request replace-path /acme-deployed(/.*) \\1
  server one 127.0.0.1:{server}
"""


@contextmanager
def balanced(folder: Path, server: InferenceServer, tls: TlsSettings | None) -> Iterator[int]:
    """A balancer that has the server below `/acme-deployed/`: its port."""
    port = free_port()
    config, option = folder / "haproxy.cfg", ""
    if tls and tls.folder:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(tls.folder / "ca.pem")
        issued = authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem
        issued.write_to_path(tls.folder / "server.pem")
        option = f" ssl crt {tls.folder / 'server.pem'}"
    config.write_text(BALANCER.format(port=port, tls=option, server=server.port))
    process = subprocess.Popen([require_program("haproxy", "haproxy"), "-db", "-f", config])
    try:
        wait_for(lambda: _accepts(port), what="the balancer")
        yield port
    finally:
        process.terminate()
        process.wait(30)


def _accepts(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=10):
        return True
    return False


@pytest.fixture
def server(start_server: StartServer) -> InferenceServer:
    return start_server().wait_until_ready()


@pytest.mark.parametrize("has_tls", [False, True], ids=["http", "https of the project's own CA"])
def test_a_deployed_model_tells_its_own_schema_while_it_answers(
    tmp_path: Path, server: InferenceServer, has_tls: bool
) -> None:
    tls = TlsSettings(folder=tmp_path) if has_tls else None
    with balanced(tmp_path, server, tls) as port:
        environments = {"dev": EnvironmentSettings(port=port, tls=tls), "staging": EnvironmentSettings()}
        settings = Settings(home=tmp_path, environments=environments)
        backend = FastAPI()
        with CardStore.open(settings.store_url) as store, DagsterClient(NOWHERE) as dagster:
            backend.include_router(create_router(Ports(settings, store, dagster)))
            row = store.add(make_card(model_name="acme/deployed"))
            store.publish(row.model_id, make_publication(row.model_id))
            store.want("dev", "acme/deployed", model_id=row.model_id)
            key, _ = ApiKeys(store.database).create("backend", Role.VIEWER)
            with TestClient(backend, headers={"Authorization": f"Bearer {key}"}) as caller:
                where = f"/docker/models/{row.model_id}/schema/"
                told = caller.get(where, params={"environment": "dev"}).json()
                document = caller.get(where).json()
                (dev, _) = caller.get("/docker/environments/").json()["environments"]
                elsewhere = caller.get(where, params={"environment": "staging"})
                server.terminate()
                server.wait()
                silent = caller.get(where, params={"environment": "dev"})
    assert dev["url"] == f"{'https' if has_tls else 'http'}://127.0.0.1:{port}/"
    assert (told["source"], document["source"]) == ("endpoint", "task")
    assert told["inputs"]["required"] == ["inputs"]
    assert told["outputs"] == told["paths"]["/"]["outputs"]
    assert (elsewhere.status_code, elsewhere.json()["error"]["code"]) == (409, "not_deployed")
    assert (silent.status_code, silent.json()["error"]["code"]) == (502, "endpoint_silent")
