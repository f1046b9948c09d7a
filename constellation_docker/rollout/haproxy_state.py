"""What HAProxy's runtime socket shows, as data."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from constellation_docker.compose.balancer_config import (
    DEFAULT_TIMEOUT_SECONDS,
    FALL,
    RISE,
    TIMEOUT_MARGIN_SECONDS,
    parse_rate,
)
from constellation_docker.rollout.balancer import CheckState, Member, MemberState, Route, Tally
from constellation_docker.rollout.haproxy_config import (
    FREE_HOST,
    LAYOUT_VARIABLE,
    LIMITS_MAP,
    NAMES_MAP,
    PATHS_MAP,
    RATES_MAP,
    ROUTES_MAP,
    TIMEOUTS_MAP,
    Backend,
    parse_member_name,
)

_POOL = re.compile(r"pool-(\d+)")
# Flags of srv_admin_state (management.html, "show servers state"). 0x04 only remembers that the file says `disabled`.
_MAINTENANCE = 0x01 | 0x02
_DRAINING = 0x08 | 0x10
_FAILED = "2"  # srv_check_result
_UP = {"1", "2"}  # srv_op_state: starting (its share still grows), running

SHOW_MAPS = tuple(
    f"show map {path}" for path in (ROUTES_MAP, TIMEOUTS_MAP, LIMITS_MAP, PATHS_MAP, RATES_MAP, NAMES_MAP)
)
SHOW_LAYOUT = f"show env {LAYOUT_VARIABLE}"


def show_all() -> tuple[str, ...]:
    """The commands whose answer `parse_backends` reads."""
    return ("show servers state", "show stat -1 4 -1", *SHOW_MAPS, SHOW_LAYOUT)


def show_backend(name: str) -> tuple[str, ...]:
    """The same for one backend."""
    return (f"show servers state {name}", f"show stat {name} 4 -1", *SHOW_MAPS)


def parse_backends(answer: str) -> list[Backend]:
    """The backends of the pool, from the answer to `show_all()`; none where another configuration is in force."""
    sections = _sections(answer)
    # Answers of other commands may stand before.
    first = next((index for index, lines in enumerate(sections) if _is_state(lines)), len(sections))
    sections = sections[first:]
    sections += [[] for _ in range(2 + len(SHOW_MAPS) - len(sections))]
    servers, shown = sections[0], _statistics(sections[1])
    maps = _Maps(*map(_map, sections[2 : 2 + len(SHOW_MAPS)]))
    slug_of = {backend: slug for slug, backend in maps.routes.items()}
    backends: dict[int, list[dict[str, str]]] = {}
    for row in _servers(servers):
        if match := _POOL.fullmatch(row["be_name"]):
            backends.setdefault(int(match[1]), []).append(row)
    return [
        _backend(number, rows, shown, slug_of.get(f"pool-{number}"), maps)
        for number, rows in sorted(backends.items())
    ]


def parse_layout(answer: str) -> str:
    """Which configuration is in force (`layout_of`), from the answer to `show_all()`; empty where it does not say."""
    found = re.search(rf"^{LAYOUT_VARIABLE}=(\S+)$", answer, re.MULTILINE)
    return found[1] if found else ""


def parse_map(answer: str) -> list[tuple[str, str, str]]:
    """The entries of one shown map in their order: reference, key, value."""
    found = re.findall(r"^(0x[0-9a-f]+) (\S+) ?(.*)$", answer, re.MULTILINE)
    return [(reference, key, value) for reference, key, value in found]


class _Maps(NamedTuple):
    """The maps, in the order of `SHOW_MAPS`."""

    routes: Mapping[str, str]
    timeouts: Mapping[str, str]
    limits: Mapping[str, str]
    paths: Mapping[str, str]
    rates: Mapping[str, str]
    names: Mapping[str, str]


def _backend(
    number: int,
    rows: list[dict[str, str]],
    shown: Mapping[tuple[str, str], dict[str, Any]],
    slug: str | None,
    maps: _Maps,
) -> Backend:
    members: list[Member] = []
    places: dict[str, int] = {}
    for row in rows:
        name = row["srv_name"]
        if row["srv_fqdn"] in {FREE_HOST, "-"}:
            continue
        statistics = shown.get((row["be_name"], name), {})
        places[row["srv_fqdn"]] = int(name.rpartition("s")[2])
        members.append(_member(row, statistics, maps.paths.get(name, "/ready"), maps.names.get(name, "")))
    route = None
    if slug is not None:
        default = (DEFAULT_TIMEOUT_SECONDS + TIMEOUT_MARGIN_SECONDS) * 1000
        milliseconds = float(maps.timeouts.get(slug, default))
        route = Route(
            slug,
            milliseconds / 1000 - TIMEOUT_MARGIN_SECONDS,
            int(maps.limits[slug]) if slug in maps.limits else None,
            tuple(members),
            parse_rate(maps.rates.get(slug, "")),
        )
    return Backend(number, len(rows), route, places)


def _member(row: Mapping[str, str], shown: Mapping[str, Any], path: str, name: str) -> Member:
    admin = int(row["srv_admin_state"])
    state: MemberState = "ready"
    if admin & _MAINTENANCE:
        state = "maint"
    elif admin & _DRAINING or row["srv_uweight"] == "0":
        state = "drain"
    version, is_outlier = parse_member_name(name)
    return Member(
        host=row["srv_fqdn"],
        port=int(row["srv_port"]),
        ready_path=path,
        state=state,
        check=_check(shown.get("status", ""), shown.get("check_status", "")),
        in_flight=int(shown.get("scur") or 0),
        address=None if row["srv_addr"] == "-" else row["srv_addr"],
        failures=_failures(row),
        reason=" ".join(part for part in (shown.get("check_status", ""), shown.get("last_chk", "")) if part),
        version=version,
        is_outlier=is_outlier,
        tally=_tally(shown),
    )


def _tally(shown: Mapping[str, Any]) -> Tally:
    """From the statistics of a server (management.html, 9.1). An answer with 5xx is no response error, and the other
    way round: what broke off has no status from the server."""

    def total(*names: str) -> int:
        return sum(int(shown.get(name) or 0) for name in names)

    return Tally(
        good=total("hrsp_1xx", "hrsp_2xx", "hrsp_3xx", "hrsp_4xx"),
        bad=total("hrsp_5xx", "econ", "eresp"),
        failed_checks=total("chkfail"),
    )


def _check(status: str, check_status: str) -> CheckState:
    if status.startswith("DOWN") or "resolution" in status:
        return "down"
    # `UP 2/3` still serves after a failed check. `DRAIN 1/3` has not been checked since it joined: only a whole
    # `DRAIN` was found well.
    passed = check_status.removeprefix("* ").startswith(("L7OK", "L7OKC"))
    if passed and (status.startswith("UP") or status == "DRAIN"):
        return "up"
    return "unknown"


def _failures(row: Mapping[str, str]) -> int:
    # srv_check_health falls from rise + fall - 1 by one with every failure while the server is up.
    is_failing = row["srv_op_state"] in _UP and row["srv_check_result"] == _FAILED
    return max(0, RISE + FALL - 1 - int(row["srv_check_health"])) if is_failing else 0


def _sections(answer: str) -> list[list[str]]:
    # An empty line ends each command's answer.
    sections: list[list[str]] = [[]]
    for line in answer.split("\n"):
        if line:
            sections[-1].append(line)
        else:
            sections.append([])
    return sections


def _is_state(lines: list[str]) -> bool:
    return any(line.startswith("# be_id") for line in lines)


def _servers(lines: list[str]) -> list[dict[str, str]]:
    header = next((index for index, line in enumerate(lines) if line.startswith("# be_id")), None)
    if header is None:
        return []
    names = lines[header].removeprefix("# ").split()
    return [dict(zip(names, line.split(), strict=False)) for line in lines[header + 1 :]]


def _statistics(lines: list[str]) -> dict[tuple[str, str], dict[str, Any]]:
    if not lines or not lines[0].startswith("# pxname"):
        return {}
    rows = csv.DictReader([lines[0].removeprefix("# "), *lines[1:]])
    return {(row["pxname"], row["svname"]): row for row in rows}


def _map(lines: list[str]) -> dict[str, str]:
    return {key: value for _, key, value in parse_map("\n".join(lines))}
