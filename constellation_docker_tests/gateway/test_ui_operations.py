"""Reading GraphQL before it is passed on: what changes something, what it reaches, in whose name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from constellation_docker.gateway.access.permissions import Action
from constellation_docker.gateway.ui_operations import UnreadableOperation, read_operation, stamp_requester
from constellation_docker.gateway.ui_permissions import demands_of, settle_run

LAUNCH = "mutation Launch($p: ExecutionParams!) { launchRun(executionParams: $p) { __typename } }"


def launch_of(job: str, *tags: tuple[str, str], assets: tuple[str, ...] = ()) -> dict[str, Any]:
    """The parameters of a launch, as the UI sends them."""
    return {
        "selector": {"pipelineName": job, "assetSelection": [{"path": [name]} for name in assets]},
        "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in tags]},
    }


def demanded(query: str, **variables: Any) -> list[tuple[str, str | None]]:
    operation = read_operation({"query": query, "variables": variables})
    return [(item.action.value, item.environment) for item in demands_of(operation.mutations())]


@pytest.mark.parametrize(
    "query",
    [
        "mutation { launchRun { __typename } }",
        "query A { version } mutation B { launchRun { __typename } }",
        "mutation { renamed: launchRun { __typename } }",
        "mutation { ...Hidden } fragment Hidden on Mutation { launchRun { __typename } }",
        "mutation { ... on Mutation { launchRun { __typename } } }",
        "mutation { ... @include(if: true) { launchRun { __typename } } }",
        "# query\n,,,mutation{launchRun{__typename}}",
        "\ufeffmutation { launchRun { __typename } }",
    ],
)
def test_a_mutation_is_found_wherever_it_stands(query: str) -> None:
    operation = read_operation({"query": query, "operationName": "A"})
    assert operation.is_mutation
    assert [item.field for item in operation.mutations()] == ["launchRun"]


@pytest.mark.parametrize(
    "query",
    [
        "{ version }",
        "query mutation { version }",
        "subscription { locationStateChangeEvents { __typename } }",
    ],
)
def test_a_question_is_none(query: str) -> None:
    assert not read_operation({"query": query}).is_mutation


@pytest.mark.parametrize(
    "content",
    [
        [{"query": "{ version }"}, {"query": "mutation { launchRun { __typename } }"}],
        {"extensions": {"persistedQuery": {"version": 1, "sha256Hash": "00"}}},
        {"query": None},
        {"query": ["{ version }"]},
        {"query": "{ version }", "variables": [1]},
        {"query": "{ version }", "variables": "[1"},
        {"query": "{ version }", "operationName": {"a": 1}},
        {"query": "{ version"},
        {"query": "{" + "a{" * 30_000},
        {"query": "{ " + "a " * 30_000 + "}"},
        "mutation",
        None,
    ],
)
def test_what_cannot_be_understood_is_not_passed_on(content: Any) -> None:
    with pytest.raises(UnreadableOperation):
        read_operation(content)


@pytest.mark.parametrize(
    ("launch", "expected"),
    [
        (launch_of("package_model", ("dagster/partition", "a@1")), [("register", None)]),
        (launch_of("pull_image"), [("pull_image", None)]),
        (launch_of("push_image"), [("push_image", None)]),
        (launch_of("delete_model"), [("change_in_ui", None)]),
        (launch_of("something_else"), [("change_in_ui", None)]),
        (launch_of("deploy_model", ("dagster/partition", "dev|a")), [("deploy", "dev")]),
        (launch_of("deploy_model"), [("change_in_ui", None)]),
        # Dagster believes the dimension's tag more than the partition's.
        (
            launch_of(
                "deploy_model",
                ("dagster/partition", "dev|a"),
                ("dagster/partition/environment", "production"),
            ),
            [("deploy", "dev"), ("deploy", "production")],
        ),
        (
            launch_of("deploy_model", ("dagster/partition", "dev|a"), ("dagster/partition", "production|a")),
            [("deploy", "dev"), ("deploy", "production")],
        ),
        (
            launch_of(
                "deploy_model",
                ("dagster/partition", "dev|a"),
                ("dagster/asset_partition_range_start", "dev|a"),
            ),
            [("change_in_ui", None)],
        ),
        (
            launch_of("__ASSET_JOB", ("dagster/partition", "production|a"), assets=("deployment",)),
            [("deploy", "production")],
        ),
        (
            launch_of("__ASSET_JOB", ("dagster/partition", "a@1"), assets=("model_card", "model_image")),
            [("register", None)],
        ),
        (
            launch_of("__ASSET_JOB", ("dagster/partition", "dev"), assets=("compose_file",)),
            [("deploy", "dev")],
        ),
        (launch_of("__ASSET_JOB", ("dagster/partition", "dev|a")), [("change_in_ui", None)]),
        (
            launch_of("__ASSET_JOB", ("dagster/partition", "dev|a"), assets=("model_card", "deployment")),
            [("change_in_ui", None)],
        ),
        ("nonsense", [("change_in_ui", None)]),
        ({"selector": 5, "executionMetadata": 7}, [("change_in_ui", None)]),
        (None, [("change_in_ui", None)]),
    ],
)
def test_a_launch_needs_the_right_that_the_same_thing_needs_over_rest(
    launch: Any, expected: list[tuple[str, str | None]]
) -> None:
    assert demanded(LAUNCH, p=launch) == expected


def test_each_of_several_launches_is_asked_for() -> None:
    query = "mutation($p: [ExecutionParams!]!) { launchMultipleRuns(executionParamsList: $p) { __typename } }"
    launches = [launch_of("package_model"), launch_of("deploy_model", ("dagster/partition", "production|a"))]
    assert demanded(query, p=launches) == [("register", None), ("deploy", "production")]
    assert demanded(query, p=launches[0]) == [("register", None)]


@pytest.mark.parametrize(
    ("backfill", "expected"),
    [
        (
            {"assetSelection": [{"path": ["deployment"]}], "partitionNames": ["dev|a", "production|a"]},
            [("deploy", "dev"), ("deploy", "production")],
        ),
        ({"assetSelection": [{"path": ["model_card"]}], "partitionNames": ["a@1"]}, [("register", None)]),
        ({"assetSelection": [{"path": ["deployment"]}], "allPartitions": True}, [("change_in_ui", None)]),
        (
            {
                "assetSelection": [{"path": ["deployment"]}],
                "partitionNames": ["dev|a"],
                "allPartitions": True,
            },
            [("change_in_ui", None)],
        ),
        ({"partitionNames": ["dev|a"]}, [("change_in_ui", None)]),
    ],
)
def test_a_bulk_launch_needs_the_right_in_every_environment_that_it_names(
    backfill: dict[str, Any], expected: list[tuple[str, str | None]]
) -> None:
    query = (
        "mutation($p: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $p) { __typename } }"
    )
    assert demanded(query, p=backfill) == expected


@pytest.mark.parametrize(
    "query",
    [
        'mutation { deleteRun(runId: "x") { __typename } }',
        "mutation { wipeAssets(assetPartitionRanges: []) { __typename } }",
        "mutation { somethingNew { __typename } }",
        'mutation { reexecutePartitionBackfill(reexecutionParams: {parentRunId: "x"}) { __typename } }',
        "mutation { terminateRuns(runIds: []) { __typename } }",
    ],
)
def test_what_no_call_of_ours_does_needs_the_right_to_change_everything(query: str) -> None:
    assert demanded(query) == [("change_in_ui", None)]


def test_ending_or_repeating_a_run_needs_the_right_where_that_run_works() -> None:
    ending, repeating = (
        demands_of(read_operation({"query": query, "variables": {}}).mutations())
        for query in (
            'mutation { terminateRun(runId: "7") { __typename } }',
            'mutation { launchRunReexecution(reexecutionParams: {parentRunId: "7", strategy: ALL_STEPS}) { __typename } }',
        )
    )
    tags = {"dagster/partition": "production|a"}
    assert [(ending[0].action, ending[0].run_id)] == [(Action.CANCEL, "7")]

    def settled(demand: Any, job: str | None, tags: dict[str, str]) -> list[tuple[str, str | None]]:
        return [(item.action.value, item.environment) for item in settle_run(demand, job, tags)]

    assert settled(ending[0], "deploy_model", tags) == [("cancel", "production")]
    assert settled(repeating[0], "deploy_model", tags) == [("deploy", "production")]
    assert settled(ending[0], "package_model", {"dagster/partition": "a@1"}) == [("cancel", None)]
    assert settled(repeating[0], "package_model", {"dagster/partition": "a@1"}) == [("register", None)]
    assert settled(repeating[0], "delete_model", {"dagster/partition": "a@1"}) == [("change_in_ui", None)]
    assert settled(ending[0], None, {}) == [("change_in_ui", None)]


def test_a_repetition_with_another_partition_cannot_pass_as_the_former_one() -> None:
    query = "mutation($p: ReexecutionParams) { launchRunReexecution(reexecutionParams: $p) { __typename } }"
    forged = {
        "parentRunId": "7",
        "extraTags": {"key": "dagster/partition/environment", "value": "production"},
    }
    assert demanded(query, p=forged) == [("change_in_ui", None)]


@pytest.mark.parametrize(
    ("query", "variables", "place"),
    [
        (LAUNCH, {"p": launch_of("package_model", ("constellation/requested_by", "somebody else"), ("a", "b"))}, ("p", "executionMetadata", "tags")),
        (LAUNCH, {"p": {"selector": {}}}, ("p", "executionMetadata", "tags")),
        (
            "mutation($p: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $p) { __typename } }",
            {"p": {"tags": {"key": "constellation/requested_by", "value": "somebody else"}}},
            ("p", "tags"),
        ),
        (
            "mutation($p: ReexecutionParams) { x: launchRunReexecution(reexecutionParams: $p) { __typename } }",
            {"p": {"parentRunId": "7"}},
            ("p", "extraTags"),
        ),
    ],
)  # fmt: skip
def test_every_launch_carries_who_asked_for_it_and_nobody_else(
    query: str, variables: dict[str, Any], place: tuple[str, ...]
) -> None:
    operation = read_operation({"query": query, "variables": variables})
    stamp_requester(operation, "maria")
    found: Any = json.loads(operation.body())["variables"]
    for name in place:
        found = found[name]
    named = [tag["value"] for tag in found if tag["key"] == "constellation/requested_by"]
    assert named == ["maria"]


@pytest.mark.parametrize(
    ("query", "variables"),
    [
        ('mutation { launchRun(executionParams: {selector: {pipelineName: "package_model"}}) { __typename } }', {}),
        (LAUNCH, {}),
        (LAUNCH, {"p": []}),
        ("mutation($p: ExecutionParams = {mode: \"a\"}) { launchRun(executionParams: $p) { __typename } }", {}),
        ("mutation($s: X) { launchRun(executionParams: {selector: $s}) { __typename } }", {"s": {}}),
        ("mutation($p: [ExecutionParams!]!) { launchMultipleRuns(executionParamsList: $p) { __typename } }", {"p": [{}, 1]}),
    ],
)  # fmt: skip
def test_a_launch_that_cannot_be_stamped_is_not_passed_on(query: str, variables: dict[str, Any]) -> None:
    with pytest.raises(UnreadableOperation, match="from a variable"):
        stamp_requester(read_operation({"query": query, "variables": variables}), "maria")
