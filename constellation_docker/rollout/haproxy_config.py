"""HAProxy's configuration under our rollouts: a pool of equal backends, and maps that say what each is for.

HAProxy 2.6 can neither add a backend nor change a server's health check while it runs, and after a reload the former
process goes on for the clients that it has, with the replicas of then. So backends and server slots are made in advance, and whatever differs between models
(which backend, readiness path, timeout, body limit) lies in maps, which the runtime socket can change. Only a pool that
has run out is enlarged by a reload.
Reference: https://docs.haproxy.org/2.6/configuration.html and management.html (§9.3); understood by 2.6 and later.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from constellation_docker.compose.balancer_config import (
    CONFIG_PATH,
    DEFAULT_TIMEOUT_SECONDS,
    HEALTH_RULE,
    TIMEOUT_MARGIN_SECONDS,
    TOO_LARGE,
    UNKNOWN_MODEL,
    BalancerOptions,
    rate_value,
    render_frontend_beginning,
    render_preamble,
    render_prefix_rules,
    render_rate_rules,
)
from constellation_docker.rollout.balancer import Member, Route

FOLDER = CONFIG_PATH.rpartition("/")[0]
ROUTES_MAP = f"{FOLDER}/routes.map"
PATHS_MAP = f"{FOLDER}/ready-paths.map"
TIMEOUTS_MAP = f"{FOLDER}/timeouts.map"
LIMITS_MAP = f"{FOLDER}/limits.map"
RATES_MAP = f"{FOLDER}/rates.map"
# What a backend or a server is for, for the status page.
NAMES_MAP = f"{FOLDER}/names.map"
LOCK_MAP = f"{FOLDER}/lock.map"
# A server slot that is not in use points to a port of the balancer itself where nothing listens: HAProxy refuses to
# change the address of a server whose name does not resolve, and this name always does.
FREE_HOST = "balancer"
FREE_ADDRESS = "127.0.0.1"
FREE_PORT = 9
SLOTS = 8
SPARE_BACKENDS = 32
# Says on the runtime socket (`show env`) which configuration is in force, apart from routes and members.
LAYOUT_VARIABLE = "CONSTELLATION_LAYOUT"
_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]")
# Ends the name of a server that is kept from requests because it fails them. No host and no version has the sign.
_OUTLIER_MARK = "~outlier"


@dataclass(frozen=True)
class Backend:
    """One backend of the pool.

    Attributes:
        number: From 1.
        slots: How many servers it has room for.
        route: What it is for; None: it is spare.
        places: Its members' slots (from 1), by host.
    """

    number: int
    slots: int = SLOTS
    route: Route | None = None
    places: dict[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its name in the configuration."""
        return f"pool-{self.number}"

    def server(self, slot: int) -> str:
        """The name of one of its servers; unique in the whole configuration."""
        return f"p{self.number}s{slot}"


def slots_for(members: int) -> int:
    """How many server slots a backend with so many members gets: room for a second generation and more."""
    slots = SLOTS
    while slots < 2 * members + 2:
        slots *= 2
    return slots


