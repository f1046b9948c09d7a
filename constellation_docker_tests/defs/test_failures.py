"""What a failed step leaves in its run's tags, and what a step that succeeded at last takes away again."""

import dagster as dg

from constellation_docker.defs import tags
from constellation_docker.defs.failures import explained
from constellation_docker.engine import EngineUnreachable

AT_ONCE = dg.RetryPolicy(max_retries=1, delay=0)


def run_with(failures: int) -> tuple[dg.ExecuteInProcessResult, str | None]:
    """A step that finds no engine so many times; its result, and what its run says of the reason afterwards."""

    @dg.op(retry_policy=AT_ONCE)
    def building(context: dg.OpExecutionContext) -> None:
        with explained(context, "sentiment@1", "building the image"):
            if context.retry_number < failures:
                raise EngineUnreachable("no Docker engine at unix:///nowhere.sock.", remedy="Start it.")

    @dg.job
    def some_job() -> None:
        building()

    with dg.DagsterInstance.ephemeral() as instance:
        result = some_job.execute_in_process(instance=instance, raise_on_error=False)
        run = instance.get_run_by_id(result.run_id)
        return result, run.tags.get(tags.IS_TRANSIENT) if run else None


def test_a_step_that_fails_for_a_passing_reason_marks_its_run() -> None:
    result, mark = run_with(failures=2)
    assert not result.success
    assert mark == "true"


def test_a_step_that_succeeds_when_it_is_tried_again_takes_its_mark_away() -> None:
    """Otherwise a later step's failure, for good, would be taken for one that passes and be tried again."""
    result, mark = run_with(failures=1)
    assert result.success
    assert mark == "false"


def test_a_step_that_succeeds_at_once_marks_nothing() -> None:
    result, mark = run_with(failures=0)
    assert result.success
    assert mark is None
