"""Runs that are forked from a warm process: they run, stop, die and meet new code as those of a fresh one do."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from dagster import DagsterEvent, DagsterEventType, DagsterInstance, DagsterRun, DagsterRunStatus
from dagster._core.definitions.reconstruct import ReconstructableJob
from dagster._core.launcher import LaunchRunContext, WorkerStatus
from dagster._core.storage.dagster_run import RunRecord, RunsFilter
from dagster._daemon.monitoring.run_monitoring import monitor_started_run

from constellation_docker.defs.launching import QuickRunCoordinator, WarmRunLauncher
from constellation_docker.defs.launching.preloaded import PRELOADED
from constellation_docker_tests.fixtures.deadline import wait_for

ROOT = Path(__file__).resolve().parents[2]

JOBS = """\
import os, time
from pathlib import Path

import dagster as dg

HERE = Path(__file__).parent


@dg.op
def greet(context):
    import greeting
    (HERE / "greetings").open("a").write(f"{greeting.TEXT} {os.getpid()} {os.getppid()}\\n")


@dg.op
def linger(context):
    (HERE / "lingering").write_text("")
    try:
        time.sleep(120)
    finally:
        (HERE / "tidied").write_text("")


@dg.job(executor_def=dg.in_process_executor)
def greets():
    greet()


@dg.job(executor_def=dg.in_process_executor)
def lingers():
    linger()
"""


@dataclass
class Workplace:
    """An instance with our launcher, and a file with jobs.

    Attributes:
        instance: The instance.
        path: Where the jobs lie, and what they write.
    """

    instance: DagsterInstance
    path: Path

    @property
    def launcher(self) -> WarmRunLauncher:
        assert isinstance(self.instance.run_launcher, WarmRunLauncher)
        return self.instance.run_launcher

    def launch(self, job: str) -> str:
        """Launch a job as the queue's daemon does; what earlier runs wrote is gone."""
        for name in ("lingering", "tidied"):
            (self.path / name).unlink(missing_ok=True)
        recon = ReconstructableJob.for_file(str(self.path / "jobs.py"), job)
        run = self.instance.create_run_for_job(
            recon.get_definition(), job_code_origin=recon.get_python_origin()
        )
        self.instance.report_dagster_event(
            DagsterEvent(DagsterEventType.PIPELINE_STARTING.value, job), run_id=run.run_id
        )
        self.launcher.launch_run(LaunchRunContext(self.run(run.run_id), workspace=None))
        return run.run_id

    def run(self, run_id: str) -> DagsterRun:
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return run

    def ended(self, run_id: str) -> DagsterRun:
        wait_for(lambda: self.run(run_id).is_finished, seconds=90, what="the end of the run")
        return self.run(run_id)

    def process_of(self, run_id: str) -> int:
        """The process that the run's log names."""
        return int(re.findall(r"Started process for run \(pid: (\d+)\)", self.log(run_id))[0])

    def log(self, run_id: str) -> str:
        return "\n".join(entry.message for entry in self.instance.all_logs(run_id))

    def greetings(self) -> list[tuple[str, int, int]]:
        """What the runs of `greets` wrote: the text, their process and its parent."""
        lines = [line.split() for line in (self.path / "greetings").read_text().splitlines()]
        return [(text, int(process), int(parent)) for text, process, parent in lines]

    def wait_until_lingering(self) -> None:
        wait_for((self.path / "lingering").exists, seconds=90, what="the step of the run")


def make_workplace(path: Path, *preload: str) -> Workplace:
    """An instance as `dagster.yaml` says, but with the modules that the test wants in the nursery."""
    (path / "jobs.py").write_text(JOBS)
    (path / "greeting.py").write_text('TEXT = "hello"\n')
    config = yaml.safe_load((ROOT / "dagster.yaml").read_text())
    config["run_launcher"]["config"] = {"preload": ["dagster._cli.api", *preload]}
    (path / "home").mkdir()
    (path / "home" / "dagster.yaml").write_text(yaml.safe_dump(config))
    return Workplace(DagsterInstance.from_config(str(path / "home")), path)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    """One for all tests that change no code."""
    path = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{path}:{ROOT}")
        place = make_workplace(path)
        with place.instance:
            yield place


@pytest.fixture
def greeting_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workplace]:
    """One whose nursery has imported the module `greeting`."""
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    place = make_workplace(tmp_path, "greeting")
    with place.instance:
        yield place


def test_runs_are_forked_from_one_process_and_each_has_its_own(place: Workplace) -> None:
    for _ in range(2):
        run_id = place.launch("greets")
        assert place.ended(run_id).status == DagsterRunStatus.SUCCESS, place.log(run_id)
    (_, first, parent), (_, second, same_parent) = place.greetings()[-2:]
    assert first != second
    assert parent == same_parent
    assert parent != os.getpid()


