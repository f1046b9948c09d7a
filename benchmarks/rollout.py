"""Moving services under load, beside `docker compose up -d` of the same changes.

    python -m benchmarks.rollout                            everything, about twenty minutes
    python -m benchmarks.rollout --only load --small        a few changes of each kind
    python -m benchmarks.rollout --only durations idle planning

Sixteen clients POST over kept-alive connections and never retry: what a client library would hide is counted. Compose
runs the very file that describes the environment, with the same balancer, which then finds replicas by DNS. It is found
by COMPOSE_BINARY or as the Docker CLI's plugin. The section of `RESULTS.md` is replaced only by a run that measured
everything.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from benchmarks.packaging import Figure
from benchmarks.results import describe_machine, record_section, render_table
from benchmarks.rollout_ground import ComposeMover, OurMover, find_compose, open_compose, open_ground
from benchmarks.rollout_scale import (
    Durations,
    Idleness,
    measure_durations,
    measure_idleness,
    measure_planning,
)
from benchmarks.rollout_scenarios import Scenarios, Tally, run_scenarios
from benchmarks.workbench import Say
from constellation_docker.engine import Engine

TITLE: Final = "Rollouts"
PARTS: Final = ("load", "durations", "idle", "planning")
COUNTS: Final = {"versions": 25, "scalings": 10, "bad": 5, "killed": 5, "drift": 3}
SMALL: Final = {"versions": 3, "scalings": 2, "bad": 2, "killed": 2, "drift": 3}
LOAD_SECONDS: Final = 4.0


@dataclass
class Measured:
    """Everything that was measured.

    Attributes:
        ours: What became of requests under our rollouts.
        compose: The same under stock Compose; empty where it is not to be had.
        durations: A rollout beside its container.
        idle: Environments with nothing to do, by size.
        planning: Processor seconds of planning for 1,000 services.
    """

    ours: list[Tally] = field(default_factory=list)
    compose: list[Tally] = field(default_factory=list)
    durations: Durations | None = None
    idle: list[Idleness] = field(default_factory=list)
    planning: dict[str, float] = field(default_factory=dict)


def plan_figures(measured: Measured) -> list[Figure]:
    """The promised figures, from what was measured."""
    figures: list[Figure] = []
    if measured.ours:
        failed = sum(tally.failed for tally in measured.ours)
        figures.append(Figure("failed requests in all changes", failed, 0, ""))
        problems = sum(len(tally.problems) for tally in measured.ours)
        figures.append(Figure("changes that did not end as they should", problems, 0, ""))
    if measured.compose:
        failed = sum(tally.failed for tally in measured.compose)
        figures.append(Figure("the same changes by stock Compose: failed requests", failed, None, ""))
    if measured.durations:
        figures.append(
            Figure(
                "a rollout without draining and monitoring / its container's own time to ready",
                measured.durations.ratio,
                1.5,
            )
        )
    if measured.idle:
        most, least = measured.idle[-1], measured.idle[0]
        figures += [
            Figure(f"nothing to do for {most.services} services", most.seconds, 2.0, "s"),
            Figure("containers touched by it", most.touched, 0, ""),
            Figure(
                f"engine calls for it, {most.services} / {least.services} services",
                most.calls / least.calls,
                1.0,
            ),
        ]
    figures += [
        Figure(f"planning for 1,000 services, {name}: processor time", seconds, 1.0, "s")
        for name, seconds in measured.planning.items()
    ]
    return figures


def render_report(figures: Sequence[Figure], measured: Measured, machine: str) -> str:
    """The section of `RESULTS.md`."""
    rows = [figure.row() if figure.unit else _counted(figure) for figure in figures]
    parts = [machine, render_table(("figure", "measured", "promised", "kept"), rows)]
    if measured.ours:
        parts.append(_render_load(measured))
    if measured.durations:
        parts.append(_render_durations(measured.durations))
    if measured.idle:
        parts.append(_render_idle(measured.idle))
    return "\n".join(parts)


def _render_load(measured: Measured) -> str:
    head = (
        "under 16 clients",
        "changes",
        "answered",
        "failed",
        "one change",
        "Compose: failed",
        "of",
        "one change",
    )
    others = {tally.name: tally for tally in measured.compose}

    def row(tally: Tally) -> tuple[object, ...]:
        other = others.get(tally.name)
        theirs = (other.failed, other.answered + other.failed, _spread(other)) if other else ("–", "–", "–")
        return tally.name, tally.changes, tally.answered, tally.failed, _spread(tally), *theirs

    text = (
        "A request fails when it is not answered with 200, or its connection breaks. Clients pause 30 ms between requests and "
        "never retry. Compose has no way back from a bad version: it was sent back to the good one after five seconds. Its "
        "kill comes as it works on the service's container, and the next `up -d` follows. Drift: a replica that somebody "
        "stopped, stopped and removed, or took out of the balancer (under Compose: stopped). Medians (fastest–slowest), "
        "with one second of monitoring in each of ours.\n\n"
    )
    problems = [f"* {problem}\n" for tally in measured.ours for problem in tally.problems]
    kinds = [
        f"* {whose}, {tally.name}: {', '.join(f'{count} × {kind}' for kind, count in tally.failures.items())}\n"
        for whose, tallies in (("ours", measured.ours), ("Compose", measured.compose))
        for tally in tallies
        if tally.failures
    ]
    return (
        text + render_table(head, [row(tally) for tally in measured.ours]) + "\n" + "".join(problems + kinds)
    )


def _render_durations(durations: Durations) -> str:
    return (
        f"Durations under the same load, of a container that loads for {durations.load_seconds:g} seconds: alone "
        f"{median(durations.ready):.2f} s to its first good answer, a rollout of it {median(durations.rollouts):.2f} s without "
        f"what draining and monitoring took ({len(durations.rollouts)} of each); {durations.failed} requests failed.\n"
    )


def _render_idle(idle: Sequence[Idleness]) -> str:
    head = (
        "nothing to do",
        "look at all",
        "engine calls",
        "rollout of one",
        "engine calls",
        "`docker compose up -d`",
    )
    rows = [
        (
            f"{item.services} services",
            f"{item.seconds:.2f} s",
            item.calls,
            f"{item.rollout_seconds:.2f} s",
            item.rollout_calls,
            "–" if item.compose_seconds is None else f"{item.compose_seconds:.2f} s",
        )
        for item in idle
    ]
    return render_table(head, rows)


def _counted(figure: Figure) -> tuple[str, str, str, str]:
    """The row of a figure that is a number of things."""
    promised = "" if figure.promised is None else f"{figure.promised:.0f}"
    return figure.name, f"{figure.measured:.0f}", promised, figure.row()[-1]


def _spread(tally: Tally) -> str:
    seconds = [move.seconds for move in tally.moves]
    return f"{median(seconds):.1f} s ({min(seconds):.1f}–{max(seconds):.1f})" if seconds else "–"


def measure_load(
    engine: Engine, measured: Measured, counts: Mapping[str, int], clients: int, say: Say
) -> None:
    """All changes under load, by ourselves, then by stock Compose in an environment of its own."""
    with open_ground(engine) as ground:
        scenarios = Scenarios(ground, OurMover(ground), clients=clients, say=say)
        measured.ours = run_scenarios(scenarios, counts)
    binary = find_compose()
    if binary is None:
        say("There is no stock Compose here (COMPOSE_BINARY names one): it is left out.")
        return
    with open_ground(engine) as ground, open_compose(ground, binary) as mover:
        measured.compose = run_scenarios(Scenarios(ground, mover, clients=clients, say=say), counts)


def _measure(parts: Sequence[str], engine: Engine, given: argparse.Namespace, say: Say) -> Measured:
    measured = Measured()
    if "planning" in parts:
        measured.planning = measure_planning()
    if "load" in parts:
        measure_load(engine, measured, SMALL if given.small else COUNTS, given.clients, say)
    if "durations" in parts:
        with open_ground(engine) as ground:
            measured.durations = measure_durations(
                ground,
                load_seconds=LOAD_SECONDS,
                count=2 if given.small else 5,
                clients=given.clients,
                say=say,
            )
    if "idle" in parts:
        with ExitStack() as stack:
            ground = stack.enter_context(open_ground(engine))
            binary = find_compose()
            compose: ComposeMover | None = None
            if binary is not None:
                compose = stack.enter_context(open_compose(ground, binary))
            sizes = (5, 20) if given.small else (10, 100)
            measured.idle = measure_idleness(ground, sizes, compose=compose, say=say)
    return measured


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, help="measure these parts; RESULTS.md stays")
    parser.add_argument("--small", action="store_true", help="a few changes of each kind; RESULTS.md stays")
    parser.add_argument("--clients", type=int, default=16, help="how many clients ask")
    parser.add_argument("--no-record", action="store_true", help="leave RESULTS.md as it is")
    given = parser.parse_args(argv)
    began = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - began:5.0f} s] {line}", file=sys.stderr, flush=True)

    engine = Engine.connect()
    machine = describe_machine(f"Docker Engine {engine.version.engine}")
    measured = _measure(given.only or PARTS, engine, given, say)
    figures = plan_figures(measured)
    report = render_report(figures, measured, machine)
    print(report)
    if not given.no_record and given.only is None and not given.small:
        record_section(TITLE, report)
        say("Wrote benchmarks/RESULTS.md")
    return 0 if all(figure.is_kept for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
