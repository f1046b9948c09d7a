"""A webserver and a daemon of their own on this machine, for the demo and for the tests."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from constellation_docker.errors import ConstellationError
from constellation_docker.gateway import DagsterClient, DagsterUnavailable
from constellation_docker.gateway.links import UI_PATH

REPOSITORY = Path(__file__).resolve().parent.parent
START_DEADLINE_SECONDS = 120
STOP_DEADLINE_SECONDS = 30


class LocalDagsterFailed(ConstellationError):
    """The webserver or the daemon did not come up."""

    code = "local_dagster_failed"


@dataclass(frozen=True)
class LocalDagster:
    """One Dagster instance in one directory: `dagster.yaml`, storage, logs and process ids.

    Args:
        home: The instance's directory (DAGSTER_HOME).
        port: The webserver's port on the loopback interface.
        environment: Environment variables of both processes, beside the present ones.
        has_daemon: Whether there is a daemon, too; without one runs are queued and none begins.
        instance: The instance's configuration, which becomes its `dagster.yaml`.
    """

    home: Path
    port: int
    environment: Mapping[str, str]
    has_daemon: bool = True
    instance: Path = REPOSITORY / "dagster.yaml"

    @property
    def url(self) -> str:
        """Where the UI and GraphQL answer: under the path under which the gateway passes them on."""
        return f"http://127.0.0.1:{self.port}{UI_PATH}"

    @property
    def processes(self) -> tuple[str, ...]:
        """The names of its processes."""
        return ("webserver", "daemon") if self.has_daemon else ("webserver",)

    @property
    def variables(self) -> dict[str, str]:
        """The whole environment of the processes."""
        return {
            **os.environ,
            **self.environment,
            "DAGSTER_HOME": str(self.home),
            "DAGSTER_DISABLE_TELEMETRY": "yes",
        }

    def start(self) -> None:
        """Start what is not running, and wait until the code location is loaded and the daemon beats.

        Raises:
            LocalDagsterFailed: A process ended, or did not answer in time; the message holds its log's end.
        """
        self.home.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.instance, self.home / "dagster.yaml")
        self._make_storage()
        workspace = str(REPOSITORY / "workspace.yaml")
        if self._process_id("webserver") is None:
            where = ("-h", "127.0.0.1", "-p", str(self.port), "--path-prefix", UI_PATH)
            self._spawn("webserver", "dagster-webserver", "-w", workspace, *where)
        if self.has_daemon and self._process_id("daemon") is None:
            self._spawn("daemon", "dagster-daemon", "run", "-w", workspace)
        self._wait_until_loaded()

    def _make_storage(self) -> None:
        """Several processes that open fresh SQLite storage at once can leave it broken for good, so one makes it."""
        unfinished = self.home / "making-storage"
        if unfinished.exists():
            # Whoever made it was ended in the middle.
            for part in ("history", "schedules", "storage"):
                shutil.rmtree(self.home / part, ignore_errors=True)
        if not (self.home / "history").exists():
            unfinished.touch()
            self._run_to_end("instance-migrate", "dagster", "instance", "migrate")
            unfinished.unlink()

    def stop(self) -> None:
        """End both processes, and what they started, at last by force."""
        for name in ("daemon", "webserver"):
            process_id = self._process_id(name)
            if process_id is not None:
                end_group(process_id, f"dagster-{name}")
            (self.home / f"{name}.pid").unlink(missing_ok=True)

    def is_running(self) -> bool:
        """Whether both processes are there."""
        return all(self._process_id(name) is not None for name in self.processes)

    def is_listening(self) -> bool:
        """Whether the process that has the port is there."""
        return self._process_id("webserver") is not None

    def log_tail(self, name: str, lines: int = 20) -> str:
        """The last lines of a process's log."""
        path = self.home / f"{name}.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""

    def _wait_until_loaded(self) -> None:
        deadline = time.monotonic() + START_DEADLINE_SECONDS
        with DagsterClient(self.url, timeout_seconds=10) as client:
            while time.monotonic() < deadline:
                for name in self.processes:
                    if self._process_id(name) is None:
                        raise LocalDagsterFailed(f"The {name} ended at its start:\n{self.log_tail(name)}")
                try:
                    if client.is_ready() if self.has_daemon else client.has_loaded():
                        return
                except DagsterUnavailable:
                    pass
                time.sleep(0.3)
        raise LocalDagsterFailed(
            f"Dagster did not come up within {START_DEADLINE_SECONDS} s:\n{self.log_tail('webserver')}",
            remedy=f"Look into {self.home}/webserver.log.",
        )

    def _run_to_end(self, name: str, *command: str) -> None:
        with (self.home / f"{name}.log").open("ab") as log:
            code = subprocess.run(
                [str(Path(sys.executable).parent / command[0]), *command[1:]],
                env=self.variables,
                cwd=REPOSITORY,
                stdout=log,
                stderr=log,
                check=False,
            ).returncode
        if code:
            raise LocalDagsterFailed(f"{' '.join(command)} failed:\n{self.log_tail(name)}")

    def _spawn(self, name: str, *command: str) -> None:
        with (self.home / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [str(Path(sys.executable).parent / command[0]), *command[1:]],
                env=self.variables,
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        (self.home / f"{name}.pid").write_text(str(process.pid))

    def _process_id(self, name: str) -> int | None:
        path = self.home / f"{name}.pid"
        if not path.exists():
            return None
        process_id = int(path.read_text())
        return process_id if is_running(process_id, f"dagster-{name}") else None


def is_running(process_id: int, program: str) -> bool:
    """Whether a process runs that program from this environment; a number may be used again after a restart."""
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
        command = Path(f"/proc/{process_id}/cmdline").read_bytes().decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z" and str(Path(sys.executable).parent / program) in command


def end_group(process_id: int, program: str) -> None:
    """End a process that runs that program, and the group that it leads, at last by force."""
    for which in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process_id, which)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + STOP_DEADLINE_SECONDS
        while time.monotonic() < deadline and is_running(process_id, program):
            time.sleep(0.1)
        if not is_running(process_id, program):
            return


def free_port() -> int:
    """A port of the loopback interface that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
