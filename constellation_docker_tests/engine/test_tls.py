"""Engines behind TLS, with certificates on both sides."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from constellation_docker.engine import Engine, EngineUnreachable
from constellation_docker.errors import InvalidInput
from constellation_docker.packaging.base_image import BaseImage
from constellation_docker_tests.fixtures.debian import require_program
from constellation_docker_tests.fixtures.engine import TEST_LABEL


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as DOCKER_CERT_PATH wants it, and the server's own key and certificate."""
    folder = tmp_path_factory.mktemp("certificates")
    openssl = str(require_program("openssl", "openssl"))

    def run(*arguments: str) -> None:
        subprocess.run([openssl, *arguments], cwd=folder, check=True, capture_output=True)

    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n", encoding="utf-8")
    new = ("req", "-newkey", "rsa:2048", "-nodes")
    run(*new, "-x509", "-days", "2", "-subj", "/CN=tests", "-keyout", "ca-key.pem", "-out", "ca.pem")
    for name, extra in (("server", ("-extfile", "names")), ("client", ())):
        run(*new, "-subj", f"/CN={name}", "-keyout", f"{name}-key.pem", "-out", f"{name}.csr")
        signed = (
            "x509",
            "-req",
            "-in",
            f"{name}.csr",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca-key.pem",
            "-CAcreateserial",
        )
        run(*signed, "-days", "2", "-out", f"{name}-cert.pem", *extra)
    (folder / "client-cert.pem").rename(folder / "cert.pem")
    (folder / "client-key.pem").rename(folder / "key.pem")
    return folder


@pytest.fixture
def secured(engine: Engine, certificates: Path) -> Iterator[str]:
    """A TLS door in front of the machine's engine, which lets in whom the test authority knows; its URL."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificates / "ca.pem"))
    context.load_cert_chain(certificates / "server-cert.pem", certificates / "server-key.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    path = engine.url.removeprefix("unix://")

    def pass_on(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                sink.sendall(piece)
        with contextlib.suppress(OSError):
            # A client that has sent all still waits for the answer.
            socket.socket.shutdown(sink, socket.SHUT_WR)

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                inside = context.wrap_socket(client, server_side=True)
            except OSError:
                continue
            server = socket.socket(socket.AF_UNIX)
            server.connect(path)
            for pair in ((inside, server), (server, inside)):
                threading.Thread(target=pass_on, args=pair, daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"


def test_an_engine_behind_tls_is_reached_with_the_clients_certificate(
    engine: Engine, secured: str, certificates: Path, python_base: BaseImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(certificates))
    remote = Engine.connect(secured)
    assert remote.version == engine.version
    config = {
        "Image": python_base.image_id,
        "Cmd": ["sh", "-c", "echo up; sleep 100"],
        "Labels": {TEST_LABEL: "tls"},
    }
    with remote.temporary_container(f"constellation-test-tls-{uuid.uuid4().hex[:12]}", config) as container:
        remote.start(container)
        assert next(remote.follow_logs(container)) == "up"
        assert remote.execute(container, ["cat"], stdin=b"through tls").stdout == b"through tls"


def test_an_engine_that_asks_for_tls_does_not_answer_without(secured: str) -> None:
    with pytest.raises(EngineUnreachable):
        Engine.connect(secured)


def test_an_engine_that_another_authority_vouches_for_is_not_trusted(
    secured: str, certificates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    openssl = str(require_program("openssl", "openssl"))
    command = [
        openssl,
        "req",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-x509",
        "-subj",
        "/CN=other",
        "-keyout",
        "k",
        "-out",
        "ca.pem",
    ]
    subprocess.run(command, cwd=other, check=True, capture_output=True)
    for name in ("cert.pem", "key.pem"):
        (other / name).write_bytes((certificates / name).read_bytes())
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(other))
    with pytest.raises(EngineUnreachable, match="certificate"):
        Engine.connect(secured)


def test_certificates_that_are_not_there_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path))
    with pytest.raises(InvalidInput, match=str(tmp_path)):
        Engine.connect("tcp://127.0.0.1:2376")
