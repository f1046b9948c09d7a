"""The run launcher: forks runs from a warm process, notices their ends, stops them."""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import threading
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Self

from dagster import DagsterInstance, DagsterRun, Field
from dagster._core.errors import DagsterLaunchFailedError
from dagster._core.launcher.base import (
    CheckRunHealthResult,
    LaunchRunContext,
    RunLauncher,
    WorkerStatus,
)
from dagster._core.storage.dagster_run import DagsterRunStatus
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import ConfigurableClass, ConfigurableClassData, serialize_value

from constellation_docker.defs.launching.preloaded import PRELOADED
from constellation_docker.defs.launching.worker import Worker

FORK_DEADLINE_SECONDS = 150
WRITTEN_DEADLINE_SECONDS = 5
LOOK_SECONDS = 0.1
NURSERY = "constellation_docker.defs.launching.nursery"

log = logging.getLogger("constellation_docker.launching")


class Refused(Exception):
    """The nursery does not fork, or is not there; the message says why."""


class NurseryProcess:
    """The launcher's end of one nursery.

    Args:
        python: The interpreter of the code location.
        preload: The modules that it imports before the first fork.
        instance: The serialized reference of Dagster's instance.
        on_end: Told of each run whose process is gone: the run's id and the exit code, negative for a signal.
    """

    def __init__(
        self, python: str, preload: Sequence[str], instance: str, on_end: Callable[[str, int], None]
    ) -> None:
        self._on_end = on_end
        self._waiting: dict[str, Future[int]] = {}
        self._lock = threading.Lock()
        self._is_closed = False
        self._socket, far_end = socket.socketpair()
        with far_end:
            self._process = subprocess.Popen(
                [python, "-m", NURSERY, str(far_end.fileno()), *preload],
                pass_fds=[far_end.fileno()],
                stdin=subprocess.PIPE,
            )
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError), self._process.stdin as stdin:
            stdin.write(instance.encode())
        threading.Thread(target=self._listen, name="run-nursery", daemon=True).start()

    def fork(self, run_id: str, arguments: str) -> int:
        """Fork a run.

        Returns:
            The number of its process.

        Raises:
            Refused: It was not forked.
        """
        answer: Future[int] = Future()
        with self._lock:
            if self._is_closed:
                raise Refused("the nursery has ended")
            self._waiting[run_id] = answer
            try:
                self._socket.sendall(json.dumps({"run_id": run_id, "arguments": arguments}).encode() + b"\n")
            except OSError as error:
                self._waiting.pop(run_id, None)
                raise Refused(f"the nursery has ended ({error})") from error
        return answer.result(timeout=FORK_DEADLINE_SECONDS)

    def retire(self) -> None:
        """Ask for no more forks; it ends with the last of them."""
        with self._lock:
            self._is_closed = True
            try:
                self._socket.shutdown(socket.SHUT_WR)
            except OSError:
                return

    def _listen(self) -> None:
        with self._socket.makefile("rb") as lines:
            try:
                for line in lines:
                    self._hear(json.loads(line))
            except OSError:
                log.debug("The nursery's socket broke off.", exc_info=True)
        with self._lock:
            self._is_closed = True
            left, self._waiting = list(self._waiting.values()), {}
        for answer in left:
            answer.set_exception(Refused("the nursery has ended"))
        self._socket.close()
        self._process.wait()

    def _hear(self, message: Mapping[str, Any]) -> None:
        run_id = message["run_id"]
        if "code" in message:
            self._on_end(run_id, message["code"])
            return
        with self._lock:
            answer = self._waiting.pop(run_id, None)
        if answer is None:
            return
        if "refused" in message:
            answer.set_exception(Refused(message["refused"]))
        else:
            answer.set_result(message["process_id"])


