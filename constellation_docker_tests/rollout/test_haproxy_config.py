"""What is asked of HAProxy, and what it answers, as data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from constellation_docker.cards.serving_options import RateLimit
from constellation_docker.compose.balancer_config import BalancerOptions, parse_rate, rate_value
from constellation_docker.rollout import BalancerRefused, Member, Route
from constellation_docker.rollout.haproxy_commands import (
    choose_backend,
    plan_registration,
    plan_removal,
    plan_route_removal,
    plan_switch,
)
from constellation_docker.rollout.haproxy_config import (
    CONFIG_PATH,
    LIMITS_MAP,
    NAMES_MAP,
    PATHS_MAP,
    RATES_MAP,
    ROUTES_MAP,
    TIMEOUTS_MAP,
    Backend,
    layout_of,
    plan_layout,
    render_files,
    slots_for,
)
from constellation_docker.rollout.haproxy_state import parse_backends, parse_layout, parse_map

ANSWER = (Path(__file__).parent / "haproxy_answer.txt").read_text()


def member(number: int, state: str = "ready", **changes: object) -> Member:
    return Member(f"{number}.tiny", 8080, "/ready", state, "up", **changes)  # type: ignore[arg-type]


def test_what_haproxy_shows_is_read_as_routes_with_their_members() -> None:
    backends = parse_backends(ANSWER)
    assert [backend.name for backend in backends] == ["pool-1", "pool-2"]
    route = backends[0].route
    assert route is not None
    assert (route.slug, route.timeout_seconds, route.max_body_bytes) == ("tiny", 60.0, 1000)
    assert [(m.host, m.port, m.ready_path, m.state, m.check, m.in_flight) for m in route.members] == [
        ("1.tiny", 8080, "/ready", "drain", "up", 3),
        ("2.tiny", 9000, "/health", "ready", "up", 0),
        ("3.tiny", 8080, "/ready", "drain", "unknown", 0),
        ("4.tiny", 8080, "/ready", "ready", "down", 0),
    ]
    assert [m.failures for m in route.members] == [0, 2, 0, 0]
    assert backends[0].places == {"1.tiny": 1, "2.tiny": 2, "3.tiny": 3, "4.tiny": 4}
    assert backends[1] == Backend(2, 1)


def test_another_configuration_than_ours_has_no_pool() -> None:
    assert (
        parse_backends("1\n# be_id be_name srv_id srv_name\n4 tiny 1 replica1\n\n# pxname,svname\n\n") == []
    )
    assert parse_backends("") == []


def test_a_maps_entries_keep_their_order() -> None:
    shown = "\n0x55 lock aaaa\n0x11 lock bbbb\n\n"
    assert parse_map(shown) == [("0x55", "lock", "aaaa"), ("0x11", "lock", "bbbb")]


def test_there_is_room_for_a_second_generation() -> None:
    assert [slots_for(members) for members in (1, 3, 4, 20)] == [8, 8, 16, 64]


def test_a_layout_keeps_routes_and_has_spare_backends() -> None:
    route = Route("tiny", 60, 1000, (member(1), member(2, "drain")))
    backends = plan_layout([route], at_least={"big": 40})
    by_slug = {backend.route.slug: backend for backend in backends if backend.route}
    assert by_slug["tiny"].places == {"1.tiny": 1, "2.tiny": 2}
    assert max(backend.slots for backend in backends) == slots_for(40)
    assert len([backend for backend in backends if backend.route is None]) >= 32
    files = render_files(backends)
    assert files[ROUTES_MAP] == "tiny pool-2\n"
    assert files[PATHS_MAP] == "p2s1 /ready\np2s2 /ready\n"
    assert files[LIMITS_MAP] == "tiny 1000\n"
    assert "server p2s1 1.tiny:8080 init-addr libc,none\n" in files[CONFIG_PATH]
    assert "server p2s2 2.tiny:8080 init-addr libc,none weight 0\n" in files[CONFIG_PATH]
    assert list(files)[-1] == CONFIG_PATH


def test_a_new_route_takes_the_smallest_spare_backend_that_fits() -> None:
    backends = [Backend(1, 16), Backend(2, 8), Backend(3, 8)]
    chosen = choose_backend(backends, "tiny", ["1.tiny"])
    assert chosen is not None and chosen.number == 2
    many = choose_backend(backends, "tiny", [f"{number}.tiny" for number in range(9)])
    assert many is not None and many.number == 1
    assert choose_backend([Backend(1, 1)], "tiny", ["1.tiny", "2.tiny"]) is None


def test_a_route_that_is_there_keeps_its_backend_or_has_no_room() -> None:
    route = Route("tiny", 60, None, (member(1),))
    backend = Backend(1, 2, route, {"1.tiny": 1})
    assert choose_backend([backend, Backend(2)], "tiny", ["2.tiny"]) == backend
    assert choose_backend([backend, Backend(2)], "tiny", ["2.tiny", "3.tiny"]) is None


def test_members_join_draining_and_only_once() -> None:
    route = Route("tiny", 60, 1000, (member(1),))
    backend = Backend(1, 4, route, {"1.tiny": 1})
    commands = plan_registration(backend, route, [member(1), member(2, address="10.0.0.7")])
    assert commands == [
        f"add map {PATHS_MAP} p1s2 /ready",
        f"add map {NAMES_MAP} p1s2 2.tiny@",
        "set server pool-1/p1s2 addr 10.0.0.7 port 8080",
        "set server pool-1/p1s2 fqdn 2.tiny",
        "set server pool-1/p1s2 state drain",
    ]


def test_a_switch_gives_to_the_new_before_it_takes_from_the_old() -> None:
    backends = [Backend(1, 4, Route("tiny", 60, None, (member(1), member(2))), {"1.tiny": 1, "2.tiny": 2})]
    assert plan_switch(backends, "tiny", {"2.tiny"}, {"1.tiny", "9.tiny"}) == [
        "set server pool-1/p1s2 weight 1",
        "set server pool-1/p1s2 state ready",
        "set server pool-1/p1s1 state drain",
    ]
    with pytest.raises(BalancerRefused, match=r"does not know 9\.tiny"):
        plan_switch(backends, "tiny", {"9.tiny"}, set())


def test_a_member_that_leaves_frees_its_slot() -> None:
    backends = [Backend(1, 4, Route("tiny", 60, None, (member(1, address="10.0.0.7"),)), {"1.tiny": 1})]
    assert plan_removal(backends, "tiny", ["1.tiny", "7.tiny"]) == [
        "set server pool-1/p1s1 state maint",
        "set server pool-1/p1s1 addr 127.0.0.1 port 9",
        "set server pool-1/p1s1 fqdn balancer",
        f"del map {PATHS_MAP} p1s1",
        f"del map {NAMES_MAP} p1s1",
    ]


def test_a_member_without_an_address_gets_one_by_its_new_name() -> None:
    backends = [Backend(1, 4, Route("tiny", 60, None, (member(1),)), {"1.tiny": 1})]
    assert not [command for command in plan_removal(backends, "tiny", ["1.tiny"]) if " addr " in command]


def test_limits_of_a_route_change_one_by_one() -> None:
    route = Route("tiny", 60, 1000, (member(1),), RateLimit(requests=5, per="1m", by="key"))
    assert plan_registration(Backend(1, 4), route, [])[2:] == [
        f"add map {TIMEOUTS_MAP} tiny 65000",
        f"add map {LIMITS_MAP} tiny 1000",
        f"add map {RATES_MAP} tiny 5:60:key",
    ]
    backend = Backend(1, 4, route, {"1.tiny": 1})
    assert plan_registration(backend, replace(route, rate_limit=RateLimit(requests=6)), []) == [
        f"set map {RATES_MAP} tiny 6:1:address"
    ]
    assert plan_registration(backend, replace(route, rate_limit=None, max_body_bytes=None), []) == [
        f"del map {LIMITS_MAP} tiny",
        f"del map {RATES_MAP} tiny",
    ]
    assert f"del map {RATES_MAP} tiny" in plan_route_removal([backend], "tiny")


@pytest.mark.parametrize("limit", [RateLimit(requests=1), RateLimit(requests=100, per="1h", by="key")])
def test_a_rate_limit_is_read_back_as_it_was_written(limit: RateLimit) -> None:
    assert parse_rate(rate_value(limit)) == limit
    assert parse_rate("") is None


def test_a_member_that_joins_others_leaves_maintenance_last_so_that_its_share_grows() -> None:
    backends = [
        Backend(1, 4, Route("tiny", 60, None, (member(1), member(2, "drain"))), {"1.tiny": 1, "2.tiny": 2})
    ]
    assert plan_switch(backends, "tiny", {"2.tiny"}, set(), is_gentle=True) == [
        "set server pool-1/p1s2 weight 1",
        "set server pool-1/p1s2 state maint",
        "set server pool-1/p1s2 state ready",
        "set server pool-1/p1s2 health up",
    ]
    whole = plan_switch(backends, "tiny", {"2.tiny"}, {"1.tiny"}, is_gentle=True)
    assert "set server pool-1/p1s2 state maint" not in whole, "a new generation takes over whole"


def test_settings_and_releases_give_the_configuration_another_name_and_routes_do_not() -> None:
    plain = layout_of(BalancerOptions())
    assert plain == layout_of(BalancerOptions())
    assert (
        len({plain, layout_of(BalancerOptions("TLSv1.2")), layout_of(BalancerOptions(slow_start_seconds=0))})
        == 3
    )
    route = Route("tiny", 60, None, (member(1),))
    for routes in ([], [route]):
        assert f"CONSTELLATION_LAYOUT {plain}\n" in render_files(plan_layout(routes))[CONFIG_PATH]
    assert parse_layout(f"...\n\nCONSTELLATION_LAYOUT={plain}\n\n") == plain
    assert parse_layout("\nVariable not found\n") == ""


def test_only_a_balancer_with_a_published_metrics_port_has_a_status_page() -> None:
    without, with_page = (
        render_files([Backend(1)], BalancerOptions(has_status_page=shown))[CONFIG_PATH]
        for shown in (False, True)
    )
    assert "stats enable" not in without
    assert "stats uri /stats" in with_page and "stats admin" not in with_page
    assert "Who serves what" in with_page
