"""The process that runs are forked from: it has imported Dagster and the rooms, and does nothing else.

It has one thread and no connection but the socket to its launcher, so a fork of it is as good as a fresh
interpreter. Dagster's instance is opened here once, without connections that stay: on SQLite that alone reads
ninety migrations. What depends on the settings (`constellation_docker.definitions`) is imported by each run anew,
and once any imported file has changed on disk it refuses, so that a run never works with old code.

The reference of Dagster's instance comes on the standard input; it may hold a password. The rest is one JSON object
a line. From the launcher: `{"run_id", "arguments"}`. From here, for each of them: `{"run_id", "process_id"}` or
`{"run_id", "refused"}`; and when a run's process is gone: `{"run_id", "process_id", "code"}`.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dagster import DagsterInstance


def preload(modules: Sequence[str]) -> None:
    """Import what runs need. One that cannot be imported is left to the run, which says so in its log."""
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception:  # noqa: BLE001 - the process's edge: whatever a module raises is the run's to report
            traceback.print_exc()


def open_instance(reference: str) -> DagsterInstance | None:
    """Dagster's instance, for all forks; None: its storage cannot be opened now, and each run tries for itself."""
    from dagster import DagsterInstance
    from dagster._core.instance.ref import InstanceRef
    from dagster._serdes import deserialize_value

    try:
        return DagsterInstance.from_ref(deserialize_value(reference, InstanceRef))
    except Exception:  # noqa: BLE001 - the process's edge: whatever a storage raises is each run's to report
        traceback.print_exc()
        return None


def fingerprint() -> dict[str, tuple[int, int]]:
    """Every file that was imported, with its time in nanoseconds and its size."""
    found = {}
    for module in list(sys.modules.values()):
        path = getattr(module, "__file__", None)
        if path:
            found[path] = _state(path)
    return found


def _state(path: str) -> tuple[int, int]:
    try:
        status = Path(path).stat()
    except OSError:
        return 0, 0
    return status.st_mtime_ns, status.st_size


class Nursery:
    """The loop: fork on request, tell of the forks' ends.

    Args:
        launcher: The socket to the launcher.
    """

    def __init__(self, launcher: socket.socket) -> None:
        self._launcher = launcher
        self._received = b""
        self._files: dict[str, tuple[int, int]] = {}
        self._children: dict[int, str] = {}
        self._is_open = True

    def settle(self) -> None:
        """Take what is imported now as what every fork starts with."""
        self._files = fingerprint()
        gc.collect()
        # The forks share these pages as long as nothing writes to them; the collector would.
        gc.freeze()

    def serve(self) -> str | None:
        """Fork on request until the launcher has closed and every fork has ended.

        Returns:
            In a fork: the arguments of the run that it is for. In the nursery itself, at its end: None.
        """
        with _woken_by_children() as wakeup, selectors.DefaultSelector() as selector:
            selector.register(wakeup, selectors.EVENT_READ)
            selector.register(self._launcher, selectors.EVENT_READ)
            while self._is_open or self._children:
                for key, _ in selector.select():
                    if key.fileobj is wakeup:
                        wakeup.recv(4096)
                        self._reap()
                        continue
                    for request in self._requests():
                        arguments = self._fork(request)
                        if arguments is not None:
                            return arguments
                    if not self._is_open:
                        selector.unregister(self._launcher)
        return None

    def _requests(self) -> Iterator[dict[str, Any]]:
        """The requests that have arrived whole."""
        try:
            data = self._launcher.recv(1 << 20)
        except ConnectionError:
            data = b""
        self._is_open = bool(data)
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            yield json.loads(line)

    def _fork(self, request: dict[str, Any]) -> str | None:
        """Fork for a request. Returns its arguments in the fork, None in the nursery."""
        refusal = self._refusal()
        if refusal:
            self._tell(run_id=request["run_id"], refused=refusal)
            return None
        sys.stdout.flush()
        sys.stderr.flush()
        process_id = os.fork()
        if process_id == 0:
            return str(request["arguments"])
        self._children[process_id] = request["run_id"]
        self._tell(run_id=request["run_id"], process_id=process_id)
        return None

    def _refusal(self) -> str | None:
        """Why a run must not be forked from here; None: it may."""
        threads = _count_threads()
        if threads > 1:
            return f"{threads} threads run, and a fork would have one of them only"
        changed = next((path for path, known in self._files.items() if _state(path) != known), None)
        return f"{changed} has changed" if changed else None

    def _reap(self) -> None:
        while self._children:
            process_id, status = os.waitpid(-1, os.WNOHANG)
            if process_id == 0:
                return
            run_id = self._children.pop(process_id, "")
            self._tell(run_id=run_id, process_id=process_id, code=os.waitstatus_to_exitcode(status))

    def _tell(self, **message: Any) -> None:
        # A launcher that is gone needs no answer; its successor looks after the runs itself.
        with contextlib.suppress(OSError):
            self._launcher.sendall(json.dumps(message).encode() + b"\n")


@contextlib.contextmanager
def _woken_by_children() -> Iterator[socket.socket]:
    """A socket that becomes readable when a fork ends; the fork itself gets the signals of a fresh interpreter."""
    wakeup, written = socket.socketpair()
    wakeup.setblocking(False)
    written.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.set_wakeup_fd(written.fileno(), warn_on_full_buffer=False)
    try:
        yield wakeup
    finally:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        wakeup.close()
        written.close()


def _count_threads() -> int:
    """The threads of this process, also those that no Python code started; 1 where there is no `/proc`."""
    try:
        return len(list(Path("/proc/self/task").iterdir()))
    except OSError:
        return 1


def work(arguments: str, instance: DagsterInstance | None) -> None:
    """Do in this process what `dagster api execute_run` does in one of its own, as container launchers start it.

    Args:
        arguments: That command's.
        instance: The instance that was opened before the fork; it is used where the run is of this one.
    """
    from dagster import DagsterInstance
    from dagster._cli.api import _execute_run_command_body
    from dagster._grpc.types import ExecuteRunArgs
    from dagster._serdes import deserialize_value
    from dagster._utils.interrupts import capture_interrupts

    from constellation_docker.defs.launching.worker import Worker

    with capture_interrupts():
        run = deserialize_value(arguments, ExecuteRunArgs)
        assert run.instance_ref is not None
        if instance is None or instance.get_ref() != run.instance_ref:
            instance = DagsterInstance.from_ref(run.instance_ref)
        with instance:
            Worker.of(os.getpid()).write_down(instance, run.run_id)
            _execute_run_command_body(
                run.run_id, instance, lambda event: None, set_exit_code_on_failure=False
            )


def main() -> None:
    """The nursery, and by way of `fork` every run."""
    launcher = socket.socket(fileno=int(sys.argv[1]))
    nursery = Nursery(launcher)
    preload(sys.argv[2:])
    instance = open_instance(sys.stdin.read())
    nursery.settle()
    arguments = nursery.serve()
    launcher.close()
    if arguments is not None:
        work(arguments, instance)


if __name__ == "__main__":
    main()
