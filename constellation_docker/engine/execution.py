"""Running commands inside containers."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import requests

from constellation_docker.engine.client import EngineClient
from constellation_docker.engine.connection import Connection
from constellation_docker.engine.stream import never, read_frames

_EXIT_CODE_SECONDS = 5.0


@dataclass(frozen=True)
class ExecResult:
    """How a command inside a container ended."""

    exit_code: int
    stdout: bytes
    stderr: bytes


class Execution(Connection):
    """Running commands inside containers."""

    def execute(
        self,
        container: str,
        command: Sequence[str],
        *,
        user: str = "",
        environment: Mapping[str, str] | None = None,
        stdin: bytes | None = None,
        timeout_seconds: float | None = None,
        is_cancelled: Callable[[], bool] = never,
    ) -> ExecResult:
        """Run a command inside a running container and wait for its end.

        Args:
            container: Its id or name.
            command: Program and arguments; no shell.
            user: `user[:group]`; empty: the container's own.
            environment: Further environment variables.
            stdin: What the command reads; None: nothing. With an engine behind TLS the container needs `sh` and `head`
                for it, because TLS cannot close one direction to say that the input has ended.
            timeout_seconds: Longest wait; the command itself is not ended by it, the engine has no call for that.
            is_cancelled: Asked about ten times a second.

        Raises:
            NotFound: There is no such container.
            Conflict: It is not running.
            DeadlineExceeded: The command takes longer than `timeout_seconds`.
        """
        doing = f"running {command[0]} in container {container}"
        is_secured = self.address.tls is not None
        if stdin is not None and is_secured:
            command = ["sh", "-c", 'head -c "$0" | "$@"', str(len(stdin)), *command]
        with self._calling(doing) as client:
            answer = client.ask(
                "POST",
                "/containers/{0}/exec",
                container,
                body={
                    "AttachStdin": stdin is not None,
                    "AttachStdout": True,
                    "AttachStderr": True,
                    "Cmd": list(command),
                    "User": user,
                    "Env": [f"{key}={value}" for key, value in (environment or {}).items()],
                },
            )
            exec_id = str(answer["Id"])

        def send(client: EngineClient, _: Callable[[], bool]) -> requests.Response:
            answer = client.call(
                "POST",
                "/exec/{0}/start",
                exec_id,
                body={"Detach": False, "Tty": False},
                is_stream=True,
            )
            if stdin is not None and is_secured:
                # OpenSSL cannot read and write one connection at the same time.
                _connection(answer).sendall(stdin)
            elif stdin is not None:
                _feed(answer, stdin)
            return answer

        output: dict[int, list[bytes]] = {1: [], 2: []}
        for stream, data in self._streaming(
            doing, send, read_frames, timeout_seconds=timeout_seconds, is_cancelled=is_cancelled
        ):
            output.setdefault(stream, []).append(data)
        return ExecResult(self._exit_code(exec_id, doing), b"".join(output[1]), b"".join(output[2]))

    def _exit_code(self, exec_id: str, doing: str) -> int:
        # The output may end a moment before the engine notes the exit code.
        deadline = time.monotonic() + _EXIT_CODE_SECONDS
        while True:
            with self._calling(doing) as client:
                facts = client.exec_inspect(exec_id)
            if facts.get("ExitCode") is not None or time.monotonic() > deadline:
                code = facts.get("ExitCode")
                return -1 if code is None else int(code)
            time.sleep(0.02)


def _feed(response: requests.Response, data: bytes) -> None:
    """Write a command's input to the connection under its output, and close that half of it."""
    connection = _connection(response)

    def write() -> None:
        # A command may end without reading everything.
        with contextlib.suppress(OSError):
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)

    # Beside the reading, because a command that answers before it has read everything would block both.
    threading.Thread(target=write, name="engine-stdin", daemon=True).start()


def _connection(response: requests.Response) -> socket.socket:
    reader: Any = response.raw._fp.fp  # type: ignore[union-attr]
    connection: socket.socket = reader.raw._sock
    return connection
