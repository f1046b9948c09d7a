"""Finding and talking to an engine, and what is said when none answers."""

from __future__ import annotations

import hashlib
import json
import pickle
import stat
import sys
import threading
import uuid
from pathlib import Path

import pytest

from constellation_docker.engine import (
    Engine,
    EngineForbidden,
    EngineIncompatible,
    EngineUnreachable,
    resolve_engine_address,
)
from constellation_docker.engine.connection import choose_api_version, translating
from constellation_docker.errors import ConstellationError, InvalidInput
from constellation_docker.packaging.base_image import BaseImage
from constellation_docker_tests.fixtures.debian import require_program
from constellation_docker_tests.fixtures.engine import TEST_LABEL, PrivateEngine, build_context
from constellation_docker_tests.fixtures.ports import free_port


def test_the_engine_tells_its_version_and_platform(engine: Engine) -> None:
    engine.ping()
    assert engine.version.os == "linux"
    assert engine.version.platform == f"linux/{engine.version.architecture}"
    assert engine.version.api <= "1.45"


def test_no_engine_is_one_sentence_with_the_address_and_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(EngineUnreachable) as caught:
        Engine.connect(f"unix://{tmp_path}/docker.sock")
    assert (
        caught.value.message
        == f"No Docker engine answers at unix://{tmp_path}/docker.sock (no such file or directory)."
    )
    assert "DOCKER_HOST" in caught.value.remedy
    assert caught.value.is_transient


def test_a_port_that_nobody_listens_on_is_an_engine_that_is_down() -> None:
    with pytest.raises(EngineUnreachable, match="connection refused"):
        Engine.connect(f"tcp://127.0.0.1:{free_port()}")


def test_something_else_than_an_engine_is_not_taken_for_one(anonymous_registry: object) -> None:
    with pytest.raises(Exception, match="Docker engine"):
        Engine.connect(f"tcp://{anonymous_registry.address}")  # type: ignore[attr-defined]


def test_a_forbidden_socket_is_not_worth_another_try() -> None:
    with pytest.raises(EngineForbidden, match="docker") as caught, translating("pinging", "unix:///x"):
        raise PermissionError(13, "Permission denied")
    assert not caught.value.is_transient


@pytest.mark.parametrize("url", ["docker.sock", "ftp://x", "/var/run/docker.sock", "tcp://host:notaport"])
def test_an_address_that_cannot_be_read_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="is not the address"):
        resolve_engine_address(url)


def test_a_given_address_wins_over_docker_host() -> None:
    found = resolve_engine_address("tcp://given:1", {"DOCKER_HOST": "tcp://environment:2"})
    assert (found.url, found.origin) == ("tcp://given:1", "given")


def test_docker_host_wins_over_the_context() -> None:
    found = resolve_engine_address(None, {"DOCKER_HOST": "tcp://environment:2", "DOCKER_CONTEXT": "x"})
    assert (found.url, found.origin) == ("tcp://environment:2", "DOCKER_HOST")


def test_the_current_context_of_the_docker_cli_is_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write_context(tmp_path, "laptop", "unix:///somewhere/else.sock")
    (tmp_path / "config.json").write_text(json.dumps({"currentContext": "laptop"}), encoding="utf-8")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    found = resolve_engine_address(None, {})
    assert (found.url, found.origin) == ("unix:///somewhere/else.sock", "context laptop")
    assert resolve_engine_address("context://laptop", {}).url == "unix:///somewhere/else.sock"


def test_a_context_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with pytest.raises(InvalidInput, match="staging"):
        resolve_engine_address("context://staging", {})


def test_without_any_hint_it_is_the_default_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert resolve_engine_address(None, {}).url == "unix:///var/run/docker.sock"


@pytest.mark.parametrize(
    ("newest", "oldest", "chosen"),
    [("1.41", "1.12", "1.41"), ("1.45", "1.24", "1.45"), ("1.51", "1.24", "1.45"), ("1.53", "1.40", "1.45")],
)
def test_the_api_spoken_is_the_engines_newest_that_we_know(newest: str, oldest: str, chosen: str) -> None:
    assert choose_api_version({"ApiVersion": newest, "MinAPIVersion": oldest}, "x") == chosen


@pytest.mark.parametrize(
    ("newest", "oldest", "word"), [("1.39", "1.12", "old"), ("1.60", "1.46", "new"), ("", "", "old")]
)
def test_an_engine_too_old_or_too_new_is_refused(newest: str, oldest: str, word: str) -> None:
    with pytest.raises(EngineIncompatible, match=f"too {word}"):
        choose_api_version({"ApiVersion": newest, "MinAPIVersion": oldest}, "x")


def test_every_thread_has_a_client_of_its_own(engine: Engine) -> None:
    clients = [engine._client()]
    thread = threading.Thread(target=lambda: clients.append(engine._client()))
    thread.start()
    thread.join()
    assert clients[0] is engine._client()
    assert clients[0] is not clients[1]


def test_many_threads_may_call_at_once(engine: Engine) -> None:
    failures: list[ConstellationError] = []

    def call() -> None:
        try:
            for _ in range(5):
                engine.ping()
                engine.list_containers({"constellation.test": "nobody"})
        except ConstellationError as error:
            failures.append(error)

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_a_connection_travels_to_another_process(engine: Engine) -> None:
    copy = pickle.loads(pickle.dumps(engine))
    copy.ping()
    assert copy.url == engine.url


def test_an_engine_that_went_away_is_noticed_and_found_again_after_its_return(
    second_engine: PrivateEngine,
) -> None:
    engine = second_engine.connect()
    second_engine.kill()
    try:
        with pytest.raises(EngineUnreachable) as caught:
            engine.list_containers()
        assert caught.value.is_transient
    finally:
        second_engine.start()
    engine.ping()


def test_an_engine_is_reached_through_the_ssh_program(
    engine: Engine, python_base: BaseImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Stands in for the network part only: it runs what ssh would run on the other side.
    require_program("docker", "docker.io")
    program = tmp_path / "ssh"
    program.write_text(_SSH.format(python=sys.executable), encoding="utf-8")
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/local/bin:/usr/bin:/bin")
    remote = Engine.connect("ssh://someone@somewhere.invalid:2222")
    assert remote.version == engine.version
    context = build_context({"Dockerfile": f"FROM {python_base.reference}\nCMD sleep 60"})
    name = f"constellation-test-ssh:{uuid.uuid4().hex[:12]}"
    image = remote.build(context, tag=name, labels={TEST_LABEL: "ssh"}).image_id
    try:
        with remote.temporary_container(name.replace(":", "-"), {"Image": image}) as container:
            remote.start(container)
            answer = remote.execute(container, ["cat"], stdin=b"through ssh")
            assert (answer.exit_code, answer.stdout) == (0, b"through ssh")
    finally:
        remote.remove_image(name)


def test_what_ssh_complains_about_is_said() -> None:
    with pytest.raises(EngineUnreachable) as caught:
        Engine.connect("ssh://nobody@host.invalid")
    assert "host.invalid" in caught.value.message
    assert caught.value.is_transient


_SSH = """\
#!{python}
import os, sys
remote = sys.argv[sys.argv.index("--") + 2:]
os.execvp("sh", ["sh", "-c", " ".join(remote)])
"""


def _write_context(folder: Path, name: str, host: str) -> None:
    place = folder / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest()
    place.mkdir(parents=True)
    content = {"Name": name, "Metadata": {}, "Endpoints": {"docker": {"Host": host, "SkipTLSVerify": False}}}
    (place / "meta.json").write_text(json.dumps(content), encoding="utf-8")
