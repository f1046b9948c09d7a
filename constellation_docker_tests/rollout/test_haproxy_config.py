"""What is asked of HAProxy, and what it answers, as data."""

from __future__ import annotations

from pathlib import Path

import pytest

from constellation_docker.rollout import BalancerRefused, Member, Route
from constellation_docker.rollout.haproxy import (
    choose_backend,
    plan_registration,
    plan_removal,
    plan_switch,
)
from constellation_docker.rollout.haproxy_config import (
    CONFIG_PATH,
    LIMITS_MAP,
    PATHS_MAP,
    ROUTES_MAP,
    Backend,
    plan_layout,
    render_files,
    slots_for,
)
from constellation_docker.rollout.haproxy_state import parse_backends, parse_map

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
    backends = [Backend(1, 4, Route("tiny", 60, None, (member(1),)), {"1.tiny": 1})]
    assert plan_removal(backends, "tiny", ["1.tiny", "7.tiny"]) == [
        "set server pool-1/p1s1 state maint",
        "set server pool-1/p1s1 fqdn balancer",
        "set server pool-1/p1s1 addr 127.0.0.1 port 9",
        f"del map {PATHS_MAP} p1s1",
    ]
