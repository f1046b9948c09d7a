"""`deploy/bootstrap_engine.py`: an engine in one command, or one sentence."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from constellation_docker.engine import Engine
from constellation_docker_tests.fixtures.debian import require_program
from constellation_docker_tests.fixtures.engine import PrivateEngine, private_engine
from constellation_docker_tests.fixtures.ports import free_port

SCRIPT = Path(__file__).parents[2] / "deploy" / "bootstrap_engine.py"


@pytest.fixture(scope="module")
def bootstrap() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("bootstrap_engine", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    # Without anything that is installed, as on a bare machine.
    return subprocess.run(
        [sys.executable, "-I", "-S", str(SCRIPT), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_an_engine_that_answers_is_one_line(engine: Engine) -> None:
    ended = _run()
    assert ended.returncode == 0
    assert ended.stdout.splitlines() == [f"Docker engine {engine.version.engine} answers at {engine.url}."]
    assert ended.stderr == ""


def test_an_engine_that_docker_host_names_and_that_is_down_is_one_sentence() -> None:
    ended = _run(DOCKER_HOST=f"tcp://127.0.0.1:{free_port()}")
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert len(ended.stderr.splitlines()) == 1
    assert "which DOCKER_HOST names" in ended.stderr


def test_a_context_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    ended = _run(DOCKER_HOST="", DOCKER_CONFIG=str(tmp_path), DOCKER_CONTEXT="gone")
    assert ended.returncode == 1
    assert "context gone" in ended.stderr


def test_elsewhere_than_on_debian_it_says_how_to_get_an_engine(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap.shutil, "which", lambda *_, **__: None)
    with pytest.raises(bootstrap.Unusable, match=r"https://docs\.docker\.com/get-docker"):
        bootstrap.require_debian_root("unix:///x")


def test_without_root_it_says_what_to_run(bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    if "debian" not in Path("/etc/os-release").read_text(encoding="utf-8"):
        pytest.skip("this is not Debian")
    monkeypatch.setattr(bootstrap.os, "geteuid", lambda: 1000)
    with pytest.raises(bootstrap.Unusable, match="as root"):
        bootstrap.require_debian_root("unix:///x")


APT = """\
#!/bin/sh
# Fails beside another one, as apt-get does while somebody has the package lists.
mkdir {folder}/busy || {{ echo "E: Could not get lock" >&2; exit 100; }}
echo "$*" >> {folder}/calls
sleep 0.3
rmdir {folder}/busy
grep -q update {folder}/calls || {{ echo "E: Unable to locate package" >&2; exit 100; }}
"""


def test_processes_that_install_at_once_wait_for_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apt = tmp_path / "bin" / "apt-get"
    apt.parent.mkdir()
    apt.write_text(APT.format(folder=tmp_path))
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", f"{apt.parent}:{os.environ['PATH']}")
    program = (
        "import sys, pathlib; from deploy.bootstrap_engine import install_packages;"
        f"sys.exit(bool(install_packages([sys.argv[1]], lock=pathlib.Path({str(tmp_path / 'lock')!r}))))"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", program, name], cwd=SCRIPT.parents[1])
        for name in ("one", "two", "three")
    ]
    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0]
    calls = (tmp_path / "calls").read_text().splitlines()
    assert sum(line.startswith("update") for line in calls) == 1
    assert {line.split()[-1] for line in calls if line.startswith("install")} == {"one", "two", "three"}


def test_process_files_of_dead_processes_and_of_other_programs_go(
    bootstrap: ModuleType, tmp_path: Path
) -> None:
    options = [f"--pidfile={tmp_path}/pid", f"--exec-root={tmp_path}/exec"]
    containerd = tmp_path / "exec" / "containerd" / "containerd.pid"
    containerd.parent.mkdir(parents=True)
    (tmp_path / "pid").write_text(str(os.getpid()))  # runs, but is no engine
    containerd.write_text("4194304")  # larger than any process number
    (tmp_path / "docker.sock").touch()
    bootstrap.remove_leftovers(tmp_path / "docker.sock", options)
    assert not (tmp_path / "pid").exists()
    assert not containerd.exists()
    assert not (tmp_path / "docker.sock").exists()


@pytest.fixture
def prepared() -> Iterator[PrivateEngine]:
    """A private engine's folder and bridge, with nothing started."""
    with private_engine(is_started=False) as prepared:
        yield prepared


def test_an_engine_is_started_and_started_again_over_what_a_killed_one_left(prepared: PrivateEngine) -> None:
    require_program("dockerd", "docker.io")
    if Path("/run/systemd/system").is_dir() and os.geteuid() != 0:
        pytest.skip("only root can start an engine")
    arguments = [
        f"--socket={prepared.folder}/docker.sock",
        f"--log={prepared.log}",
        "--",
        *prepared.options,
    ]
    clean = {"DOCKER_HOST": "", "DOCKER_CONTEXT": "default"}
    try:
        first = _run(*arguments, **clean)
        assert first.returncode == 0, first.stderr
        assert prepared.url in first.stdout
        process = _process_id(prepared)
        again = _run(*arguments, **clean)
        assert again.returncode == 0
        assert _process_id(prepared) == process
        os.kill(process, signal.SIGKILL)
        second = _run(*arguments, **clean)
        assert second.returncode == 0, second.stderr
        assert _process_id(prepared) != process
    finally:
        with contextlib.suppress(OSError):
            os.kill(_process_id(prepared), signal.SIGTERM)
        prepared.wait_until_ended()


def test_an_engine_that_does_not_start_is_one_sentence_with_its_own_complaint(
    prepared: PrivateEngine,
) -> None:
    ended = _run(
        f"--socket={prepared.folder}/docker.sock",
        f"--log={prepared.log}",
        "--",
        *prepared.options,
        "--storage-driver=no-such-driver",
        DOCKER_HOST="",
        DOCKER_CONTEXT="default",
    )
    assert ended.returncode == 1
    assert "driver not supported" in ended.stderr
    assert str(prepared.log) in ended.stderr


def _process_id(prepared: PrivateEngine) -> int:
    return int((prepared.folder / "dockerd.pid").read_text())
