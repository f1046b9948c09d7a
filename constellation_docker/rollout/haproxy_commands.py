"""Which runtime commands bring about a change at HAProxy, decided from what is in force.

Reference: https://docs.haproxy.org/2.6/management.html#9.3
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from constellation_docker.compose.balancer_config import rate_value
from constellation_docker.rollout.balancer import Member, Route
from constellation_docker.rollout.errors import BalancerRefused
from constellation_docker.rollout.haproxy_config import (
    FREE_ADDRESS,
    FREE_HOST,
    FREE_PORT,
    LIMITS_MAP,
    NAMES_MAP,
    PATHS_MAP,
    RATES_MAP,
    ROUTES_MAP,
    TIMEOUTS_MAP,
    Backend,
    member_name,
    timeout_milliseconds,
)


def backend_of(backends: Sequence[Backend], slug: str) -> Backend | None:
    """The backend of a route; None where it has none."""
    return next((backend for backend in backends if backend.route and backend.route.slug == slug), None)


def choose_backend(backends: Sequence[Backend], slug: str, hosts: Sequence[str]) -> Backend | None:
    """The backend for members that are about to join: the route's own, else the smallest spare one with room.

    Returns:
        None where none has room.
    """
    own = backend_of(backends, slug)
    if own is not None:
        joining = [host for host in hosts if host not in own.places]
        return own if len(own.places) + len(joining) <= own.slots else None
    spare = [backend for backend in backends if backend.route is None and not backend.places]
    fitting = [backend for backend in spare if backend.slots >= len(hosts)]
    return min(fitting, key=lambda backend: (backend.slots, backend.number), default=None)


def plan_registration(backend: Backend, route: Route, members: Sequence[Member]) -> list[str]:
    """The commands that let members join a backend, draining."""
    commands = _plan_route(backend, route)
    free = [slot for slot in range(1, backend.slots + 1) if slot not in backend.places.values()]
    for member in members:
        if member.host in backend.places:
            continue
        name = backend.server(free.pop(0))
        server = f"{backend.name}/{name}"
        commands += [
            f"add map {PATHS_MAP} {name} {member.ready_path}",
            f"add map {NAMES_MAP} {name} {member_name(member)}",
            f"set server {server} addr {member.address or FREE_ADDRESS} port {member.port}",
            f"set server {server} fqdn {member.host}",
            f"set server {server} state drain",
        ]
    return commands


def plan_route_removal(backends: Sequence[Backend], slug: str) -> list[str]:
    """The commands that take a route and all its members away."""
    backend = backend_of(backends, slug)
    if backend is None or backend.route is None:
        return []
    keys = {ROUTES_MAP: slug, TIMEOUTS_MAP: slug, NAMES_MAP: backend.name}
    if backend.route.max_body_bytes is not None:
        keys[LIMITS_MAP] = slug
    if backend.route.rate_limit is not None:
        keys[RATES_MAP] = slug
    commands = [f"del map {path} {key}" for path, key in keys.items()]
    return commands + plan_removal(backends, slug, list(backend.places))


def _plan_route(backend: Backend, route: Route) -> list[str]:
    present = backend.route
    commands = []
    if present is None:
        commands += [
            f"add map {ROUTES_MAP} {route.slug} {backend.name}",
            f"add map {NAMES_MAP} {backend.name} {route.slug}",
        ]
    before, after = _entries(present), _entries(route)
    for path in (TIMEOUTS_MAP, LIMITS_MAP, RATES_MAP):
        old, new = before.get(path), after.get(path)
        if old == new:
            continue
        if new is None:
            commands.append(f"del map {path} {route.slug}")
        else:
            commands.append(f"{'add' if old is None else 'set'} map {path} {route.slug} {new}")
    return commands


def _entries(route: Route | None) -> dict[str, str]:
    if route is None:
        return {}
    entries = {TIMEOUTS_MAP: str(timeout_milliseconds(route))}
    if route.max_body_bytes is not None:
        entries[LIMITS_MAP] = str(route.max_body_bytes)
    if route.rate_limit is not None:
        entries[RATES_MAP] = rate_value(route.rate_limit)
    return entries


def plan_switch(
    backends: Sequence[Backend],
    slug: str,
    ready: Collection[str],
    drain: Collection[str],
    *,
    is_gentle: bool = False,
) -> list[str]:
    """The commands that make members ready, then drain others.

    Args:
        backends: What is in force.
        slug: The route.
        ready: Hosts of the members that are to be given requests.
        drain: Hosts of those that are to be given none any more.
        is_gentle: Whether new members begin with a small share where others go on beside them (slow start).
    """
    backend = backend_of(backends, slug)
    if backend is None:
        return []
    missing = sorted(set(ready) - set(backend.places))
    if missing:
        raise BalancerRefused(
            f"The balancer does not know {', '.join(missing)} of {slug}.",
            remedy="Launch the deployment again.",
            slug=slug,
        )

    def name(host: str) -> str:
        return f"{backend.name}/{backend.server(backend.places[host])}"

    members = backend.route.members if backend.route else ()
    serving = {member.host for member in members if member.state == "ready"}
    outliers = {member.host: member for member in members if member.is_outlier}
    is_beside_others = bool(serving - set(drain) - set(ready))
    commands = []
    for host in sorted(ready):
        # The file on disk says `weight 0` of a member that drains, so one read from there must get its weight back.
        commands.append(f"set server {name(host)} weight 1")
        if host in outliers:
            commands.append(_mark(backend, outliers[host], is_outlier=False))
        if is_gentle and is_beside_others and host not in serving:
            # HAProxy's slow start begins where a server leaves maintenance. It would also forget that the checks
            # were good, and take the server out at the first bad one.
            commands += [
                f"set server {name(host)} state maint",
                f"set server {name(host)} state ready",
                f"set server {name(host)} health up",
            ]
        else:
            commands.append(f"set server {name(host)} state ready")
    commands += [f"set server {name(host)} state drain" for host in sorted(drain) if host in backend.places]
    return commands


def plan_sparing(backends: Sequence[Backend], slug: str, hosts: Collection[str]) -> list[str]:
    """The commands that keep outliers from further requests, and mark them.

    Returns:
        Nothing where no other member could answer instead: an answer that may fail is better than none.
    """
    backend = backend_of(backends, slug)
    if backend is None or backend.route is None:
        return []
    members = backend.route.members
    if not any(member.is_serving and member.host not in hosts for member in members):
        return []
    commands = []
    for member in members:
        if member.host in hosts and member.state == "ready":
            server = f"{backend.name}/{backend.server(backend.places[member.host])}"
            commands += [f"set server {server} state drain", _mark(backend, member, is_outlier=True)]
    return commands


def _mark(backend: Backend, member: Member, *, is_outlier: bool) -> str:
    name = member_name(replace(member, is_outlier=is_outlier))
    return f"set map {NAMES_MAP} {backend.server(backend.places[member.host])} {name}"


def plan_removal(backends: Sequence[Backend], slug: str, hosts: Collection[str]) -> list[str]:
    """The commands that free members' slots."""
    backend = backend_of(backends, slug)
    if backend is None:
        return []
    addressed = {member.host for member in (backend.route.members if backend.route else ()) if member.address}
    commands = []
    for host in sorted(set(hosts) & set(backend.places)):
        name = backend.server(backend.places[host])
        server = f"{backend.name}/{name}"
        commands.append(f"set server {server} state maint")
        # Another name may take the address away until it is resolved, and without one HAProxy refuses any other. So
        # the address comes first, and where there is none the name brings one.
        if host in addressed:
            commands.append(f"set server {server} addr {FREE_ADDRESS} port {FREE_PORT}")
        commands += [
            f"set server {server} fqdn {FREE_HOST}",
            f"del map {PATHS_MAP} {name}",
            f"del map {NAMES_MAP} {name}",
        ]
    return commands
