"""The GraphQL operations that `dagster_client` sends. A test compares them with docs/graphql.md."""

from __future__ import annotations

ADD_PARTITION = """
mutation AddPartition($repository: RepositorySelector!, $definition: String!, $key: String!) {
  addDynamicPartition(repositorySelector: $repository, partitionsDefName: $definition, partitionKey: $key) {
    __typename
    ... on PythonError { message }
    ... on UnauthorizedError { message }
  }
}"""

LAUNCH = """
mutation Launch($execution: ExecutionParams!) {
  launchRun(executionParams: $execution) {
    __typename
    ... on LaunchRunSuccess { run { runId status } }
    ... on RunConfigValidationInvalid { errors { message } }
    ... on PipelineNotFoundError { message }
    ... on UnauthorizedError { message }
    ... on PythonError { message }
  }
}"""

ADD_AND_LAUNCH = """
mutation AddAndLaunch($repository: RepositorySelector!, $definition: String!, $key: String!, $execution: ExecutionParams!) {
  addDynamicPartition(repositorySelector: $repository, partitionsDefName: $definition, partitionKey: $key) {
    __typename
    ... on PythonError { message }
    ... on UnauthorizedError { message }
  }
  launchRun(executionParams: $execution) {
    __typename
    ... on LaunchRunSuccess { run { runId status } }
    ... on RunConfigValidationInvalid { errors { message } }
    ... on PipelineNotFoundError { message }
    ... on UnauthorizedError { message }
    ... on PythonError { message }
  }
}"""

RUN = """
query Run($id: ID!) {
  runOrError(runId: $id) {
    __typename
    ... on Run { runId status jobName creationTime startTime endTime tags { key value } }
  }
}"""

RUNS = """
query Runs($filter: RunsFilter!, $limit: Int, $cursor: String) {
  runsOrError(filter: $filter, limit: $limit, cursor: $cursor) {
    __typename
    ... on Runs { results { runId status jobName creationTime startTime endTime tags { key value } } }
    ... on PythonError { message }
  }
}"""

FOUND_RUNS = """
fragment Found on RunsOrError {
  __typename
  ... on Runs { results { runId status jobName creationTime startTime endTime tags { key value } } }
  ... on PythonError { message }
}"""

LOGS = """
query Logs($id: ID!, $cursor: String, $limit: Int) {
  logsForRun(runId: $id, afterCursor: $cursor, limit: $limit) {
    __typename
    ... on EventConnection {
      cursor
      hasMore
      events {
        __typename
        ... on MessageEvent { message timestamp level stepKey }
        ... on ExecutionStepFailureEvent {
          error { message }
          failureMetadata { metadataEntries { label ... on TextMetadataEntry { text } ... on MarkdownMetadataEntry { mdStr } } }
        }
        ... on AssetCheckEvaluationEvent { evaluation { checkName success description assetKey { path } } }
      }
    }
  }
}"""

TERMINATE = """
mutation Terminate($id: String!) {
  terminateRun(runId: $id, terminatePolicy: SAFE_TERMINATE) {
    __typename
    ... on TerminateRunFailure { message }
    ... on RunNotFoundError { message }
    ... on PythonError { message }
  }
}"""

READINESS = """
query Readiness {
  repositoriesOrError { __typename ... on RepositoryConnection { nodes { name location { name } } } }
  instance { daemonHealth { allDaemonStatuses { daemonType required healthy } } }
}"""


def render_several_runs(count: int) -> str:
    """One query that asks for the runs of several filters."""
    variables = ", ".join(f"$filter{number}: RunsFilter!, $limit{number}: Int" for number in range(count))
    fields = "\n".join(
        f"  runs{number}: runsOrError(filter: $filter{number}, limit: $limit{number}) {{ ...Found }}"
        for number in range(count)
    )
    return f"\nquery SeveralRuns({variables}) {{\n{fields}\n}}{FOUND_RUNS}"