class WarmRunLauncher(RunLauncher[DagsterInstance], ConfigurableClass):
    """Forks each run from a process that has imported Dagster and the location already.

    It launches on its own machine, like Dagster's default launcher, and is told of in `dagster.yaml`. Where no
    run can be forked it starts a fresh interpreter, as a container launcher does. A run whose process is gone fails
    at once, also after a restart of the daemon (`run_monitoring`).

    Args:
        preload: The modules that are imported before the first fork; none of them may read settings at its import.
        inst_data: What `dagster.yaml` says.
    """

    def __init__(
        self, preload: Sequence[str] = PRELOADED, inst_data: ConfigurableClassData | None = None
    ) -> None:
        self._preload = tuple(preload)
        self._inst_data = inst_data
        self._nurseries: dict[str, NurseryProcess] = {}
        self._lock = threading.Lock()
        super().__init__()  # type: ignore[no-untyped-call]

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        """What `dagster.yaml` says."""
        return self._inst_data

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """One setting, `preload`: the modules that are imported before the first fork, where not our own."""
        return {"preload": Field([str], is_required=False)}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> Self:
        """As Dagster makes it."""
        return cls(config_value.get("preload", PRELOADED), inst_data)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Start the process that works on a run.

        Raises:
            DagsterLaunchFailedError: The run does not say where its code is, or no process came up.
        """
        run, origin = context.dagster_run, context.job_code_origin
        if origin is None:
            raise _failed(f"Run {run.run_id} does not say where its code is.")
        arguments = ExecuteRunArgs(
            job_origin=origin, run_id=run.run_id, instance_ref=self._instance.get_ref()
        )
        python = origin.repository_origin.executable_path
        try:
            self._fork(python, run.run_id, serialize_value(arguments))
        except Refused as refusal:
            log.warning("Run %s gets an interpreter of its own: %s.", run.run_id, refusal)
            self._start_fresh(python, run.run_id, arguments)

    def terminate(self, run_id: str) -> bool:
        """Ask the run's process to stop what it began, and to end as canceled.

        Returns:
            Whether it was there to be asked.
        """
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        self._instance.report_run_canceling(run)
        worker = self._wait_for_worker(run)
        if worker is not None and worker.interrupt():
            return True
        self._instance.report_engine_event(
            message=f"The process of this run is not on {socket.gethostname()}; nothing was stopped."
            if worker is not None and not worker.is_here
            else "The process of this run is gone; there is nothing to stop.",
            dagster_run=run,
            cls=self.__class__,
        )
        return False

    @property
    def supports_check_run_worker_health(self) -> bool:
        """It does: a run outlives the daemon that launched it, and the next daemon must see how it fares."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Whether the run's process is there. One of another machine, or of another launcher, is believed to be."""
        worker = Worker.of_run(run)
        if worker is None or worker.is_alive or not worker.is_here:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(
            WorkerStatus.NOT_FOUND, msg=f"Its process {worker.process_id} is gone without a word."
        )

    def dispose(self) -> None:
        """Let the nurseries end with their last runs."""
        with self._lock:
            for nursery in self._nurseries.values():
                nursery.retire()
            self._nurseries.clear()

    def _fork(self, python: str, run_id: str, arguments: str) -> None:
        """Fork from the nursery, or from a new one where that one has old code or is gone."""
        for is_last_try in (False, True):
            with self._lock:
                nursery = self._nurseries.get(python)
                if nursery is None:
                    nursery = self._nurseries[python] = NurseryProcess(
                        python, self._preload, serialize_value(self._instance.get_ref()), self._report_end
                    )
            try:
                nursery.fork(run_id, arguments)
            except Refused as refusal:
                self._drop(python, nursery)
                if is_last_try:
                    raise
                log.info("A new nursery is started: %s.", refusal)
            except TimeoutError as error:
                # It may still fork, so nobody else may start this run: it ends here.
                self._drop(python, nursery)
                raise _failed(
                    f"No process came up for run {run_id} within {FORK_DEADLINE_SECONDS} s. Launch it again."
                ) from error
            else:
                return

    def _drop(self, python: str, nursery: NurseryProcess) -> None:
        nursery.retire()
        with self._lock:
            if self._nurseries.get(python) is nursery:
                del self._nurseries[python]

    def _start_fresh(self, python: str, run_id: str, arguments: ExecuteRunArgs) -> None:
        """Start a fresh interpreter for a run, and wait for its end aside."""
        # In the environment, not on the command line: the instance's reference may hold a password.
        packed = base64.b64encode(zlib.compress(serialize_value(arguments).encode())).decode()
        process = subprocess.Popen(
            [python, "-m", "dagster", "api", "execute_run"],
            env={**os.environ, "DAGSTER_COMPRESSED_EXECUTE_RUN_ARGS": packed},
            stdin=subprocess.DEVNULL,
        )
        Worker.of(process.pid).write_down(self._instance, run_id)

        def wait() -> None:
            self._report_end(run_id, process.wait())

        threading.Thread(target=wait, name=f"run-{run_id[:8]}", daemon=True).start()

    def _wait_for_worker(self, run: DagsterRun) -> Worker | None:
        """The run's process; one that is just starting writes itself down in a moment."""
        deadline = time.monotonic() + WRITTEN_DEADLINE_SECONDS
        worker = Worker.of_run(run)
        while worker is None and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
            current = self._instance.get_run_by_id(run.run_id)
            if current is None or current.is_finished:
                break
            worker = Worker.of_run(current)
        return worker

    def _report_end(self, run_id: str, code: int) -> None:
        """Fail a run whose process ended before the run did."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return
        ended = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        message = f"The process of this run {ended} before the run was done. Launch it again."
        if run.status == DagsterRunStatus.CANCELING:
            self._instance.report_run_canceled(run, message)
        else:
            self._instance.report_run_failed(run, message)


def _failed(sentence: str) -> DagsterLaunchFailedError:
    return DagsterLaunchFailedError(sentence)  # type: ignore[no-untyped-call]