def test_a_run_that_is_terminated_ends_what_it_began(place: Workplace) -> None:
    run_id = place.launch("lingers")
    place.wait_until_lingering()
    assert place.launcher.terminate(run_id)
    assert place.ended(run_id).status == DagsterRunStatus.CANCELED
    assert (place.path / "tidied").exists()
    assert not place.launcher.terminate(run_id)


def test_a_run_that_is_killed_fails_at_once_and_says_so(place: Workplace) -> None:
    run_id = place.launch("lingers")
    place.wait_until_lingering()
    os.kill(place.process_of(run_id), signal.SIGKILL)
    assert place.ended(run_id).status == DagsterRunStatus.FAILURE
    assert "was killed by SIGKILL before the run was done" in place.log(run_id)


def test_a_run_whose_launcher_and_nursery_are_gone_goes_on_and_its_death_is_seen_by_the_monitoring(
    place: Workplace,
) -> None:
    run_id = place.launch("lingers")
    place.wait_until_lingering()
    process_id = place.process_of(run_id)
    nursery = int(Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(nursery, signal.SIGKILL)
    wait_for(lambda: not Path(f"/proc/{nursery}/task").exists(), what="the end of the nursery")
    assert place.launcher.check_run_worker_health(place.run(run_id)).status == WorkerStatus.RUNNING

    os.kill(process_id, signal.SIGKILL)
    wait_for(
        lambda: place.launcher.check_run_worker_health(place.run(run_id)).status == WorkerStatus.NOT_FOUND,
        what="the end of the run's process",
    )
    (record,) = place.instance.get_run_records(RunsFilter(run_ids=[run_id]))
    assert isinstance(record, RunRecord)
    monitor_started_run(place.instance, None, record, logging.getLogger("monitoring"))  # type: ignore[arg-type]
    assert place.run(run_id).status == DagsterRunStatus.FAILURE

    run_id = place.launch("greets")
    assert place.ended(run_id).status == DagsterRunStatus.SUCCESS


def test_a_run_after_a_change_of_the_code_works_with_the_new_code(greeting_place: Workplace) -> None:
    place = greeting_place
    place.ended(place.launch("greets"))
    (place.path / "greeting.py").write_text('TEXT = "good-morning"\n')
    place.ended(place.launch("greets"))
    (before, _, parent), (after, _, other_parent) = place.greetings()
    assert (before, after) == ("hello", "good-morning")
    assert parent != other_parent


@pytest.mark.slow
def test_a_run_is_not_forked_where_a_module_started_a_thread_but_runs_all_the_same(
    greeting_place: Workplace,
) -> None:
    place = greeting_place
    (place.path / "greeting.py").write_text(
        'import threading, time\nTEXT = "hello"\nthreading.Thread(target=time.sleep, args=[60], daemon=True).start()\n'
    )
    run_id = place.launch("greets")
    assert place.ended(run_id).status == DagsterRunStatus.SUCCESS, place.log(run_id)
    ((_, _, parent),) = place.greetings()
    assert parent == os.getpid()


def test_a_run_whose_code_cannot_be_loaded_fails_in_its_log_and_the_next_one_runs(
    greeting_place: Workplace,
) -> None:
    place = greeting_place
    (place.path / "greeting.py").write_text("this is not Python\n")
    broken = place.launch("greets")
    assert place.ended(broken).status == DagsterRunStatus.FAILURE
    (place.path / "greeting.py").write_text('TEXT = "hello"\n')
    run_id = place.launch("greets")
    assert place.ended(run_id).status == DagsterRunStatus.SUCCESS, place.log(run_id)


def test_what_is_imported_before_the_fork_reads_no_settings(tmp_path: Path) -> None:
    broken = tmp_path / "settings.toml"
    broken.write_text("no_such_setting = 1\n")
    program = (
        "import importlib, os, sys\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "assert 'constellation_docker.definitions' not in sys.modules\n"
        "assert len(os.listdir('/proc/self/task')) == 1\n"
    )
    subprocess.run(
        [sys.executable, "-c", program, *PRELOADED],
        env={**os.environ, "CONSTELLATION_CONFIG": str(broken)},
        check=True,
        cwd=ROOT,
    )


def test_the_queue_keeps_its_limits_and_is_looked_at_twice_a_second(place: Workplace) -> None:
    instance = place.instance
    assert isinstance(instance.run_coordinator, QuickRunCoordinator)
    assert instance.run_coordinator.dequeue_interval_seconds == 0.5
    queue = instance.get_concurrency_config().run_queue_config
    assert queue is not None
    assert queue.max_concurrent_runs == 10
    assert [limit["key"] for limit in queue.tag_concurrency_limits] == ["dagster/partition"]
