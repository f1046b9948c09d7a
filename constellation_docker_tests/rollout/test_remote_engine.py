"""Environments on engines elsewhere: another engine, in a network of its own, reached by TCP with TLS and by ssh."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncssh
import pytest
import trustme

from constellation_docker.cards import Publication
from constellation_docker.engine import Engine
from constellation_docker.packaging import deliver_image
from constellation_docker.packaging.base_image import ensure_base_image
from constellation_docker.rollout import RolloutFailed, observe, plan_environment, remove_environment
from constellation_docker.settings import BaseImageSettings, EnvironmentSettings, RegistrySettings
from constellation_docker_tests.fixtures.debian import require_program
from constellation_docker_tests.fixtures.engine import has_containerd_store
from constellation_docker_tests.fixtures.ports import free_port
from constellation_docker_tests.fixtures.tiny_service import Clients, Environment
from deploy.debian_packages import PackagesUnavailable
from deploy.engine_of_suite import EngineBeside, Unusable, engine_of_suite

pytestmark = pytest.mark.slow

_PORT = 2376
_SSH_CONFIG = """\
Host *
    IdentityFile {folder}/id
    IdentitiesOnly yes
    UserKnownHostsFile {folder}/known_hosts
"""


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as DOCKER_CERT_PATH wants it, filled once the engine has an address."""
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="module")
def elsewhere(engine: Engine, certificates: Path) -> Iterator[EngineBeside]:
    """Another engine in a network of its own, with a TLS door, and with the image store of the one that builds."""

    def options(address: str) -> list[str]:
        write_certificates(certificates, address)
        return [
            f"--host=tcp://0.0.0.0:{_PORT}",
            "--tlsverify",
            f"--tlscacert={certificates}/ca.pem",
            f"--tlscert={certificates}/server-cert.pem",
            f"--tlskey={certificates}/server-key.pem",
        ]

    try:
        with engine_of_suite("sid", containerd_store=has_containerd_store(engine), options=options) as beside:
            yield beside
    except (Unusable, PackagesUnavailable) as error:
        pytest.skip(f"another engine cannot be had: {error}")


def write_certificates(folder: Path, address: str) -> None:
    """Make an authority, and by it certificates of an engine at an address and of a client."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    for stem, name in (("server-", address), ("", "client")):
        made = authority.issue_cert(name)
        made.private_key_pem.write_to_path(str(folder / f"{stem}key.pem"))
        made.cert_chain_pems[0].write_to_path(str(folder / f"{stem}cert.pem"))


@pytest.fixture(params=["tcp with TLS", "ssh"])
def remote(
    request: pytest.FixtureRequest,
    elsewhere: EngineBeside,
    certificates: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Engine]:
    """The other engine, as an environment's `engine_url` names it."""
    if request.param == "ssh":
        with SshDoor(elsewhere, tmp_path) as url:
            wrapper = tmp_path / "ssh"
            wrapper.write_text(
                f'#!/bin/sh\nexec {require_program("ssh", "openssh-client")} -F {tmp_path}/config "$@"\n'
            )
            wrapper.chmod(0o755)
            monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
            yield Engine.connect(url)
    else:
        monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
        monkeypatch.setenv("DOCKER_CERT_PATH", str(certificates))
        yield Engine.connect(f"tcp://{elsewhere.address}:{_PORT}")


class SshDoor:
    """A real ssh server that gives one key the engine's socket, as `docker system dial-stdio` does on its machine."""

    def __init__(self, beside: EngineBeside, folder: Path) -> None:
        self._beside = beside
        self._folder = folder
        self._loop = asyncio.new_event_loop()
        self._port = 0
        self._acceptor: asyncssh.SSHAcceptor | None = None
        self._is_open = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> str:
        require_program("docker", "docker.io")
        self._thread.start()
        assert self._is_open.wait(30)
        (self._folder / "config").write_text(_SSH_CONFIG.format(folder=self._folder))
        return f"ssh://deployer@127.0.0.1:{self._port}"

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._listen())
        self._is_open.set()
        self._loop.run_forever()

    async def _listen(self) -> None:
        host_key, key = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
        key.write_private_key(str(self._folder / "id"))
        (self._folder / "id").chmod(0o600)
        (self._folder / "authorized").write_bytes(key.export_public_key())
        self._acceptor = await asyncssh.listen(
            "127.0.0.1",
            0,
            server_host_keys=[host_key],
            authorized_client_keys=str(self._folder / "authorized"),
            process_factory=self._serve,
            encoding=None,
        )
        self._port = self._acceptor.get_port()
        public = host_key.export_public_key().decode().strip()
        (self._folder / "known_hosts").write_text(f"[127.0.0.1]:{self._port} {public}\n")

    async def _close(self) -> None:
        """End what clients still hold open, so that nothing of it outlives the loop."""
        if self._acceptor is not None:
            self._acceptor.close()
        serving = asyncio.all_tasks() - {asyncio.current_task()}
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)

    async def _serve(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        assert process.command == "docker system dial-stdio"
        child = await asyncio.create_subprocess_exec(
            *process.command.split(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=self._beside.environment,
        )
        assert child.stdin and child.stdout
        asking = asyncio.create_task(pass_on(process.stdin, child.stdin))
        try:
            await pass_on(child.stdout, process.stdout)
            process.exit(await child.wait())
        finally:
            asking.cancel()
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()


async def pass_on(source: Any, sink: Any) -> None:
    """Copy one direction of a connection, and close it at its end."""
    while piece := await source.read(65536):
        sink.write(piece)
        await sink.drain()
    sink.write_eof()


def deliver(engine: Engine, image: str, remote: Engine) -> None:
    """Bring an image that no registry holds from the building engine to the one that is to run it."""
    publication = Publication(
        model_id="0b9b4a64-0000-4000-8000-000000000001",
        commit="c" * 40,
        source_digest="sha256:s",
        image=image,
        image_size_bytes=1,
        runtime="custom",
        published_at=datetime.now(UTC),
    )
    deliver_image(publication, to=remote, built_on=engine, registry=RegistrySettings(), on_line=print)


def test_an_environment_on_an_engine_elsewhere_is_deployed_without_dropping_a_request(
    engine: Engine, tiny_image: str, remote: Engine, elsewhere: EngineBeside
) -> None:
    balancer = ensure_base_image(remote, "balancer", BaseImageSettings(), print)
    deliver(engine, tiny_image, remote)
    environment = Environment(remote, tiny_image, balancer.reference)
    environment.settings = EnvironmentSettings(
        project=environment.project, bind=elsewhere.address, port=free_port(), engine_url=remote.url
    )
    try:
        environment.want(replicas=2)
        result = environment.roll_out()
        assert result.outcome == "successful"
        assert result.endpoint_url == f"http://{elsewhere.address}:{environment.settings.port}/tiny/"
        with Clients(environment.url(), count=4) as clients:
            environment.want(replicas=3, model_version="2")
            assert environment.roll_out().outcome == "successful"
            environment.want(replicas=1, model_version="2")
            assert environment.roll_out().outcome == "successful"
            environment.want(model_version="3", env={"CRASH": "1"})
            with pytest.raises(RolloutFailed) as caught:
                environment.roll_out()
        assert caught.value.outcome == "rolled_back"
        assert any("cannot load the weights" in line for line in caught.value.log_tail)
        assert clients.failures == []
        assert set(clients.versions) == {"1", "2"}
        environment.want(model_version="2")
        seen = observe(remote, environment.project)
        assert plan_environment(seen, environment.file).is_empty
    finally:
        remove_environment(remote, environment.project)
