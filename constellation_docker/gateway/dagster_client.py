"""A small typed client for Dagster's GraphQL, and the reference for backends in other languages.

It sees to what Dagster does not: a launch for a partition that does not exist "succeeds" there and fails
when it runs, so `package` and `deploy` add the partition first; and an unknown partitions definition
answers "unauthorized". The operations that it sends stand in `dagster_operations`, and in docs/graphql.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from constellation_docker.errors import ConstellationError
from constellation_docker.gateway import dagster_operations as operations
from constellation_docker.gateway.graphql import DagsterUnavailable, GraphQL
from constellation_docker.run_tags import PARTITION

__all__ = ["DagsterClient", "DagsterUnavailable", "LaunchRefused", "LogEntry", "Run", "RunSelection"]

LOCATION = "constellation_docker"
REPOSITORY = "__repository__"
TERMINAL = frozenset({"SUCCESS", "FAILURE", "CANCELED"})


class LaunchRefused(ConstellationError):
    """Dagster did not start the run, or would have started one that cannot succeed."""

    code = "launch_refused"


@dataclass(frozen=True)
class Run:
    """A run as its storage knows it. Times are seconds since 1970, or None where it has not come so far."""

    run_id: str
    job: str
    status: str
    tags: Mapping[str, str]
    created_at: float | None
    started_at: float | None
    ended_at: float | None

    @property
    def has_ended(self) -> bool:
        """Whether its status will not change any more."""
        return self.status in TERMINAL


@dataclass(frozen=True)
class RunSelection:
    """Which runs are meant, newest first.

    Args:
        tags: Tags that must all match; a key can have one value only, as the webserver takes the last one given.
        statuses: Only runs in one of these statuses; empty: in any.
        job: Only runs of this job.
        updated_after: Only runs that changed after this time, in seconds since 1970.
        limit: Most runs.
    """

    tags: Mapping[str, str] = field(default_factory=dict)
    statuses: Sequence[str] = ()
    job: str | None = None
    updated_after: float | None = None
    limit: int = 25

    def filter(self) -> dict[str, Any]:
        """The selection as the webserver's `RunsFilter`."""
        wanted: dict[str, Any] = {"tags": [{"key": key, "value": value} for key, value in self.tags.items()]}
        if self.statuses:
            wanted["statuses"] = list(self.statuses)
        if self.job is not None:
            wanted["pipelineName"] = self.job
        if self.updated_after is not None:
            wanted["updatedAfter"] = self.updated_after
        return wanted


@dataclass(frozen=True)
class LogEntry:
    """One event of a run's log."""

    kind: str
    message: str
    level: str
    step: str | None
    raw: Mapping[str, Any]


