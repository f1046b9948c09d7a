"""HTTPS and HTTP/2 at a real HAProxy, with the project's own authority and with a certificate by reference."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import trustme

from constellation_docker.defs.environment import Environment as WatchedEnvironment
from constellation_docker.rollout import (
    HaproxyBalancer,
    InvalidCertificate,
    observe,
    plan_environment,
    private_authority,
    renew_certificate,
    resolve_certificate,
)
from constellation_docker.rollout.certificates import certificate_names
from constellation_docker.rollout.observed import balancer_name
from constellation_docker.settings import EnvironmentSettings, Settings
from constellation_docker_tests.fixtures.deadline import wait_for
from constellation_docker_tests.fixtures.debian import require_program
from constellation_docker_tests.fixtures.tiny_service import PATIENT, Clients, Environment

pytestmark = pytest.mark.slow


@pytest.fixture
def secure(environment: Environment, tmp_path: Path) -> Environment:
    """An environment with HTTPS by the project's own authority."""
    facts = environment.settings.model_dump() | {"tls": {"folder": tmp_path / "tls"}}
    environment.settings = EnvironmentSettings.model_validate(facts)
    environment.deploy = PATIENT
    return environment


def authority_of(environment: Environment) -> str:
    return private_authority(environment.name, environment.settings).certificate(datetime.now(UTC))


def shown_by(environment: Environment, authority: str, name: str = "localhost") -> int:
    """The serial number of the certificate that a client gets, which it verifies."""
    context = ssl.create_default_context(cadata=authority)
    address = ("127.0.0.1", environment.settings.port)
    with (
        socket.create_connection(address, 10) as plain,
        context.wrap_socket(plain, server_hostname=name) as s,
    ):
        found = s.getpeercert()
    assert found is not None
    return int(str(found["serialNumber"]), 16)


