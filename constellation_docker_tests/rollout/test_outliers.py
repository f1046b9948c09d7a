"""Replicas that pass `/ready` and fail requests: how they are told from a bad model, and kept from requests."""

from __future__ import annotations

from dataclasses import replace

import httpx
import pytest

from constellation_docker.rollout import (
    HaproxyBalancer,
    Member,
    Route,
    Watched,
    choose_restored,
    choose_spared,
    complaints_of,
    observe,
    outliers_of,
    plan_environment,
    watch_traffic,
)
from constellation_docker.rollout.balancer import BalancerState, Tally
from constellation_docker.rollout.haproxy_commands import plan_sparing, plan_switch
from constellation_docker.rollout.haproxy_config import NAMES_MAP, Backend, parse_member_name
from constellation_docker.rollout.haproxy_state import parse_backends
from constellation_docker.rollout.observed import balancer_name
from constellation_docker_tests.fixtures.tiny_service import Clients, Environment
from constellation_docker_tests.rollout.test_haproxy_config import ANSWER


def member(number: int, tally: Tally = Tally(), **changes: object) -> Member:  # noqa: B008
    facts: dict[str, object] = {"state": "ready", "check": "up", "tally": tally, **changes}
    return Member(f"{number}.tiny", 8080, "/ready", **facts)  # type: ignore[arg-type]


def state(*members: Member) -> BalancerState:
    return BalancerState({"tiny": Route("tiny", 300, None, members)})


def outliers(*looks: tuple[float, list[Member]], least: int = 10) -> list[str]:
    """The outliers after several looks."""
    watched: dict[str, Watched] = {}
    for moment, members in looks:
        watched = watch_traffic(state(*members), watched, moment, least)
    return sorted(outliers_of(watched))


BEGIN = (0.0, [member(1), member(2), member(3)])


@pytest.mark.parametrize(
    ("tallies", "found"),
    [
        pytest.param([Tally(0, 20), Tally(50, 0), Tally(50, 0)], ["1.tiny"], id="one fails all"),
        pytest.param([Tally(9, 11), Tally(50, 1), Tally(50, 0)], ["1.tiny"], id="one fails every second"),
        pytest.param([Tally(0, 0, 12), Tally(5, 0), Tally(5, 0)], ["1.tiny"], id="one fails its checks"),
        pytest.param([Tally(0, 9), Tally(50, 0), Tally(50, 0)], [], id="too few failures"),
        pytest.param([Tally(90, 20), Tally(50, 0), Tally(50, 0)], [], id="fails one in six"),
        pytest.param([Tally(0, 20), Tally(0, 20), Tally(0, 20)], [], id="all fail: a bad model"),
        pytest.param([Tally(0, 20), Tally(40, 20), Tally(50, 0)], ["1.tiny"], id="one well, one so-so"),
        pytest.param([Tally(0, 20), Tally(0, 20), Tally(50, 0)], [], id="most fail: a bad model"),
        pytest.param([Tally(0, 20), Tally(0, 0), Tally(0, 0)], [], id="nobody else was asked"),
        pytest.param([Tally(0, 20), Tally(40, 30), Tally(40, 30)], [], id="its siblings are not well"),
    ],
)
def test_a_replica_is_an_outlier_only_where_as_many_siblings_answer_well(
    tallies: list[Tally], found: list[str]
) -> None:
    members = [member(number, tally) for number, tally in enumerate(tallies, start=1)]
    assert outliers(BEGIN, (5.0, members)) == found


def test_a_sibling_that_fails_its_checks_counts_for_nothing() -> None:
    bad = member(1, Tally(0, 20))
    others = [member(2, Tally(50, 0), check="down"), member(3, Tally(50, 0), state="drain")]
    assert outliers(BEGIN, (5.0, [bad, *others])) == []


