"""Reading what statuses are decided from: for a page of models two queries to the store and at most two to Dagster."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from constellation_docker import run_tags as tags
from constellation_docker.cards import CardStore
from constellation_docker.cards.release_traces import ReleaseTrace
from constellation_docker.cards.rows import DeploymentRow, InvalidRow, ModelRow
from constellation_docker.gateway.dagster_client import DagsterClient, Run, RunSelection
from constellation_docker.gateway.statuses import ServiceFacts, VersionFacts

IN_PROGRESS = ("QUEUED", "NOT_STARTED", "STARTING", "STARTED", "CANCELING")
MOST_DELETIONS = 200
RUNS_PER_PARTITION = 5

FEW_PARTITIONS = 5
"""So many are asked for one by one at once: that is cheaper than to look first at what is in progress."""

LISTED_PER_PARTITION = 5
"""A run in a list costs Dagster no more than a fifth of a selection, so a list that was in vain doubles a page's cost at most."""

MOST_LISTED = 500


def read_facts(
    store: CardStore,
    dagster: DagsterClient,
    rows: Sequence[ModelRow | InvalidRow],
    *,
    is_detailed: bool = False,
) -> list[VersionFacts]:
    """What is known of some model versions.

    Runs are asked for only where they can change the answer: not for what is published, nor for services that have
    reached what is wanted, so a page of healthy models asks Dagster one short question. Where there are many to ask
    for, one list of all runs in progress comes first: where a run works now, former ones decide nothing.

    Args:
        store: What is wanted.
        dagster: What happened.
        rows: The versions.
        is_detailed: Read the runs of everything, for their links and errors.

    Raises:
        StoreUnavailable, DagsterUnavailable: One of them does not answer.
    """
    if not rows:
        return []
    models = _read_models(store, {_name_of(row) for row in rows})
    living = [row for row in rows if row.deleted_at is None]
    partitions = list(
        dict.fromkeys(
            partition
            for row in living
            for partition in _partitions_of_interest(row, models[_name_of(row)], is_detailed=is_detailed)
        )
    )
    known = _Runs()
    if living and len(partitions) > FEW_PARTITIONS and not is_detailed:
        known = _read_in_progress(dagster, len(partitions))
    with_past = {partition for model in models.values() for partition in model.rolled_back()}
    missing = [key for key in partitions if key not in known.by_partition or key in with_past]
    if living:
        known = _read_missing(dagster, missing, known)
    deleting = known.deletions or []
    return [_facts_of(row, models[_name_of(row)], known.by_partition, deleting) for row in rows]


@dataclass
class _Runs:
    """What was read of Dagster's runs.

    Attributes:
        by_partition: The runs of some partitions, newest first: all that decide a status.
        deletions: The deletions in progress; None: not read yet.
    """

    by_partition: dict[str, list[Run]] = field(default_factory=dict)
    deletions: list[Run] | None = None


def _read_in_progress(dagster: DagsterClient, partitions: int) -> _Runs:
    """All runs in progress, by partition; nothing where they are too many to be read at once."""
    limit = min(MOST_LISTED, LISTED_PER_PARTITION * partitions)
    (listed,) = dagster.several_runs([RunSelection(statuses=IN_PROGRESS, limit=limit)])
    if len(listed) == limit:
        # Of a partition's runs the one that has come furthest may be the one that is not in the list.
        return _Runs()
    found = _Runs(deletions=[run for run in listed if run.tags.get(tags.ACTION) == "delete"])
    for run in listed:
        found.by_partition.setdefault(run.tags.get(tags.PARTITION, ""), []).append(run)
    return found


def _read_missing(dagster: DagsterClient, partitions: Collection[str], known: _Runs) -> _Runs:
    """What is known, with the newest runs of further partitions, and the deletions where they were not read yet."""
    selections = [
        RunSelection({tags.PARTITION: partition}, limit=RUNS_PER_PARTITION) for partition in partitions
    ]
    deletions = RunSelection({tags.ACTION: "delete"}, statuses=IN_PROGRESS, limit=MOST_DELETIONS)
    if known.deletions is None:
        deleting, *found = dagster.several_runs([deletions, *selections])
    else:
        deleting, found = known.deletions, dagster.several_runs(selections)
    return _Runs(known.by_partition | dict(zip(partitions, found, strict=True)), deleting)


@dataclass
class _Model:
    """What is wanted of a model, by environment, and what the histories say of its versions."""

    wishes: dict[str, DeploymentRow | InvalidRow] = field(default_factory=dict)
    traces: list[ReleaseTrace] = field(default_factory=list)

    def environments_of(self, row: ModelRow | InvalidRow) -> list[str]:
        """Where a version is wanted, or once was."""
        wanted = {place for place, wish in self.wishes.items() if wish.model_id == row.model_id}
        return sorted(wanted | {trace.environment for trace in self.traces if trace.model_id == row.model_id})

    def rolled_back(self) -> set[str]:
        """The partitions where a version was rolled back: its former run says why, whatever works there now."""
        return {f"{trace.environment}|{trace.model_name}" for trace in self.traces if trace.was_rolled_back}


def _read_models(store: CardStore, names: set[str]) -> dict[str, _Model]:
    models = {name: _Model() for name in names}
    for wish in store.deployments_of_all(names):
        models[wish.model_name].wishes[wish.environment or ""] = wish
    deployed = [name for name, model in models.items() if model.wishes]
    for trace in store.traces_of(deployed) if deployed else []:
        models[trace.model_name].traces.append(trace)
    return models


def _partitions_of_interest(row: ModelRow | InvalidRow, model: _Model, *, is_detailed: bool) -> list[str]:
    if isinstance(row, InvalidRow):
        return []
    partitions = [row.key] if row.publication is None or is_detailed else []
    for environment in model.environments_of(row):
        wish = model.wishes.get(environment)
        if wish is None or isinstance(wish, InvalidRow):
            continue
        is_open = wish.model_id == row.model_id and wish.stable_revision != wish.revision
        if is_open or is_detailed:
            partitions.append(wish.key)
    return partitions


def _facts_of(
    row: ModelRow | InvalidRow, model: _Model, runs: dict[str, list[Run]], deleting: Sequence[Run]
) -> VersionFacts:
    traces = {trace.environment: trace for trace in model.traces if trace.model_id == row.model_id}
    return VersionFacts(
        row=row,
        runs=runs.get(row.key, []),
        deletion=next((run for run in deleting if _deletes(run, row)), None),
        services=[
            ServiceFacts(
                environment,
                model.wishes.get(environment),
                traces.get(environment),
                runs.get(f"{environment}|{_name_of(row)}", []),
            )
            for environment in model.environments_of(row)
        ],
    )


def _deletes(run: Run, row: ModelRow | InvalidRow) -> bool:
    """Whether a deletion is of this version: by its id, or of the whole model."""
    if tags.MODEL_ID in run.tags:
        return run.tags[tags.MODEL_ID] == row.model_id
    return run.tags.get(tags.MODEL) == _name_of(row)


def _name_of(row: ModelRow | InvalidRow) -> str:
    return row.model_name if isinstance(row, InvalidRow) else row.card.model_name
