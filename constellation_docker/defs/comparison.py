"""What runs in an environment beside what is wanted, and a verdict about each service that differs."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import NamedTuple

import dagster as dg

from constellation_docker.cards import CardStore, DeploymentRow
from constellation_docker.cards.launch_guards import LaunchGuards, deployment_subject
from constellation_docker.compose import ComposeFile
from constellation_docker.defs import drift_history as history
from constellation_docker.defs.environment import Environment
from constellation_docker.defs.healing import Verdict, decide_healing, healing_request
from constellation_docker.defs.past_runs import runs_on_services
from constellation_docker.defs.resources import EngineResource
from constellation_docker.errors import ConstellationError
from constellation_docker.rollout import (
    IN_TURN,
    Drift,
    DriftReport,
    HaproxyBalancer,
    Observed,
    Watched,
    altered_ids,
    choose_inspected,
    choose_restored,
    choose_spared,
    complaints_of,
    find_drift,
    inspect_replicas,
    mark_outliers,
    observe,
    outliers_of,
    watch_traffic,
)
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
        is_shared: Some service has several replicas at the balancer, so that they can be held beside each other.
        traffic: What became of the requests of each replica, by host.
        altered: Ids of the containers that were changed in place.
    """

    environment: str
    is_empty: bool = False
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    drifts: Mapping[str, Drift | None] = field(default_factory=dict)
    ages: Mapping[str, history.Finding] = field(default_factory=dict)
    report: DriftReport = field(default_factory=DriftReport)
    is_shared: bool = False
    traffic: Mapping[str, Watched] = field(default_factory=dict)
    altered: tuple[str, ...] = ()

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


class Inspected(NamedTuple):
    """Which containers a comparison looks into, each with a call of its own.

    Attributes:
        named: Ids of those that somebody may have changed in place.
        turn: How many comparisons came before this one.
        further: How many others, in turn.
    """

    named: tuple[str, ...] = ()
    turn: int = 0
    further: int = IN_TURN


USUAL = Inspected()
ALL = Inspected(further=1_000_000)
"""All of them, for somebody who waits for the answer."""


@dataclass(frozen=True)
class Comparer:
    """Compares environments with what is wanted, and decides about every service that differs.

    Attributes:
        settings: All settings.
        engines: The engines.
        store: The card store.
        instance: Dagster's instance.
        now: The present.
        on_line: Told what was left out, and why.
    """

    settings: Settings
    engines: EngineResource
    store: CardStore
    instance: dg.DagsterInstance
    now: datetime
    on_line: Callable[[str], None]

    def compare(
        self, name: str, inspected: Inspected = USUAL, traffic: Mapping[str, Watched] | None = None
    ) -> Comparison:
        """Compare one environment.

        Args:
            name: The environment.
            inspected: Which containers to look into for what was changed in place.
            traffic: What had become of the requests of each replica at the last look, by host. Outliers that fail them
                get no more when this returns, unless drift is only reported.

        Raises:
            StoreUnavailable: The card store cannot be reached.
            EngineUnreachable: The environment's engine cannot.
        """
        # Deleted ones too: what still runs of them is drift.
        rows = [
            row for row in self.store.wanted(name, include_deleted=True) if isinstance(row, DeploymentRow)
        ]
        if not rows:
            return Comparison(name, is_empty=True)
        environment = Environment(name, self.settings, self.engines.of_environment(name))
        compiled = environment.compile_to_compare(self.store, self.on_line)
        observed = observe(environment.engine, compiled.project)
        chosen = choose_inspected(observed, inspected.named, inspected.turn, inspected.further)
        observed = inspect_replicas(environment.engine, observed, compiled, chosen)
        healing = self.settings.healing
        watched = watch_traffic(observed.state, traffic or {}, self.now.timestamp(), healing.outlier_failures)
        outliers = outliers_of(watched)
        if healing.mode == "heal":
            _spare(environment, compiled, mark_outliers(observed, outliers), self.on_line)
        report = find_drift(observed, compiled, outliers)
        environment.keep_certificate(compiled, self.on_line)
        judged = self._judge(rows, choose_drifts(rows, report), complaints_of(watched))
        return Comparison(
            name,
            verdicts={key: item.verdict for key, item in judged.items()},
            drifts={key: item.drift for key, item in judged.items()},
            ages={key: item.age for key, item in judged.items()},
            report=report,
            is_shared=any(len(route.members) > 1 for route in observed.state.routes.values()),
            traffic=watched,
            altered=altered_ids(observed),
        )

    def _judge(
        self, rows: Sequence[DeploymentRow], drifts: Mapping[str, Drift], complaints: Mapping[str, str]
    ) -> dict[str, _Judged]:
        """What is to be done about each service that differs, or whose replicas fail alike, by partition."""
        asked = [row for row in rows if row.key in drifts or row.stable_revision != row.revision]
        runs = runs_on_services(self.instance, asked)
        judged: dict[str, _Judged] = {}
        for row in asked:
            age = history.find(self.instance, row.key, self.now)
            verdict = decide_healing(
                row,
                drifts.get(row.key),
                runs,
                settings=self.settings.healing,
                max_tries=self.settings.reconcile.max_attempts,
                found_at=age.since,
                now=self.now,
            )
            if verdict is None:
                continue
            if verdict.answer == "heal" and self.settings.healing.mode == "report":
                verdict = replace(
                    verdict, answer="left", why="drift is only reported: see the setting healing.mode"
                )
            judged[row.key] = _Judged(verdict, drifts.get(row.key), age)
        for row in rows:
            if row.key not in judged and row.row.card.slug in complaints:
                verdict = Verdict(row, "left", "its replicas fail alike, so fresh ones would not help")
                age = history.find(self.instance, row.key, self.now)
                judged[row.key] = _Judged(verdict, _complain(row, complaints[row.row.card.slug]), age)
        return judged


class _Judged(NamedTuple):
    """A service that differs: what is to be done, how it differs, and since when."""

    verdict: Verdict
    drift: Drift | None
    age: history.Finding


def _complain(row: DeploymentRow, complaint: str) -> Drift:
    """What is shown of a service whose model fails: nothing differs, and nobody is well served."""
    what = f"{row.replicas} × {row.row.card.model_version}"
    return Drift(row.row.card.slug, "keep", what, what, (complaint,))


def _spare(
    environment: Environment, compiled: ComposeFile, observed: Observed, on_line: Callable[[str], None]
) -> None:
    """Keep outliers from requests at once, before a run replaces them; and give them some where nobody else answers."""
    if observed.balancer is None or not observed.balancer.is_ours:
        return
    balancer = HaproxyBalancer(environment.engine, observed.balancer.name, compiled.balancer_options)
    try:
        for slug, route in observed.state.routes.items():
            if spared := choose_spared(route):
                balancer.spare(slug, spared)
                on_line(f"{environment.name}: {', '.join(spared)} gets no more requests: it fails them")
            if restored := choose_restored(route):
                balancer.switch(slug, ready=restored, drain=())
                on_line(
                    f"{environment.name}: {', '.join(restored)} gets requests again: nobody else is there"
                )
    except ConstellationError as error:
        on_line(f"{environment.name}: {error}")


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