def test_failures_add_up_over_a_minute_and_not_over_two() -> None:
    def at(moment: float, bad: int) -> tuple[float, list[Member]]:
        return moment, [member(1, Tally(0, bad)), member(2, Tally(bad, 0)), member(3, Tally(bad, 0))]

    assert outliers(BEGIN, at(20, 5), at(40, 10)) == ["1.tiny"]
    assert outliers(BEGIN, at(20, 4), at(61, 6), at(100, 12)) == []


def test_one_that_was_well_for_long_is_found_at_the_next_look_after_it_turned_bad() -> None:
    before = (5.0, [member(number, Tally(9000, 0)) for number in (1, 2)])
    after = (10.0, [member(1, Tally(9000, 20)), member(2, Tally(9100, 0))])
    assert outliers((0.0, [member(1), member(2)]), before, after) == ["1.tiny"]


def test_counts_from_before_a_restart_of_the_balancer_or_of_another_replica_count_for_nothing() -> None:
    early = (0.0, [member(1, Tally(100, 5)), member(2, Tally(100, 0))])
    assert outliers(early, (5.0, [member(1, Tally(0, 12)), member(2, Tally(50, 0))])) == []
    joined = (5.0, [member(1, Tally(0, 50)), member(2, Tally(150, 0))])
    assert outliers((0.0, [member(2, Tally(100, 0))]), joined) == []


def test_a_finding_stays_until_the_replica_is_gone_or_was_well_for_a_minute() -> None:
    looks = [BEGIN, (5.0, [member(1, Tally(0, 20)), member(2, Tally(50)), member(3, Tally(50))])]
    spared = member(1, Tally(0, 20), state="drain", is_outlier=True)
    siblings = [member(2, Tally(60)), member(3, Tally(60))]
    assert outliers(*looks, (100.0, [spared, *siblings])) == ["1.tiny"]
    assert outliers(*looks, (100.0, siblings)) == []
    well = [(70.0, [member(1, Tally(0, 20)), *siblings]), (140.0, [member(1, Tally(50, 20)), *siblings])]
    assert outliers(*looks, well[0]) == ["1.tiny"]
    assert outliers(*looks, *well) == []


@pytest.mark.parametrize(
    ("tallies", "complaint"),
    [
        ([Tally(0, 20), Tally(5, 20)], "40 of 45 requests and checks failed on 2 of 2 replicas"),
        (
            [Tally(0, 20), Tally(0, 20), Tally(50, 0)],
            "40 of 40 requests and checks failed on 2 of 3 replicas",
        ),
        ([Tally(0, 20)], "20 of 20 requests and checks failed on 1 of 1 replicas"),
        ([Tally(0, 20), Tally(0, 0), Tally(0, 0)], None),
        ([Tally(0, 20), Tally(50, 0)], None),
    ],
)
def test_a_model_most_of_whose_replicas_fail_is_complained_of_until_it_was_well_for_a_minute(
    tallies: list[Tally], complaint: str | None
) -> None:
    numbers = range(1, len(tallies) + 1)
    watched = watch_traffic(state(*map(member, numbers)), {}, 0.0, 10)
    watched = watch_traffic(state(*map(member, numbers, tallies)), watched, 60.0, 10)
    assert complaints_of(watched) == ({"tiny": complaint} if complaint else {})
    well = [Tally(tally.good + 50, tally.bad) for tally in tallies]
    assert complaints_of(watch_traffic(state(*map(member, numbers, well)), watched, 121.0, 10)) == {}


def test_a_single_replica_is_never_an_outlier_and_nobody_looks_where_the_setting_says_so() -> None:
    assert outliers((0.0, [member(1)]), (5.0, [member(1, Tally(0, 90))])) == []
    bad = (5.0, [member(1, Tally(0, 90)), member(2, Tally(90))])
    assert outliers(BEGIN, bad, least=0) == []