class DagsterClient:
    """Launches, reads and ends runs of the code location over GraphQL.

    Args:
        url: The webserver's address, such as `http://127.0.0.1:3000`.
        timeout_seconds: Longest for one call in all; a webserver that hangs or trickles costs no more than this.
    """

    def __init__(self, url: str, *, timeout_seconds: float = 15) -> None:
        self.url = url.rstrip("/")
        self._graphql = GraphQL(self.url, timeout_seconds=timeout_seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._graphql.close()

    def is_ready(self) -> bool:
        """Whether the webserver has loaded the code location and every daemon that is required is alive."""
        answer = self._query(operations.READINESS, {})
        daemons = answer["instance"]["daemonHealth"]["allDaemonStatuses"]
        return _has_loaded(answer) and all(daemon["healthy"] for daemon in daemons if daemon["required"])

    def has_loaded(self) -> bool:
        """Whether the webserver has loaded the code location, so that runs can be launched and read."""
        return _has_loaded(self._query(operations.READINESS, {}))

    def add_partition(self, definition: str, key: str) -> None:
        """Add a dynamic partition; one that is there already is fine.

        Args:
            definition: `model_versions` or `models`.
            key: The partition's key.

        Raises:
            LaunchRefused: There is no such partitions definition.
            DagsterUnavailable: No answer, or an error inside Dagster.
        """
        variables = {"repository": self._selector(), "definition": definition, "key": key}
        _check_added(self._query(operations.ADD_PARTITION, variables)["addDynamicPartition"], definition, key)

    def package(self, key: str, *, tags: Mapping[str, str] | None = None) -> str:
        """Package a model version, adding its partition first, and return the run's id.

        Args:
            key: `name@version`, as in the card store.
            tags: Further tags for the run.
        """
        return self.launch("package_model", partition=key, tags=tags, adding=("model_versions", key))

    def deploy(
        self,
        environment: str,
        model: str,
        *,
        config: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> str:
        """Deploy a model to an environment and return the run's id.

        Args:
            environment: The environment's name.
            model: The model's name, without its version.
            config: What to deploy, such as `{"version": "1.0.0", "replicas": 2}`; empty for what is wanted
                already, or the newest published version.
            tags: Further tags for the run.
        """
        run_config = {"ops": {"deployment": {"config": dict(config)}}} if config else {}
        return self.launch(
            "deploy_model",
            partition=f"{environment}|{model}",
            run_config=run_config,
            tags=tags,
            adding=("models", model),
        )

    def launch(
        self,
        job: str,
        *,
        partition: str | None = None,
        run_config: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        adding: tuple[str, str] | None = None,
    ) -> str:
        """Launch a job and return the run's id.

        Args:
            job: `package_model`, `deploy_model`, `delete_model`, `pull_image` or `push_image`.
            partition: `name@version` for packaging, `environment|name` for deploying, none for the others.
                It must exist: see `adding`, and `add_partition`.
            run_config: Configuration of the job's ops.
            tags: Further tags for the run, such as `constellation/requested_by`.
            adding: A partitions definition and the key that is added to it in the same call, before the launch.

        Raises:
            LaunchRefused: Dagster refused the job, its configuration or the partition.
            DagsterUnavailable: No answer, or an error inside Dagster.
        """
        all_tags = dict(tags or {}) | ({PARTITION: partition} if partition else {})
        execution = {
            "selector": {
                "repositoryLocationName": LOCATION,
                "repositoryName": REPOSITORY,
                "pipelineName": job,
            },
            "mode": "default",
            "runConfigData": run_config or {},
            "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in all_tags.items()]},
        }
        answer = self._launch(execution, adding)
        if answer["__typename"] == "LaunchRunSuccess":
            return str(answer["run"]["runId"])
        reasons = "; ".join(error["message"] for error in answer.get("errors", [])) or answer.get(
            "message", ""
        )
        if answer["__typename"] == "PythonError":
            raise DagsterUnavailable(
                f"Dagster could not launch {job}.", remedy="Look into the webserver's log."
            )
        raise LaunchRefused(
            f"Dagster refused to launch {job}: {reasons}", remedy="Correct the launch; see docs/graphql.md."
        )

    def _launch(self, execution: Mapping[str, Any], adding: tuple[str, str] | None) -> dict[str, Any]:
        if adding is None:
            answer: dict[str, Any] = self._query(operations.LAUNCH, {"execution": execution})["launchRun"]
            return answer
        definition, key = adding
        variables = {"repository": self._selector(), "definition": definition, "key": key}
        answers = self._query(operations.ADD_AND_LAUNCH, variables | {"execution": execution})
        answer = answers["launchRun"]
        try:
            _check_added(answers["addDynamicPartition"], definition, key)
        except LaunchRefused:
            # Dagster launches all the same, and the run would fail for want of its partition.
            if answer["__typename"] == "LaunchRunSuccess":
                self.terminate(str(answer["run"]["runId"]))
            raise
        return answer

    def run(self, run_id: str) -> Run | None:
        """One run by its id."""
        answer = self._query(operations.RUN, {"id": run_id})["runOrError"]
        return _run(answer) if answer["__typename"] == "Run" else None

    def runs(
        self,
        tags: Mapping[str, str],
        *,
        statuses: Sequence[str] = (),
        limit: int = 25,
        cursor: str | None = None,
    ) -> list[Run]:
        """Runs that carry all these tags, newest first.

        Args:
            tags: Tags that must match, such as `{"constellation/model_id": "…"}`.
            statuses: Only runs in one of these statuses.
            limit: Most runs.
            cursor: The id of the last run of the page before.
        """
        selection = RunSelection(tags, statuses).filter()
        answer = self._query(operations.RUNS, {"filter": selection, "limit": limit, "cursor": cursor})[
            "runsOrError"
        ]
        return _found(answer)

    def several_runs(self, selections: Sequence[RunSelection]) -> list[list[Run]]:
        """The runs of several selections, in one call: a page of statuses costs one round trip.

        Args:
            selections: Which runs; at most a few hundred.

        Returns:
            For each selection its runs, newest first.
        """
        if not selections:
            return []
        variables: dict[str, Any] = {}
        for number, selection in enumerate(selections):
            variables |= {f"filter{number}": selection.filter(), f"limit{number}": selection.limit}
        answer = self._query(operations.render_several_runs(len(selections)), variables)
        return [_found(answer[f"runs{number}"]) for number in range(len(selections))]

    def logs(
        self, run_id: str, *, cursor: str | None = None, limit: int = 1000
    ) -> tuple[list[LogEntry], str | None]:
        """A run's log after a cursor, and the cursor to go on from."""
        answer = self._query(operations.LOGS, {"id": run_id, "cursor": cursor, "limit": limit})["logsForRun"]
        if answer["__typename"] != "EventConnection":
            return [], cursor
        entries = [
            LogEntry(
                kind=event["__typename"],
                message=event.get("message") or "",
                level=event.get("level") or "",
                step=event.get("stepKey"),
                raw=event,
            )
            for event in answer["events"]
        ]
        return entries, answer["cursor"]

    def terminate(self, run_id: str) -> None:
        """Ask a run to end; its build stops on the engine, too.

        Raises:
            LaunchRefused: There is no such run, or it has ended.
        """
        answer = self._query(operations.TERMINATE, {"id": run_id})["terminateRun"]
        if answer["__typename"] != "TerminateRunSuccess":
            raise LaunchRefused(
                f"The run {run_id} cannot be ended: {answer.get('message', answer['__typename'])}",
                remedy="It may have ended already.",
            )

    def _query(self, document: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        return self._graphql.ask(document, variables)

    @staticmethod
    def _selector() -> dict[str, str]:
        return {"repositoryLocationName": LOCATION, "repositoryName": REPOSITORY}


def _found(answer: Mapping[str, Any]) -> list[Run]:
    if answer["__typename"] != "Runs":
        raise DagsterUnavailable("Dagster could not list runs.", remedy="Look into the webserver's log.")
    return [_run(result) for result in answer["results"]]


def _run(answer: Mapping[str, Any]) -> Run:
    return Run(
        run_id=answer["runId"],
        job=answer["jobName"],
        status=answer["status"],
        tags={tag["key"]: tag["value"] for tag in answer["tags"]},
        created_at=answer["creationTime"],
        started_at=answer["startTime"],
        ended_at=answer["endTime"],
    )


def _check_added(answer: Mapping[str, Any], definition: str, key: str) -> None:
    if answer["__typename"] not in {"AddDynamicPartitionSuccess", "DuplicateDynamicPartitionError"}:
        raise LaunchRefused(
            f"The partition {key!r} could not be added to {definition}: {answer.get('message', answer['__typename'])}",
            remedy="Check the name of the partitions definition, and that the webserver is not read-only.",
        )


def _has_loaded(answer: Mapping[str, Any]) -> bool:
    nodes = answer["repositoriesOrError"].get("nodes", [])
    return any(node["location"]["name"] == LOCATION for node in nodes)
