"""What runs in an environment beside what is wanted, and a verdict about each service that differs."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import dagster as dg

from constellation_docker.cards import CardStore, DeploymentRow
from constellation_docker.cards.launch_guards import LaunchGuards, deployment_subject
from constellation_docker.defs import drift_history as history
from constellation_docker.defs.environment import Environment
from constellation_docker.defs.healing import Verdict, decide_healing, healing_request
from constellation_docker.defs.past_runs import runs_on_services
from constellation_docker.defs.resources import EngineResource
from constellation_docker.rollout import Drift, DriftReport, find_drift, observe
from constellation_docker.settings import Settings

GUARD_SECONDS = 15.0
"""How long after a tick the daemon may take to put the runs that it was asked for into its storage."""


@dataclass(frozen=True)
class Comparison:
    """How one environment differs, and what is to be done about it.

    Attributes:
        environment: Its name.
        is_empty: Nothing is wanted there, and nothing ever was.
        verdicts: About each service that differs, by partition.
        drifts: How each of these differs, by partition.
        ages: Since when each of these is known to differ, by partition.
        report: All that differs.
    """

    environment: str
    is_empty: bool = False
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    drifts: Mapping[str, Drift | None] = field(default_factory=dict)
    ages: Mapping[str, history.Finding] = field(default_factory=dict)
    report: DriftReport = field(default_factory=DriftReport)

    @property
    def healings(self) -> list[Verdict]:
        """The services that are healed now."""
        return [verdict for verdict in self.verdicts.values() if verdict.answer == "heal"]

    @property
    def sentence(self) -> str:
        """What was found, in one line; empty where nothing was."""
        found = [
            f"{key}: {'; '.join(history.faults_of(self.drifts[key], verdict))} ({verdict.why})"
            for key, verdict in self.verdicts.items()
        ]
        found += [f"{self.environment}: {cause}" for cause in self.report.ground]
        found += [f"{self.environment}: {name} is not ours" for name in self.report.foreign]
        return ". ".join(found)


def compare(
    name: str,
    settings: Settings,
    engines: EngineResource,
    store: CardStore,
    instance: dg.DagsterInstance,
    now: datetime,
    on_line: Callable[[str], None],
) -> Comparison:
    """Compare one environment with what is wanted, and decide about every service that differs.

    Raises:
        StoreUnavailable: The card store cannot be reached.
        EngineUnreachable: The environment's engine cannot.
    """
    # Deleted ones too: what still runs of them is drift.
    rows = [row for row in store.wanted(name, include_deleted=True) if isinstance(row, DeploymentRow)]
    if not rows:
        return Comparison(name, is_empty=True)
    environment = Environment(name, settings, engines.of_environment(name))
    compiled = environment.compile_to_compare(store, on_line)
    report = find_drift(observe(environment.engine, compiled.project), compiled)
    environment.keep_certificate(compiled, on_line)
    drifts = choose_drifts(rows, report)
    asked = [row for row in rows if row.key in drifts or row.stable_revision != row.revision]
    runs = runs_on_services(instance, asked)
    verdicts, ages = {}, {}
    for row in asked:
        finding = history.find(instance, row.key, now)
        verdict = decide_healing(
            row,
            drifts.get(row.key),
            runs,
            settings=settings.healing,
            max_tries=settings.reconcile.max_attempts,
            found_at=finding.since,
            now=now,
        )
        if verdict is None:
            continue
        if verdict.answer == "heal" and settings.healing.mode == "report":
            verdict = replace(
                verdict, answer="left", why="drift is only reported: see the setting healing.mode"
            )
        verdicts[row.key], ages[row.key] = verdict, finding
    found = {key: drifts.get(key) for key in verdicts}
    return Comparison(name, verdicts=verdicts, drifts=found, ages=ages, report=report)


def choose_drifts(rows: Sequence[DeploymentRow], report: DriftReport) -> dict[str, Drift]:
    """How services differ, by partition.

    Args:
        rows: The environment's deployments.
        report: How the environment differs.

    Returns:
        Those that differ; where none does and network or balancer are missing, one that is stable: the deployment of
        any service brings those back, with the routes of all.
    """
    drifts = {
        row.key: report.services[row.row.card.slug] for row in rows if row.row.card.slug in report.services
    }
    if not drifts and report.ground:
        stable = [row for row in rows if row.state == "running" and row.stable_revision == row.revision]
        for row in stable[:1]:
            drifts[row.key] = Drift(row.row.card.slug, "heal", "", "", report.ground)
    return drifts


def request_healings(
    store: CardStore, instance: dg.DagsterInstance, verdicts: Sequence[Verdict]
) -> list[dg.RunRequest]:
    """The runs that heal, without those that somebody else is launching at this moment.

    A guard that is taken here stays until it runs out, because the runs come into Dagster's storage only after the tick.

    Raises:
        StoreUnavailable: The guards cannot be taken; nothing may be launched.
    """
    subjects = {deployment_subject(verdict.row.key): verdict for verdict in verdicts}
    guards, holder = LaunchGuards(store.database), f"healing {uuid.uuid4().hex}"
    taken = guards.take(subjects, holder=holder, seconds=GUARD_SECONDS)
    free = [verdict for subject, verdict in subjects.items() if subject in taken]
    # Asked again under the guards: a launch may have ended between the first look and now.
    runs = runs_on_services(instance, [verdict.row for verdict in free])
    busy = {run.partition for run in runs if run.is_in_progress}
    return [healing_request(verdict) for verdict in free if verdict.row.key not in busy]
