"""Any state, any wish: the plan gets there, and nobody who served well is left alone on the way."""

from __future__ import annotations

from copy import deepcopy

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from constellation_docker.cards.serving_options import DeployOptions
from constellation_docker.compose import CompiledService, compile_environment
from constellation_docker.rollout import Kind, Member, Operation, Replica, Route
from constellation_docker.rollout.service_plan import choose_fallback, plan_rollback, plan_service
from constellation_docker.settings import EnvironmentSettings
from constellation_docker_tests.compose.services import BALANCER_IMAGE, wanted
from constellation_docker_tests.rollout.model_engine import Fault, ModelEngine

PROJECT, SLUG = "p", "acme-sentiment"


def compiled(version: str, replicas: int, order: str = "start-first") -> CompiledService:
    service = wanted(
        model_version=version,
        env={"V": version},
        replicas=replicas,
        deploy=DeployOptions(order=order),  # type: ignore[arg-type]
    )
    file = compile_environment("dev", EnvironmentSettings(), [service], balancer_image=BALANCER_IMAGE)
    return file.services[SLUG]


_RELEASES = {
    (version, replicas, order): compiled(version, replicas, order)
    for version in ("1", "2")
    for replicas in (0, 1, 2, 3)
    for order in ("start-first", "stop-first")
}
_HASHES = [_RELEASES["1", 1, "start-first"].spec_hash, _RELEASES["2", 1, "start-first"].spec_hash, "foreign"]
_STATES = st.sampled_from(
    [
        ("running", "healthy"),
        ("running", "none"),
        ("running", "starting"),
        ("running", "unhealthy"),
        ("created", "none"),
        ("exited", "none"),
        ("restarting", "none"),
        ("dead", "none"),
    ]
)


@st.composite
def engines(draw: st.DrawFn) -> ModelEngine:
    """Any service: containers of three releases in any state, behind any route."""
    replicas = {}
    members = []
    for number in draw(st.lists(st.integers(1, 6), unique=True, max_size=5)):
        state, health = draw(_STATES)
        replica = Replica(
            id=f"id-{number}",
            name=f"{PROJECT}-{SLUG}-{number}",
            number=number,
            host=f"{number}.{SLUG}",
            state=state,
            health=health,  # type: ignore[arg-type]
            spec_hash=draw(st.sampled_from(_HASHES)),
            created=draw(st.integers(1, 9)),
            revision=1,
            alterations=draw(st.sampled_from([(), (), ("has 64 MiB of memory instead of 128 MiB",)])),
        )
        replicas[replica.name] = replica
        if draw(st.booleans()):
            routed = draw(st.sampled_from(["ready", "drain"]))
            check = "up" if replica.is_healthy else "down"
            fails = draw(st.sampled_from([False, False, True]))
            members.append(
                Member(replica.host, 8080, "/ready", routed, check, is_outlier=fails)  # type: ignore[arg-type]
            )
    for number in draw(st.lists(st.integers(4, 8), unique=True, max_size=2)):
        if f"{PROJECT}-{SLUG}-{number}" not in replicas:
            members.append(Member(f"{number}.{SLUG}", 8080, "/ready", "ready", "down"))
    has_route = bool(members) or draw(st.booleans())
    route = Route(SLUG, 300, None, tuple(members)) if has_route else None
    target = draw(st.one_of(st.none(), st.sampled_from(list(_RELEASES.values()))))
    return ModelEngine(PROJECT, SLUG, target, replicas=replicas, route=route)


def plan(engine: ModelEngine) -> tuple[Operation, ...]:
    return plan_service(PROJECT, SLUG, engine.compiled, list(engine.replicas.values()), engine.route)


def in_order(operations: tuple[Operation, ...], seed: int) -> list[Operation]:
    """One of the orders that the dependencies allow."""
    left, done, ordered = list(operations), set[str](), []
    while left:
        free = [operation for operation in left if done.issuperset(operation.after)]
        assert free, "the dependencies have a circle"
        chosen = free[seed % len(free)]
        left.remove(chosen)
        done.add(chosen.id)
        ordered.append(chosen)
    return ordered


def least(engine: ModelEngine, before: set[str]) -> int:
    wish = engine.compiled.wanted.replicas if engine.compiled else 0
    return min(len(before), wish)


@given(engine=engines(), seed=st.integers(0, 5))
@settings(max_examples=250, deadline=None)
def test_a_plan_reaches_what_is_wanted_and_a_second_plan_is_empty(engine: ModelEngine, seed: int) -> None:
    before = engine.serving()
    is_stop_first = engine.compiled is not None and engine.compiled.options.order == "stop-first"
    for operation in in_order(plan(engine), seed):
        engine.execute(operation)
        if not is_stop_first:
            assert len(engine.serving()) >= least(engine, before), operation
    wish = engine.compiled.wanted.replicas if engine.compiled else 0
    assert len(engine.serving()) == len(engine.replicas) == wish
    assert all(
        engine.compiled and replica.spec_hash == engine.compiled.spec_hash
        for replica in engine.replicas.values()
    )
    assert plan(engine) == ()


