"""The balancer of an environment: HAProxy in a container, changed through its runtime socket.

Every change is made under a lock, then the configuration is rendered from what is really in force and written into the
container, so that a restart of HAProxy returns to the same state. The lock lives in HAProxy's own memory: it guards
nothing else, it works between processes and machines, and it cannot outlive what it guards.
"""

from __future__ import annotations

import io
import tarfile
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress

from constellation_docker.compose.balancer_config import CONFIG_PATH
from constellation_docker.engine import Engine, NotFound
from constellation_docker.rollout.balancer import BalancerState, Member, Route
from constellation_docker.rollout.errors import BalancerRefused, BalancerUnavailable
from constellation_docker.rollout.haproxy_config import (
    FOLDER,
    FREE_ADDRESS,
    FREE_HOST,
    FREE_PORT,
    LIMITS_MAP,
    LOCK_MAP,
    PATHS_MAP,
    ROUTES_MAP,
    TIMEOUTS_MAP,
    Backend,
    plan_layout,
    render_files,
    timeout_milliseconds,
)
from constellation_docker.rollout.haproxy_runtime import RuntimeSocket
from constellation_docker.rollout.haproxy_state import (
    parse_backends,
    parse_map,
    show_all,
    show_backend,
)

RELOAD_SECONDS = 30.0
# A holder of the lock that is seen unchanged for so long was killed. Changes take well under a second, reloads a few.
STALE_LOCK_SECONDS = 40.0
_POLL_SECONDS = 0.1


