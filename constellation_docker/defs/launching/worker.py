"""The process that works on a run: written down with the run, found again, stopped."""

from __future__ import annotations

import json
import os
import signal
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

from dagster import DagsterInstance, DagsterRun

# Tags with this prefix are not shown; Dagster keeps its own launcher's address in `.dagster/grpc_info`.
WORKER_TAG = ".dagster/constellation_worker"


@dataclass(frozen=True)
class Worker:
    """One process, told apart from a later one with the same number.

    Args:
        host: The machine's or container's name.
        namespace: Its process namespace; empty where there is no `/proc`.
        process_id: The number.
        born: When it was started, in clock ticks since the machine's start; empty where there is no `/proc`.
    """

    host: str
    namespace: str
    process_id: int
    born: str

    @staticmethod
    def of(process_id: int) -> Worker:
        """The worker that a process of this machine is."""
        return Worker(socket.gethostname(), _namespace(), process_id, _born(process_id))

    @staticmethod
    def of_run(run: DagsterRun) -> Worker | None:
        """The worker that was written down with a run; None: none was, yet."""
        written = run.tags.get(WORKER_TAG)
        return Worker(**json.loads(written)) if written else None

    def write_down(self, instance: DagsterInstance, run_id: str) -> None:
        """Keep it with its run."""
        instance.add_run_tags(run_id, {WORKER_TAG: json.dumps(asdict(self))})

    @property
    def is_here(self) -> bool:
        """Whether it was started under this machine's or container's name."""
        return self.host == socket.gethostname()

    @property
    def is_alive(self) -> bool:
        """Whether it still runs here. One from before a container's restart does not."""
        return self.is_here and self.namespace == _namespace() and _is_running(self.process_id, self.born)

    def interrupt(self) -> bool:
        """Ask it to stop, as Ctrl-C does: the step ends what it began, then the run is canceled.

        Returns:
            Whether it was there to be asked.
        """
        if not self.is_alive:
            return False
        try:
            os.kill(self.process_id, signal.SIGINT)
        except ProcessLookupError:
            return False
        return True


def _namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _stat(process_id: int) -> list[str]:
    """The fields of `/proc/<pid>/stat` after the program's name (proc(5)): its state first, its start as the 20th."""
    try:
        return Path(f"/proc/{process_id}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return []


def _born(process_id: int) -> str:
    fields = _stat(process_id)
    return fields[19] if fields else ""


def _is_running(process_id: int, born: str) -> bool:
    fields = _stat(process_id)
    if fields:
        return fields[0] != "Z" and fields[19] == born
    if Path("/proc/self/stat").exists():
        return False
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True