def curl(environment: Environment, authority: Path, *words: str) -> str:
    require_program("curl", "curl")
    done = subprocess.run(
        ["curl", "-sS", "--max-time", "20", "--cacert", authority, *words, environment.url()],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_private_authority_serves_http_2_and_is_rotated_under_load_without_a_failed_request(
    secure: Environment, tmp_path: Path
) -> None:
    secure.want()
    secure.roll_out()
    authority = authority_of(secure)
    path = tmp_path / "authority.pem"
    path.write_text(authority)
    assert secure.url() == f"https://127.0.0.1:{secure.settings.port}/tiny/"
    assert (
        curl(secure, path, "--http2", "-d", "x", "-o", "/dev/null", "-w", "%{http_version} %{http_code}")
        == "2 200"
    )
    assert curl(secure, path, "--http1.1", "-d", "x", "-o", "/dev/null", "-w", "%{http_version}") == "1.1"
    assert (
        curl(secure, path, "--http2", "--tls-max", "1.2", "-d", "x", "-o", "/dev/null", "-w", "%{http_code}")
        == "200"
    )
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(secure.url())

    serials = {shown_by(secure, authority)}
    facts = {"engine": secure.engine, "settings": secure.settings}
    with Clients(secure.url(), count=8, authority=authority) as clients:
        for _ in range(3):
            before = clients.answered
            assert renew_certificate(secure.file, is_renewed=True, **facts) is not None
            serials.add(shown_by(secure, authority))
            wait_for(lambda: clients.answered > before + 50, what="requests after the renewal")  # noqa: B023
    assert clients.failures == []
    assert len(serials) == 4
    assert renew_certificate(secure.file, **facts) is None, "what is in force is on disk, too"

    secure.engine.restart(balancer_name(secure.project), grace_seconds=1)
    wait_for(lambda: _answers(secure, authority), what="the balancer")
    assert shown_by(secure, authority) in serials
    assert plan_environment(observe(secure.engine, secure.project), secure.file).is_empty

    # Neither key is anywhere where somebody could read it who only looks.
    assert "PRIVATE KEY" not in secure.file.text
    name = balancer_name(secure.project)
    assert "PRIVATE KEY" not in json.dumps(secure.engine.container(name)) + secure.engine.logs(name, tail=500)
    assert "PRIVATE KEY" not in "".join(secure.lines)


def test_a_certificate_by_reference_takes_the_place_of_another_without_a_reload(
    secure: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = trustme.CA()
    names = certificate_names(secure.settings)

    def give(issuer: trustme.CA) -> None:
        pem = issuer.issue_cert(*names).private_key_and_cert_chain_pem.bytes().decode()
        monkeypatch.setenv("MODELS_CERTIFICATE", pem)

    give(own)
    tls = {"certificate": "env:MODELS_CERTIFICATE"}
    secure.settings = EnvironmentSettings.model_validate(secure.settings.model_dump() | {"tls": tls})
    secure.want()
    secure.roll_out()
    trusted = own.cert_pem.bytes().decode()
    first = shown_by(secure, trusted)
    process = _process_id(secure)
    with Clients(secure.url(), count=4, authority=trusted) as clients:
        give(own)
        found = renew_certificate(secure.file, engine=secure.engine, settings=secure.settings)
        assert found is not None and set(found.names) == set(names)
        assert shown_by(secure, trusted) != first
    assert clients.failures == []
    assert _process_id(secure) == process

    # What the comparison of what runs with what is wanted does by itself.
    seen: list[str] = []
    settings = Settings(environments={secure.name: secure.settings})
    watched = WatchedEnvironment(secure.name, settings, secure.engine)
    watched.keep_certificate(secure.file, seen.append)
    assert seen == []
    give(own)
    watched.keep_certificate(secure.file, seen.append)
    assert len(seen) == 1 and "shows a new certificate, good until" in seen[0]

    monkeypatch.setenv("MODELS_CERTIFICATE", "nonsense")
    watched.keep_certificate(secure.file, seen.append)
    assert "keeps the certificate that it has" in seen[1]
    with pytest.raises(InvalidCertificate, match="env:MODELS_CERTIFICATE cannot be read"):
        renew_certificate(secure.file, engine=secure.engine, settings=secure.settings)
    assert _answers(secure, trusted)


def test_stock_compose_serves_https_from_a_variable_and_a_rollout_takes_over(
    compose: Path, secure: Environment, tmp_path: Path
) -> None:
    path = tmp_path / "compose.yaml"
    secure.settings = secure.settings.model_copy(update={"metrics_port": 0})
    secure.want()
    path.write_text(secure.file.text)
    command = [compose, "-p", secure.project, "-f", path]
    bare = subprocess.run([*command, "up", "-d"], capture_output=True, text=True, check=False)
    assert bare.returncode != 0 and "BALANCER_CERTIFICATE" in bare.stderr

    authority = authority_of(secure)
    certificate = resolve_certificate(secure.name, secure.settings)
    assert certificate is not None
    environment = {**os.environ, "BALANCER_CERTIFICATE": certificate.pem, "HOME": str(tmp_path)}

    def up() -> None:
        done = subprocess.run(
            [*command, "up", "-d", "--wait"], capture_output=True, text=True, check=False, env=environment
        )
        assert done.returncode == 0, done.stderr

    up()
    assert _answers(secure, authority)
    ours = _ids(secure)
    assert [step.kind for step in secure.roll_out(compose_path=str(path)).steps] == ["take over balancer"]
    wait_for(lambda: _answers(secure, authority), what="the endpoint")
    up()
    assert _ids(secure) == ours


def _answers(environment: Environment, authority: str) -> bool:
    context = ssl.create_default_context(cadata=authority)
    try:
        return httpx.post(environment.url(), verify=context, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def _process_id(environment: Environment) -> str:
    balancer = HaproxyBalancer(environment.engine, balancer_name(environment.project))
    return balancer._process_id()


def _ids(environment: Environment) -> set[str]:
    found = environment.engine.list_containers({"com.docker.compose.project": environment.project})
    return {row["Id"] for row in found}
