"""What is said of a service that differs, and what counts as news from an engine."""

from __future__ import annotations

import time

import pytest

from constellation_docker.compose import compile_environment
from constellation_docker.engine import Event
from constellation_docker.rollout import Member, Observed, ObservedBalancer, Replica, Route, find_drift
from constellation_docker.rollout.balancer import BalancerState
from constellation_docker.rollout.news import choose_news, read_news, take_fingerprint
from constellation_docker.settings import EnvironmentSettings
from constellation_docker_tests.compose.services import BALANCER_IMAGE, wanted
from constellation_docker_tests.fixtures.deadline import wait_for
from constellation_docker_tests.fixtures.tiny_service import Environment

SLUG = "acme-sentiment"
FILE = compile_environment(
    "dev", EnvironmentSettings(project="p"), [wanted(replicas=2)], balancer_image=BALANCER_IMAGE
)
HASH = FILE.services[SLUG].spec_hash


def replica(number: int, state: str = "running", health: str = "healthy", spec: str = HASH) -> Replica:
    return Replica(
        id=f"id-{number}",
        name=f"p-{SLUG}-{number}",
        number=number,
        host=f"{number}.{SLUG}",
        state=state,
        health=health,  # type: ignore[arg-type]
        spec_hash=spec,
        created=1,
        revision=1,
    )


def observed(*replicas: Replica, routed: tuple[int, ...] = (1, 2), **changes: object) -> Observed:
    members = tuple(
        Member(f"{number}.{SLUG}", 8080, "/ready", "ready", "up", address="10.0.0.1") for number in routed
    )
    facts: dict[str, object] = {
        "project": "p",
        "has_network": True,
        "balancer": ObservedBalancer("b", "p-balancer-1", "running", FILE.balancer_hash, True, True),
        "state": BalancerState({SLUG: Route(SLUG, 300, None, members)} if routed else {}),
        "services": {SLUG: replicas} if replicas else {},
    }
    return Observed(**(facts | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seen", "faults"),
    [
        (observed(replica(1), replica(2)), None),
        (
            observed(replica(1)),
            ["1 of 2 replicas is missing", f"the balancer knows 2.{SLUG}, which is gone"],
        ),
        (observed(replica(1), replica(2, "exited", "none")), [f"p-{SLUG}-2 is exited"]),
        (observed(replica(1), replica(2, "restarting", "none")), [f"p-{SLUG}-2 is restarting"]),
        (observed(replica(1), replica(2, health="unhealthy")), [f"p-{SLUG}-2 is unhealthy"]),
        (observed(replica(1), replica(2, spec="other")), [f"p-{SLUG}-2 is of another release"]),
        (observed(replica(1), replica(2), routed=(1,)), [f"the balancer gives p-{SLUG}-2 no requests"]),
        (
            observed(replica(1), replica(2), replica(3), routed=(1, 2, 3)),
            ["another number of replicas is wanted"],
        ),
        (observed(routed=()), ["2 of 2 replicas are missing"]),
    ],
)
def test_every_way_to_differ_is_said_in_words(seen: Observed, faults: list[str] | None) -> None:
    found = find_drift(seen, FILE).services
    assert (list(found[SLUG].faults) if found else None) == faults


def test_what_docker_has_just_started_anew_is_settling_and_what_misses_a_replica_is_not() -> None:
    starting = replica(2, health="starting")
    down = BalancerState(
        {
            SLUG: Route(
                SLUG,
                300,
                None,
                tuple(
                    Member(f"{n}.{SLUG}", 8080, "/ready", "ready", "up" if n == 1 else "down") for n in (1, 2)
                ),
            )
        }
    )
    assert find_drift(observed(replica(1), starting, state=down), FILE).services[SLUG].is_settling
    assert not find_drift(observed(starting, state=down), FILE).services[SLUG].is_settling


def test_a_missing_balancer_is_told_and_foreign_containers_are_named() -> None:
    report = find_drift(observed(replica(1), replica(2), balancer=None, foreign=("p-shell-1",)), FILE)
    assert report.services == {}
    assert report.ground == ("the environment has no balancer",)
    assert report.foreign == ("p-shell-1",)


def event(action: str, *, kind: str = "container", **attributes: str) -> Event:
    return Event(kind, action, "0123456789abcdef", attributes, 1)


OURS = {"com.docker.compose.project": "p", "name": "p-tiny-1"}


@pytest.mark.parametrize(
    ("told", "news"),
    [
        (event("die", **OURS), ("die of p-tiny-1",)),
        (event("oom", **OURS), ("oom of p-tiny-1",)),
        (event("health_status: unhealthy", **OURS), ("health_status: unhealthy of p-tiny-1",)),
        (event("destroy", **OURS), ("destroy of p-tiny-1",)),
        (event("exec_create: /probe", **OURS), ()),
        (event("die", **{**OURS, "com.docker.compose.project": "other"}), ()),
        (event("disconnect", kind="network", name="p_default", container="x"), ("disconnect of p_default",)),
        (event("disconnect", kind="network", name="other_default", container="x"), ()),
        (event("pull", kind="image", name="p"), ()),
    ],
)
def test_news_are_what_may_have_changed_the_environment(told: Event, news: tuple[str, ...]) -> None:
    assert choose_news([told, told], "p") == news


def test_an_engine_is_asked_in_few_calls_and_tells_what_happened_since(environment: Environment) -> None:
    engine, name = environment.engine, f"{environment.project}-tiny-1"
    environment.want()
    environment.roll_out()
    before = read_news(engine, environment.project, None).until
    quiet = read_news(engine, environment.project, before)
    assert quiet.events == ()
    engine.stop(name, grace_seconds=5)
    news = wait_for(lambda: read_news(engine, environment.project, quiet.until).events, what="the news")
    assert f"die of {name}" in news


def test_what_an_engine_forgot_is_seen_by_the_states_of_its_containers(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, name = environment.engine, f"{environment.project}-tiny-1"
    environment.want()
    environment.roll_out()
    monkeypatch.setattr("constellation_docker.rollout.news.BUFFERED_EVENTS", 0)
    first = read_news(engine, environment.project, time.time() - 1).fingerprint
    assert first == take_fingerprint(engine, environment.project) != ""
    engine.stop(name, grace_seconds=5)
    assert take_fingerprint(engine, environment.project) != first