class HaproxyBalancer:
    """HAProxy behind the `Balancer` protocol.

    Args:
        engine: The engine that runs it.
        container: Its container's name.
        clock: Seconds that only grow.
        sleep: Waits so many seconds.
    """

    def __init__(
        self,
        engine: Engine,
        container: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._engine = engine
        self._socket = RuntimeSocket(engine, container)
        self.container = container
        self._clock = clock
        self._sleep = sleep
        self._pools: dict[str, str] = {}

    def answers(self) -> bool:
        """Whether HAProxy runs and its runtime socket answers."""
        try:
            return "Uptime_sec" in self._socket.ask("show info")
        except BalancerUnavailable:
            return False

    def read_if_ours(self) -> BalancerState | None:
        """What it does right now; None where another configuration than ours is in force."""
        backends = self._read()
        return _state(backends) if backends else None

    def read(self) -> BalancerState:
        """What it does right now."""
        return _state(self._read())

    def read_members(self, slug: str) -> tuple[Member, ...]:
        """The members of one route right now."""
        known = self._pools.get(slug)
        answer = self._socket.ask(*(show_backend(known) if known else show_all()))
        found = _backend_of(parse_backends(answer), slug)
        if found is None and known:
            # The route has moved to another backend since, or is gone.
            found = _backend_of(self._read(), slug)
        if found is None or found.route is None:
            self._pools.pop(slug, None)
            return ()
        self._pools[slug] = found.name
        return found.route.members

    def register(self, route: Route, members: Sequence[Member]) -> None:
        """Let members join a route, draining. The route is made where there is none."""

        def plan(backends: list[Backend]) -> list[str]:
            backend = choose_backend(backends, route.slug, [member.host for member in members])
            if backend is None:
                backends = self._enlarge(backends, route.slug, len(members))
                backend = choose_backend(backends, route.slug, [member.host for member in members])
            if backend is None:
                raise BalancerRefused(
                    f"The balancer {self.container} has no room for {len(members)} replicas of {route.slug}.",
                    remedy="Restart the balancer's container and launch the deployment again.",
                )
            return plan_registration(backend, route, members)

        self._change(plan)

    def switch(self, slug: str, *, ready: Collection[str], drain: Collection[str]) -> None:
        """Give requests to the members `ready`, and no more to `drain`, in one step."""
        self._change(lambda backends: plan_switch(backends, slug, ready, drain))

    def unregister(self, slug: str, hosts: Collection[str]) -> None:
        """Take members out of a route."""
        self._change(lambda backends: plan_removal(backends, slug, hosts))

    def remove_route(self, slug: str) -> None:
        """Take a route and all its members away."""

        def plan(backends: list[Backend]) -> list[str]:
            backend = _backend_of(backends, slug)
            if backend is None or backend.route is None:
                return []
            commands = [f"del map {ROUTES_MAP} {slug}", f"del map {TIMEOUTS_MAP} {slug}"]
            if backend.route.max_body_bytes is not None:
                commands.append(f"del map {LIMITS_MAP} {slug}")
            return commands + plan_removal(backends, slug, list(backend.places))

        self._change(plan)

    def take_over(self, routes: Sequence[Route]) -> None:
        """Put our configuration in force in an HAProxy that runs another one (a stock `docker compose up`).

        It is a reload: requests in flight are finished, idle client connections are closed.
        """
        self.save(plan_layout(routes))
        self._reload(len(plan_layout(routes)))

    def settle(self) -> bool:
        """See to it that the configuration on disk is the one in force, as it may not be after a killed run.

        Returns:
            Whether it had to be written.
        """
        if self._is_saved(self._read()):
            return False
        with self._lock() as backends:
            self.save(backends)
        return True

    def save(self, backends: Sequence[Backend]) -> None:
        """Write a configuration into the container, whether it runs or not."""
        self._engine.put_archive(self.container, "/", pack_files(render_files(backends)))

    def _is_saved(self, backends: Sequence[Backend]) -> bool:
        try:
            packed = self._engine.get_archive(self.container, FOLDER)
        except NotFound:
            return False
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            members = {member.name.rpartition("/")[2]: member for member in archive if member.isfile()}
            for path, text in render_files(backends).items():
                member = members.get(path.rpartition("/")[2])
                content = archive.extractfile(member) if member else None
                if content is None or content.read() != text.encode():
                    return False
        return True

    def _read(self) -> list[Backend]:
        return parse_backends(self._socket.ask(*show_all()))

    def _change(self, plan: Callable[[list[Backend]], list[str]]) -> None:
        with self._lock() as backends:
            commands = plan(backends)
            if commands:
                self.save(parse_backends(self._socket.tell(commands, then=show_all())))

    def _enlarge(self, backends: Sequence[Backend], slug: str, joining: int) -> list[Backend]:
        routes = [backend.route for backend in backends if backend.route is not None]
        present = next((len(route.members) for route in routes if route.slug == slug), 0)
        layout = plan_layout(routes, at_least={slug: present + joining})
        self.save(layout)
        self._reload(len(layout))
        return self._read()

    def _reload(self, backends: int) -> None:
        checked = self._engine.execute(self.container, ["haproxy", "-c", "-f", CONFIG_PATH])
        if checked.exit_code != 0:
            raise BalancerRefused(
                f"HAProxy in {self.container} does not accept its new configuration.",
                remedy="Report this; the balancer goes on with the one it has.",
                log_tail=checked.stderr.decode(errors="replace").splitlines()[-20:],
            )
        before = self._process_id()
        self._engine.kill(self.container, "SIGUSR2")
        deadline = self._clock() + RELOAD_SECONDS
        while self._clock() < deadline:
            with suppress(BalancerUnavailable):
                if self._process_id() != before and len(self._read()) == backends:
                    return
            self._sleep(_POLL_SECONDS)
        raise BalancerUnavailable(
            f"HAProxy in {self.container} did not take up its new configuration within {RELOAD_SECONDS:g} seconds.",
            remedy="Look at the container's log, then launch the deployment again.",
        )

    def _process_id(self) -> str:
        lines = self._socket.ask("show info").splitlines()
        return next((line for line in lines if line.startswith("Pid:")), "")

    @contextmanager
    def _lock(self) -> Iterator[list[Backend]]:
        """Hold the lock; gives what is in force."""
        token = uuid.uuid4().hex
        reference, backends = self._acquire(token)
        try:
            yield backends
        finally:
            # After a reload the lock is gone by itself.
            with suppress(BalancerUnavailable):
                self._socket.ask(f"del map {LOCK_MAP} #{reference}")

    def _acquire(self, token: str) -> tuple[str, list[Backend]]:
        # Entries of a map keep their order, so they are a queue; the first one holds the lock.
        look = (f"show map {LOCK_MAP}", *show_all())
        answer = self._socket.ask(f"add map {LOCK_MAP} lock {token}", *look)
        first, since = "", self._clock()
        while True:
            queue = [entry for entry in parse_map(answer) if entry[1] == "lock"]
            if not queue:
                raise BalancerUnavailable(
                    f"The balancer {self.container} does not run our configuration.",
                    remedy="Launch the deployment again: it puts it in force.",
                )
            if queue[0][2] == token:
                return queue[0][0], parse_backends(answer)
            if queue[0][0] != first:
                first, since = queue[0][0], self._clock()
            elif self._clock() - since > STALE_LOCK_SECONDS:
                self._socket.ask(f"del map {LOCK_MAP} #{first}")
            self._sleep(_POLL_SECONDS)
            answer = self._socket.ask(*look)
            if token not in answer:
                # HAProxy was started anew, and the queue with it.
                answer = self._socket.ask(f"add map {LOCK_MAP} lock {token}", *look)


def choose_backend(backends: Sequence[Backend], slug: str, hosts: Sequence[str]) -> Backend | None:
    """The backend for members that are about to join: the route's own, else the smallest spare one with room.

    Returns:
        None where none has room.
    """
    own = _backend_of(backends, slug)
    if own is not None:
        joining = [host for host in hosts if host not in own.places]
        return own if len(own.places) + len(joining) <= own.slots else None
    spare = [backend for backend in backends if backend.route is None and not backend.places]
    fitting = [backend for backend in spare if backend.slots >= len(hosts)]
    return min(fitting, key=lambda backend: (backend.slots, backend.number), default=None)


def plan_registration(backend: Backend, route: Route, members: Sequence[Member]) -> list[str]:
    """The commands that let members join a backend, draining."""
    commands = []
    present = backend.route
    timeout = timeout_milliseconds(route)
    if present is None:
        commands += [
            f"add map {ROUTES_MAP} {route.slug} {backend.name}",
            f"add map {TIMEOUTS_MAP} {route.slug} {timeout}",
        ]
    elif timeout_milliseconds(present) != timeout:
        commands.append(f"set map {TIMEOUTS_MAP} {route.slug} {timeout}")
    before = present.max_body_bytes if present else None
    if route.max_body_bytes != before:
        if before is not None:
            commands.append(f"del map {LIMITS_MAP} {route.slug}")
        if route.max_body_bytes is not None:
            commands.append(f"add map {LIMITS_MAP} {route.slug} {route.max_body_bytes}")
    free = [slot for slot in range(1, backend.slots + 1) if slot not in backend.places.values()]
    for member in members:
        if member.host in backend.places:
            continue
        name = backend.server(free.pop(0))
        server = f"{backend.name}/{name}"
        commands += [
            f"add map {PATHS_MAP} {name} {member.ready_path}",
            f"set server {server} addr {member.address or FREE_ADDRESS} port {member.port}",
            f"set server {server} fqdn {member.host}",
            f"set server {server} state drain",
        ]
    return commands


def plan_switch(
    backends: Sequence[Backend], slug: str, ready: Collection[str], drain: Collection[str]
) -> list[str]:
    """The commands that make members ready, then drain others."""
    backend = _backend_of(backends, slug)
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

    commands = []
    for host in sorted(ready):
        # The file on disk says `weight 0` of a member that drains, so one read from there must get its weight back.
        commands += [f"set server {name(host)} weight 1", f"set server {name(host)} state ready"]
    commands += [f"set server {name(host)} state drain" for host in sorted(drain) if host in backend.places]
    return commands


def plan_removal(backends: Sequence[Backend], slug: str, hosts: Collection[str]) -> list[str]:
    """The commands that free members' slots."""
    backend = _backend_of(backends, slug)
    if backend is None:
        return []
    commands = []
    for host in sorted(set(hosts) & set(backend.places)):
        name = backend.server(backend.places[host])
        server = f"{backend.name}/{name}"
        commands += [
            f"set server {server} state maint",
            f"set server {server} fqdn {FREE_HOST}",
            f"set server {server} addr {FREE_ADDRESS} port {FREE_PORT}",
            f"del map {PATHS_MAP} {name}",
        ]
    return commands


def pack_files(files: dict[str, str]) -> bytes:
    """Files as an archive to be unpacked at `/`."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        folder = tarfile.TarInfo(CONFIG_PATH.rpartition("/")[0].lstrip("/"))
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(folder)
        for path, text in files.items():
            data = text.encode()
            member = tarfile.TarInfo(path.lstrip("/"))
            member.size, member.mode = len(data), 0o644
            archive.addfile(member, io.BytesIO(data))
    return packed.getvalue()


def _backend_of(backends: Sequence[Backend], slug: str) -> Backend | None:
    return next((backend for backend in backends if backend.route and backend.route.slug == slug), None)


def _state(backends: Sequence[Backend]) -> BalancerState:
    routes = [backend.route for backend in backends if backend.route is not None]
    return BalancerState({route.slug: route for route in routes})