def plan_layout(routes: Sequence[Route], *, at_least: dict[str, int] | None = None) -> list[Backend]:
    """A fresh layout with room for all routes, and for more.

    Args:
        routes: The present routes.
        at_least: How many members a route is about to have, by slug, where that is more than it has.
    """
    expected = at_least or {}
    known = {route.slug: route for route in routes}
    backends = []
    for number, slug in enumerate(sorted(known.keys() | expected.keys()), start=1):
        route = known.get(slug)
        members = route.members if route else ()
        places = {member.host: slot for slot, member in enumerate(members, start=1)}
        backends.append(Backend(number, slots_for(max(len(members), expected.get(slug, 0))), route, places))
    spare = max(SPARE_BACKENDS, len(backends) // 2)
    first = len(backends) + 1
    backends += [Backend(number) for number in range(first, first + spare)]
    return backends


# A server that has lost its address to DNS takes no other over the runtime socket ("current server address family"),
# so the slot of a container that somebody removed could not be freed. Who is there is the rollout's to say; a replica
# that is gone fails its checks. The longest that HAProxy counts to is 24 days.
NEVER = "24d"


def render_files(backends: Sequence[Backend], options: BalancerOptions | None = None) -> dict[str, str]:
    """All files of the configuration, by their paths. The main file is the last one.

    Args:
        backends: What is in force, or is to be.
        options: What the environment's settings say.
    """
    used = [(backend, backend.route) for backend in backends if backend.route is not None]
    paths = [
        f"{backend.server(backend.places[member.host])} {member.ready_path}"
        for backend, route in used
        for member in route.members
    ]
    limits = [(route.slug, route.max_body_bytes) for _, route in used if route.max_body_bytes is not None]
    rates = [(route.slug, rate_value(route.rate_limit)) for _, route in used if route.rate_limit is not None]
    names = [entry for backend, route in used for entry in _names(backend, route)]
    return {
        ROUTES_MAP: _lines(f"{route.slug} {backend.name}" for backend, route in used),
        PATHS_MAP: _lines(paths),
        TIMEOUTS_MAP: _lines(f"{route.slug} {timeout_milliseconds(route)}" for _, route in used),
        LIMITS_MAP: _lines(f"{slug} {limit}" for slug, limit in limits),
        RATES_MAP: _lines(f"{slug} {rate}" for slug, rate in rates),
        NAMES_MAP: _lines(f"{key} {name}" for key, name in names),
        LOCK_MAP: "",
        CONFIG_PATH: _render_config(backends, options or BalancerOptions()),
    }


def timeout_milliseconds(route: Route) -> int:
    """How long the balancer waits for an answer on a route."""
    return round((route.timeout_seconds + TIMEOUT_MARGIN_SECONDS) * 1000)


def member_name(member: Member) -> str:
    """What the status page is told of a server: host and version, without a space, and whether it is an outlier.

    The entry outlives a restart, and any run reads from it what an earlier look found out.
    """
    mark = _OUTLIER_MARK if member.is_outlier else ""
    return f"{_UNSAFE.sub('_', member.host)}@{_UNSAFE.sub('_', member.version)}{mark}"


def parse_member_name(name: str) -> tuple[str, bool]:
    """The version, and whether it is an outlier, from what `member_name` wrote."""
    version = name.partition("@")[2]
    return version.removesuffix(_OUTLIER_MARK), version.endswith(_OUTLIER_MARK)


def layout_of(options: BalancerOptions) -> str:
    """Names everything in the configuration but routes and members. It changes with the settings and with releases.

    Args:
        options: What the environment's settings say.
    """
    text = _render_config([Backend(1, 1)], options, layout="")
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _names(backend: Backend, route: Route) -> Iterable[tuple[str, str]]:
    yield backend.name, route.slug
    for member in route.members:
        yield backend.server(backend.places[member.host]), member_name(member)


def _render_config(
    backends: Sequence[Backend], options: BalancerOptions, *, layout: str | None = None
) -> str:
    default_timeout = (DEFAULT_TIMEOUT_SECONDS + TIMEOUT_MARGIN_SECONDS) * 1000
    frontend = f"""\
{render_frontend_beginning(options)}    {HEALTH_RULE}
    # A map must be used somewhere to be known to the runtime socket; this one is a lock.
    http-request deny if {{ always_false }} {{ str(lock),map({LOCK_MAP}) -m found }}
    http-request set-var(txn.pool) var(txn.slug),map_str({ROUTES_MAP})
    {UNKNOWN_MODEL} unless {{ var(txn.pool) -m found }}
    http-request set-var(txn.rate) var(txn.slug),map_str({RATES_MAP})
{render_rate_rules()}    http-request set-var(txn.timeout) var(txn.slug),map_str_int({TIMEOUTS_MAP},{default_timeout})
    http-request set-var(txn.limit) var(txn.slug),map_str_int({LIMITS_MAP},0)
    http-request set-var(txn.excess) req.hdr_val(content-length),sub(txn.limit)
    {TOO_LARGE} if {{ var(txn.limit) -m int gt 0 }} {{ var(txn.excess) -m int gt 0 }}
{render_prefix_rules(is_secure=options.tls_minimum is not None)}    use_backend %[var(txn.pool)]
"""
    preamble = render_preamble(
        options,
        forget_absent_after=NEVER,
        mark=f"    setenv {LAYOUT_VARIABLE} {layout_of(options) if layout is None else layout}\n",
        name_rule=_NAME_RULE,
    )
    # The map must be used somewhere to be known to the runtime socket, also where there is no status page.
    frontend += f"\nbackend names\n    http-request deny if {{ always_false }} {{ str(none),map({NAMES_MAP}) -m found }}\n"
    return "\n".join([preamble, frontend, *map(_render_backend, backends)])


_NAME_RULE = (
    "    http-request return status 200 content-type text/plain "
    f"lf-string %[path,field(3,/),map_str({NAMES_MAP})] if {{ path_beg /names/ }}\n"
)


def _render_backend(backend: Backend) -> str:
    lines = [
        f"backend {backend.name}",
        "    balance leastconn",
        "    http-request set-timeout server var(txn.timeout)",
        "    option httpchk",
        f"    http-check send meth GET uri-lf %[srv_name,map_str({PATHS_MAP},/ready)] ver HTTP/1.1 hdr Host balancer",
        "    http-check expect status 200-299",
        # Without it HAProxy lets only one of the free slots have the address that they share.
        "    default-server resolve-opts allow-dup-ip",
    ]
    members = {
        backend.places[member.host]: member for member in (backend.route.members if backend.route else ())
    }
    for slot in range(1, backend.slots + 1):
        lines.append(f"    server {backend.server(slot)} {_render_server(members.get(slot))}")
    return "\n".join(lines) + "\n"


def _render_server(member: Member | None) -> str:
    if member is None:
        return f"{FREE_HOST}:{FREE_PORT} init-addr {FREE_ADDRESS} disabled"
    # `state drain` has no word in the file; a server without weight gets no requests either.
    weight = {"ready": "", "drain": " weight 0", "maint": " disabled"}[member.state]
    return f"{member.host}:{member.port} init-addr libc,none{weight}"


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
