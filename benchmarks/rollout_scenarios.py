"""What is done to a service under load: version changes, scalings, bad versions, killed runs, drift."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from benchmarks.rollout_ground import DEADLINES, SLUG, Ground, Moved, Mover
from benchmarks.steady_load import SteadyLoad
from benchmarks.workbench import Say
from constellation_docker.rollout import HaproxyBalancer, Kind
from constellation_docker.rollout.observed import balancer_name, replica_host

# How long requests are watched before a change and after it.
_SETTLE_SECONDS: Final = 1.0
_BAD_SECONDS: Final = 5.0
_REPLICAS: Final = (4, 2, 5, 1, 3, 2, 6, 1, 4, 2)
_KILLED_AT: Final = (
    Kind.CREATE_REPLICA,
    Kind.WAIT_HEALTHY,
    Kind.SWITCH,
    Kind.MONITOR,
    Kind.STOP_REPLICA,
)


@dataclass
class Tally:
    """What one scenario came to.

    Attributes:
        changes: How many changes were made.
        answered: Requests that were answered well meanwhile.
        failures: Requests that were not, by what became of them.
        by_fault: Of drift: requests that were lost with the fault itself, before anybody healed it.
        reconnected: How often a client found its idle connection closed.
        moves: The changes as they went.
        problems: Changes that did not end as they should.
    """

    name: str
    changes: int = 0
    answered: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    by_fault: int = 0
    reconnected: int = 0
    moves: list[Moved] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def failed(self) -> int:
        """Requests that failed."""
        return self.failures.total()


@dataclass(frozen=True)
class Bad:
    """A version that must not stay.

    Attributes:
        name: What is wrong with it.
        changes: What is wanted of the service.
    """

    name: str
    changes: dict[str, Any]


_IMPATIENT: Final = DEADLINES.model_copy(update={"healthy_deadline": "4s"})
_WATCHFUL: Final = DEADLINES.model_copy(update={"min_healthy_time": "20s"})
BAD_VERSIONS: Final = (
    Bad("never gets ready", {"env": {"READY_AFTER": "1000"}, "deploy": _IMPATIENT}),
    Bad("turns bad after the switch", {"env": {"BAD_AFTER": "3"}, "deploy": _WATCHFUL}),
    Bad("crashes while starting", {"env": {"CRASH": "1"}}),
    Bad("listens on another port", {"port": 9999, "deploy": _IMPATIENT}),
    Bad(
        "turns bad after the switch, two replicas",
        {"env": {"BAD_AFTER": "5"}, "deploy": _WATCHFUL, "replicas": 2},
    ),
)


class Scenarios:
    """Changes to one service under load.

    Args:
        ground: The environment.
        mover: Who brings it to what is wanted.
        clients: How many there are.
        say: Told what is going on.
    """

    def __init__(self, ground: Ground, mover: Mover, *, clients: int, say: Say) -> None:
        self._ground = ground
        self._mover = mover
        self._clients = clients
        self._say = say
        self._version = 1

    def begin(self) -> None:
        """Let a first version run."""
        self._ground.services.clear()
        self._ground.want(model_version="1")
        self._moved(Tally("first version"), "successful")
        self._wait_answering()

    def change_versions(self, count: int) -> Tally:
        """New versions, one after the other."""

        def change(tally: Tally, _: int) -> None:
            self._next_version()
            self._moved(tally, "successful")

        return self._under_load("version changes", count, change)

    def scale(self, count: int) -> Tally:
        """More and fewer replicas of the same version."""

        def change(tally: Tally, number: int) -> None:
            self._ground.want(replicas=_REPLICAS[number % len(_REPLICAS)])
            self._moved(tally, "successful")

        return self._under_load("scalings up and down", count, change)

    def deploy_bad(self, count: int) -> Tally:
        """Versions that must not stay. Whoever does not go back by itself is sent back after a few seconds."""

        def change(tally: Tally, number: int) -> None:
            good = self._ground.services[SLUG]
            bad = BAD_VERSIONS[number % len(BAD_VERSIONS)]
            self._version += 1
            self._ground.want(model_version=str(self._version), **bad.changes)
            moved = self._mover.move()
            tally.moves.append(moved)
            if self._mover.name == "ours" and moved.outcome != "rolled_back":
                tally.problems.append(f"{bad.name}: {moved.outcome}: {moved.message}")
            self._ground.services[SLUG] = good
            if self._mover.name != "ours":
                time.sleep(_BAD_SECONDS)
                self._mover.move()

        return self._under_load("bad versions, reverted", count, change)

    def kill_runs(self, count: int) -> Tally:
        """Runs that are killed in the middle; the next run ends what they began."""

        def change(tally: Tally, number: int) -> None:
            self._next_version()
            self._mover.move_killed(str(_KILLED_AT[number % len(_KILLED_AT)]))
            self._moved(tally, "successful", "unchanged")

        return self._under_load("runs killed in the middle", count, change)

    def heal(self, count: int) -> Tally:
        """Replicas that somebody stopped or removed, or that the balancer lost, put right again."""
        self._ground.want(replicas=3)
        self._mover.move()
        engine = self._ground.engine
        balancer = HaproxyBalancer(engine, balancer_name(self._ground.project))

        def change(tally: Tally, number: int) -> None:
            first = self._running()[0]
            name = self._ground.container(first)
            fault = number % 3
            if fault == 2 and self._mover.name == "ours":
                host = replica_host(SLUG, first)
                # A replica without a place at the balancer, as after somebody restored an old configuration.
                balancer.switch(SLUG, ready=[], drain=[host])
                balancer.unregister(SLUG, [host])
            else:
                engine.stop(name, grace_seconds=10)
            if fault == 1:
                engine.remove(name)
            self._moved(tally, "successful")

        return self._under_load("drift healings", count, change)

    def _running(self) -> list[int]:
        found = self._ground.engine.list_containers(
            {"com.docker.compose.project": self._ground.project, "com.docker.compose.service": SLUG}
        )
        return sorted(
            int(row["Labels"]["com.docker.compose.container-number"])
            for row in found
            if row["State"] == "running"
        )

    def _next_version(self) -> None:
        self._version += 1
        self._ground.want(model_version=str(self._version))

    def _moved(self, tally: Tally, *expected: str) -> None:
        moved = self._mover.move()
        tally.moves.append(moved)
        if moved.outcome not in expected:
            tally.problems.append(f"{tally.name}: {moved.outcome}: {moved.message}")

    def _under_load(self, name: str, count: int, change: Callable[[Tally, int], None]) -> Tally:
        tally = Tally(name)
        with SteadyLoad(self._ground.settings.port, f"/{SLUG}", clients=self._clients) as load:
            for number in range(count):
                time.sleep(_SETTLE_SECONDS)
                before = load.failed
                change(tally, number)
                tally.changes += 1
                lost = f", {load.failed - before} requests failed" if load.failed > before else ""
                self._say(
                    f"{self._mover.name}: {name} {number + 1} of {count}: {_seconds(tally.moves)}{lost}"
                )
            time.sleep(_SETTLE_SECONDS)
        tally.answered = load.answered
        tally.failures = load.failures
        tally.reconnected = load.reconnected
        return tally

    def _wait_answering(self) -> None:
        """The balancer of stock Compose finds a replica a moment after it is there."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with SteadyLoad(self._ground.settings.port, f"/{SLUG}", clients=1) as load:
                time.sleep(0.5)
            if load.answered and not load.failed:
                return
        raise TimeoutError("the first version does not answer")


def run_scenarios(scenarios: Scenarios, counts: Mapping[str, int]) -> list[Tally]:
    """All scenarios that are asked for, by their counts."""
    kinds: Sequence[tuple[str, Callable[[int], Tally]]] = (
        ("versions", scenarios.change_versions),
        ("scalings", scenarios.scale),
        ("bad", scenarios.deploy_bad),
        ("killed", scenarios.kill_runs),
        ("drift", scenarios.heal),
    )
    scenarios.begin()
    return [run(counts[kind]) for kind, run in kinds if counts.get(kind)]


def _seconds(moves: Sequence[Moved]) -> str:
    return f"{moves[-1].seconds:.1f} s" if moves else ""
