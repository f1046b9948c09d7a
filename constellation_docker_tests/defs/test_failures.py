"""What a failed step leaves in its run's tags, and what a step that succeeded at last takes away again."""

import dagster as dg
import pytest
from dagster._core.errors import DagsterExecutionInterruptedError

from constellation_docker.defs import failures, tags
from constellation_docker.defs.failures import explained
from constellation_docker.engine import EngineUnreachable


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pause between tries."""
    monkeypatch.setattr(failures, "FIRST_PAUSE_SECONDS", 0.0)


def run_with(unreachable: int) -> tuple[dg.ExecuteInProcessResult, str | None]:
    """A step that finds no engine so many times; its result, and what its run says of the reason afterwards."""

    @dg.op
    def building(context: dg.OpExecutionContext) -> None:
        with explained(context, "sentiment@1", "building the image"):
            if context.retry_number < unreachable:
                raise EngineUnreachable("no Docker engine at unix:///nowhere.sock.", remedy="Start it.")

    @dg.job
    def some_job() -> None:
        building()

    with dg.DagsterInstance.ephemeral() as instance:
        result = some_job.execute_in_process(instance=instance, raise_on_error=False)
        run = instance.get_run_by_id(result.run_id)
        return result, run.tags.get(tags.IS_TRANSIENT) if run else None


def test_a_step_that_fails_for_a_passing_reason_marks_its_run() -> None:
    result, mark = run_with(unreachable=3)
    assert not result.success
    assert mark == "true"
    (failed,) = [event for event in result.all_events if event.is_step_failure]
    reason = failed.step_failure_data.user_failure_data
    assert reason is not None, "the last try ends with its own sentence"
    assert "sentiment@1, building the image: no Docker engine" in str(reason.description)


def test_a_step_that_succeeds_when_it_is_tried_again_takes_its_mark_away() -> None:
    """Otherwise a later step's failure, for good, would be taken for one that passes and be tried again."""
    result, mark = run_with(unreachable=1)
    assert result.success
    assert mark == "false"


def test_a_step_that_succeeds_at_once_marks_nothing() -> None:
    result, mark = run_with(unreachable=0)
    assert result.success
    assert mark is None


def test_an_interrupted_step_is_not_tried_again() -> None:
    """A cancelled build began anew under Dagster's retry policy, and its run could not be cancelled."""
    tries = []

    @dg.op
    def building(context: dg.OpExecutionContext) -> None:
        with explained(context, "sentiment@1", "building the image"):
            tries.append(context.retry_number)
            raise DagsterExecutionInterruptedError

    @dg.job
    def some_job() -> None:
        building()

    with dg.DagsterInstance.ephemeral() as instance:
        assert not some_job.execute_in_process(instance=instance, raise_on_error=False).success
    assert tries == [0]