@given(engine=engines(), seed=st.integers(0, 5))
@settings(max_examples=80, deadline=None)
def test_a_run_that_is_killed_at_any_step_is_finished_by_the_next(engine: ModelEngine, seed: int) -> None:
    before = engine.serving()
    for killed_after in range(len(plan(engine)) + 1):
        killed = deepcopy(engine)
        for operation in in_order(plan(killed), seed)[:killed_after]:
            killed.execute(operation)
        come_up(killed)
        reach_what_is_wanted(killed, seed, before)


@given(engine=engines(), seed=st.integers(0, 5))
@settings(max_examples=80, deadline=None)
def test_whatever_step_fails_those_that_served_well_serve_again(engine: ModelEngine, seed: int) -> None:
    assume(engine.compiled is not None and engine.compiled.wanted.replicas > 0)
    before, replicas, route = engine.serving(), list(engine.replicas.values()), engine.route
    for failing in range(len(plan(engine))):
        failed = deepcopy(engine)
        kind = fail_at(failed, seed, failing)
        if kind is None:
            continue
        fallback, undo = way_back(failed, replicas, route, kind)
        kept = {replica.host for replica in replicas if replica.id in fallback}
        try:
            for operation in in_order(undo, seed):
                failed.execute(operation)
        except Fault:
            # Only what was not well before may fail to come back.
            assert not kept <= before
            continue
        spec_hash = _wanted_hash(engine)
        assert before & kept <= failed.serving()
        if before and not any(host for host in before if _hash_of(replicas, host) == spec_hash):
            assert failed.serving() >= before
        assert not [
            replica
            for replica in failed.replicas.values()
            if replica.spec_hash == spec_hash and replica.id not in fallback
        ]


@given(engine=engines(), seed=st.integers(0, 5), failing=st.integers(0, 20))
@settings(max_examples=80, deadline=None)
def test_a_way_back_that_breaks_off_at_any_step_is_finished_by_the_next_run(
    engine: ModelEngine, seed: int, failing: int
) -> None:
    assume(engine.compiled is not None and engine.compiled.wanted.replicas > 0)
    replicas, route = list(engine.replicas.values()), engine.route
    kind = fail_at(engine, seed, failing % max(1, len(plan(engine))))
    if kind is None:
        return
    _, undo = way_back(engine, replicas, route, kind)
    for broken_after in range(len(undo) + 1):
        broken = deepcopy(engine)
        try:
            for operation in in_order(undo, seed)[:broken_after]:
                broken.execute(operation)
        except Fault:
            break
        come_up(broken)
        broken.is_good = True
        reach_what_is_wanted(broken, seed, broken.serving())


def reach_what_is_wanted(engine: ModelEngine, seed: int, before: set[str]) -> None:
    """Execute a plan: nobody who serves well is missed, the wish comes true, and nothing is left to do."""
    is_stop_first = engine.compiled is not None and engine.compiled.options.order == "stop-first"
    serving = engine.serving()
    for operation in in_order(plan(engine), seed):
        engine.execute(operation)
        if not is_stop_first:
            assert len(engine.serving()) >= min(least(engine, before), len(serving)), operation
    assert len(engine.serving()) == (engine.compiled.wanted.replicas if engine.compiled else 0)
    assert plan(engine) == ()


def come_up(engine: ModelEngine) -> None:
    """Meanwhile containers that were only starting have come up."""
    for name, replica in list(engine.replicas.items()):
        if replica.state == "running" and replica.health == "starting":
            engine._change(name, health="healthy")


def fail_at(engine: ModelEngine, seed: int, failing: int) -> Kind | None:
    """Execute a plan until a step that fails, by itself or because its turn has come.

    Returns:
        Its kind; None where no step failed, or where a container of before was removed by then: the new one is stable.
    """
    steps = in_order(plan(engine), seed)
    for index, operation in enumerate(steps):
        if any(step.kind is Kind.REMOVE_REPLICA for step in steps[:index]):
            return None
        if index == failing:
            return operation.kind
        try:
            engine.execute(operation)
        except Fault:
            return operation.kind
    return None


def way_back(
    engine: ModelEngine, replicas: list[Replica], route: Route | None, failed: Kind
) -> tuple[frozenset[str], tuple[Operation, ...]]:
    """The containers that are to serve again after a failure, and how."""
    spec_hash = _wanted_hash(engine)
    fallback = choose_fallback(replicas, route, spec_hash, failed=failed)
    now = list(engine.replicas.values())
    undo = plan_rollback(PROJECT, SLUG, now, engine.route, fallback=fallback, spec_hash=spec_hash)
    return fallback, undo


def _wanted_hash(engine: ModelEngine) -> str:
    assert engine.compiled is not None
    return engine.compiled.spec_hash


def _hash_of(replicas: list[Replica], host: str) -> str:
    return next(replica.spec_hash for replica in replicas if replica.host == host)
