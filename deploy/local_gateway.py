"""A gateway of its own on this machine, for the demo: a process beside Dagster's two."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from constellation_docker.errors import ConstellationError
from deploy.local_dagster import REPOSITORY, end_group, is_running

PROGRAM = "constellation-docker"
START_DEADLINE_SECONDS = 60


class LocalGatewayFailed(ConstellationError):
    """The gateway did not come up."""

    code = "local_gateway_failed"


@dataclass(frozen=True)
class LocalGateway:
    """One gateway: its key, log and process id lie in one directory.

    Args:
        home: The directory.
        port: Its port on the loopback interface.
        environment: Environment variables beside the present ones: the settings of the code location.
        probe: The path that answers 200 once it has started.
    """

    home: Path
    port: int
    environment: Mapping[str, str]
    probe: str = "/ready"

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def key_path(self) -> Path:
        """The file that holds its API key, which only its owner may read."""
        return self.home / "api-key"

    def start(self) -> None:
        """Start it where it does not run, with an API key that is made once, and wait until it answers.

        Raises:
            LocalGatewayFailed: It ended, or did not answer in time; the message holds its log's end.
        """
        self.home.mkdir(parents=True, exist_ok=True)
        if not self.key_path.exists():
            self._make_key()
        if self._process_id() is None:
            with (self.home / "gateway.log").open("ab") as log:
                process = subprocess.Popen(
                    [str(Path(sys.executable).parent / PROGRAM), "gateway", "serve"],
                    env=self._variables(),
                    cwd=REPOSITORY,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            (self.home / "gateway.pid").write_text(str(process.pid))
        self._wait_until_it_answers()

    def stop(self) -> None:
        """End it."""
        process_id = self._process_id()
        if process_id is not None:
            end_group(process_id, PROGRAM)
        (self.home / "gateway.pid").unlink(missing_ok=True)

    def is_running(self) -> bool:
        """Whether its process is there."""
        return self._process_id() is not None

    def is_listening(self) -> bool:
        """Whether the process that has the port is there."""
        return self.is_running()

    def key(self) -> str:
        """Its API key."""
        return self.key_path.read_text(encoding="utf-8").strip()

    def _make_key(self) -> None:
        command = [str(Path(sys.executable).parent / PROGRAM), "keys", "create", "--name", "demo"]
        made = subprocess.run(
            [*command, "--role", "admin", "--json"],
            env=self._variables(),
            cwd=REPOSITORY,
            check=False,
            capture_output=True,
            text=True,
        )
        if made.returncode:
            raise LocalGatewayFailed(f"No API key could be made:\n{made.stderr.strip()}")
        private = os.open(self.key_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(private, "w", encoding="utf-8") as file:
            file.write(json.loads(made.stdout)["key"])

    def _variables(self) -> dict[str, str]:
        return {**os.environ, **self.environment, "CONSTELLATION_GATEWAY__PORT": str(self.port)}

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + START_DEADLINE_SECONDS
        while time.monotonic() < deadline:
            with suppress(httpx.HTTPError):
                if httpx.get(f"{self.url}{self.probe}", timeout=5, trust_env=False).status_code == 200:
                    return
            if self._process_id() is None:
                raise LocalGatewayFailed(f"The gateway ended at its start:\n{self._log_tail()}")
            time.sleep(0.2)
        raise LocalGatewayFailed(f"The gateway did not come up:\n{self._log_tail()}")

    def _log_tail(self, lines: int = 20) -> str:
        path = self.home / "gateway.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""

    def _process_id(self) -> int | None:
        path = self.home / "gateway.pid"
        if not path.exists():
            return None
        process_id = int(path.read_text())
        return process_id if is_running(process_id, PROGRAM) else None