def test_an_outlier_is_spared_while_another_answers_and_asked_again_where_none_does() -> None:
    bad = member(1, is_outlier=True)
    spared = replace(bad, state="drain")
    assert choose_spared(Route("tiny", 300, None, (bad, member(2)))) == ("1.tiny",)
    assert choose_spared(Route("tiny", 300, None, (bad, member(2, check="down")))) == ()
    assert choose_spared(Route("tiny", 300, None, (bad, member(2, is_outlier=True)))) == ()
    assert choose_restored(Route("tiny", 300, None, (spared, member(2)))) == ()
    assert choose_restored(Route("tiny", 300, None, (spared, member(2, check="down")))) == ("1.tiny",)
    assert choose_restored(Route("tiny", 300, None, (replace(spared, check="down"),))) == ()


def test_the_commands_mark_the_outlier_and_never_take_the_last_member() -> None:
    members = (member(1, version="1"), member(2, version="1"))
    backends = [Backend(1, 4, Route("tiny", 60, None, members), {"1.tiny": 1, "2.tiny": 2})]
    assert plan_sparing(backends, "tiny", ["1.tiny"]) == [
        "set server pool-1/p1s1 state drain",
        f"set map {NAMES_MAP} p1s1 1.tiny@1~outlier",
    ]
    assert plan_sparing(backends, "tiny", ["1.tiny", "2.tiny"]) == []
    marked = (replace(members[0], state="drain", is_outlier=True), members[1])
    backends = [replace(backends[0], route=Route("tiny", 60, None, marked))]
    assert f"set map {NAMES_MAP} p1s1 1.tiny@1" in plan_switch(backends, "tiny", {"1.tiny"}, set())
    assert parse_member_name("1.tiny@1~outlier") == ("1", True)
    assert parse_member_name("1.tiny@1.0") == ("1.0", False)


def test_what_haproxy_counted_is_read_for_each_member() -> None:
    header = (
        "# pxname,svname,scur,status,check_status,last_chk,hrsp_2xx,hrsp_4xx,hrsp_5xx,econ,eresp,chkfail,"
    )
    shown = ANSWER.replace("# pxname,svname,scur,status,check_status,last_chk,", header)
    shown = shown.replace("pool-1,p1s2,0,UP 5/7,* L7OK,,", "pool-1,p1s2,0,UP 5/7,* L7OK,,7,2,3,1,4,5,")
    route = parse_backends(shown)[0].route
    assert route is not None
    assert [item.tally for item in route.members] == [Tally(), Tally(9, 8, 5), Tally(), Tally()]


@pytest.mark.slow
def test_a_replica_that_answers_500_is_spared_and_replaced_and_the_last_one_never_is(
    environment: Environment,
) -> None:
    environment.want(replicas=2)
    environment.roll_out()
    engine, project = environment.engine, environment.project
    balancer = HaproxyBalancer(engine, balancer_name(project), environment.file.balancer_options)
    engine.kill(f"{project}-tiny-1", "SIGUSR1")
    watched = watch_traffic(observe(engine, project).state, {}, 0.0, 10)
    for _ in range(60):
        assert httpx.post(environment.url()).status_code in {200, 500}
    watched = watch_traffic(observe(engine, project).state, watched, 5.0, 10)
    assert list(outliers_of(watched)) == ["1.tiny"]
    balancer.spare("tiny", ["1.tiny", "2.tiny"])
    assert {item.state for item in balancer.read_members("tiny")} == {"ready"}, "nobody is left to answer"
    balancer.spare("tiny", ["1.tiny"])
    assert balancer.settle() is False, "what is on disk is what is in force"
    with Clients(environment.url(), count=4) as clients:
        steps = [step.kind for step in environment.roll_out().steps]
    assert clients.failures == [] and clients.answered
    assert "create replica" in steps and "remove replica" in steps
    assert sorted(environment.containers()) == [f"{project}-tiny-2", f"{project}-tiny-3"]
    assert plan_environment(observe(engine, project), environment.file).is_empty
