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
from dataclasses import replace

from constellation_docker.compose.balancer_config import (
    CERTIFICATE_PATH,
    CONFIG_PATH,
    USER_ID,
    BalancerOptions,
)
from constellation_docker.engine import Engine, NotFound
from constellation_docker.rollout.balancer import BalancerState, Member, Route
from constellation_docker.rollout.certificate_file import leaf_fingerprint
from constellation_docker.rollout.errors import BalancerRefused, BalancerUnavailable
from constellation_docker.rollout.haproxy_commands import (
    backend_of,
    choose_backend,
    plan_registration,
    plan_removal,
    plan_route_removal,
    plan_sparing,
    plan_switch,
)
from constellation_docker.rollout.haproxy_config import (
    FOLDER,
    LOCK_MAP,
    Backend,
    layout_of,
    plan_layout,
    render_files,
)
from constellation_docker.rollout.haproxy_runtime import RuntimeSocket
from constellation_docker.rollout.haproxy_state import (
    parse_backends,
    parse_layout,
    parse_map,
    show_all,
    show_backend,
)

RELOAD_SECONDS = 30.0
# A holder of the lock that is seen unchanged for so long was killed. Changes take well under a second, reloads a few.
STALE_LOCK_SECONDS = 40.0
_POLL_SECONDS = 0.1
_LONGEST_POLL_SECONDS = 3.0
# How often room is made for members that others took it from.
_ROUNDS = 10
# The one that takes signals, and the one that it has started for the work.
_PROCESSES = 2


class HaproxyBalancer:
    """HAProxy behind the `Balancer` protocol.

    Args:
        engine: The engine that runs it.
        container: Its container's name.
        options: What the environment's settings say of it; needed for changes, not for a look.
        clock: Seconds that only grow.
        sleep: Waits so many seconds.
    """

    def __init__(
        self,
        engine: Engine,
        container: str,
        options: BalancerOptions | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._engine = engine
        self._socket = RuntimeSocket(engine, container)
        self.container = container
        self._options = options or BalancerOptions()
        self._clock = clock
        self._sleep = sleep
        self._pools: dict[str, str] = {}
        self._reloads = 0

    def answers(self) -> bool:
        """Whether HAProxy runs and its runtime socket answers."""
        try:
            return "Uptime_sec" in self._socket.ask("show info")
        except BalancerUnavailable:
            return False

    def look(self) -> tuple[BalancerState | None, str]:
        """What it does right now, None where another configuration than ours is in force; and the layout of that."""
        answer = self._socket.ask(*show_all())
        backends = parse_backends(answer)
        return (_state(backends) if backends else None), parse_layout(answer)

    def read(self) -> BalancerState:
        """What it does right now."""
        return _state(self._read())

    def read_members(self, slug: str) -> tuple[Member, ...]:
        """The members of one route right now."""
        known = self._pools.get(slug)
        answer = self._socket.ask(*(show_backend(known) if known else show_all()))
        found = backend_of(parse_backends(answer), slug)
        if found is None and known:
            # The route has moved to another backend since, or is gone.
            found = backend_of(self._read(), slug)
        if found is None or found.route is None:
            self._pools.pop(slug, None)
            return ()
        self._pools[slug] = found.name
        return found.route.members

    def has_former_process(self) -> bool:
        """Whether a process from before a reload goes on for clients that were connected to it."""
        return self._socket.count_processes() > _PROCESSES

    def register(self, route: Route, members: Sequence[Member]) -> None:
        """Let members join a route, draining. The route is made where there is none.

        Raises:
            BalancerRefused: There is no room for them, and none could be made.
        """
        hosts = [member.host for member in members]
        for _ in range(_ROUNDS):
            with self._lock() as backends:
                backend = choose_backend(backends, route.slug, hosts)
                if backend is not None:
                    self._carry_out(plan_registration(backend, route, members))
                    return
                # The lock ends with it, so others may join before we are next, and take the room.
                self._enlarge(backends, route.slug, len(members))
        raise BalancerRefused(
            f"The balancer {self.container} has no room for {len(members)} replicas of {route.slug}.",
            remedy="Restart the balancer's container and launch the deployment again.",
        )

    def switch(self, slug: str, *, ready: Collection[str], drain: Collection[str]) -> None:
        """Give requests to the members `ready`, and no more to `drain`, in one step."""
        is_gentle = self._options.slow_start_seconds > 0
        self._change(lambda backends: plan_switch(backends, slug, ready, drain, is_gentle=is_gentle))

    def spare(self, slug: str, hosts: Collection[str]) -> None:
        """Give members that fail requests no more of them, where another one answers. The next deployment replaces them."""
        self._change(lambda backends: plan_sparing(backends, slug, hosts))

    def unregister(self, slug: str, hosts: Collection[str]) -> None:
        """Take members out of a route."""
        self._change(lambda backends: plan_removal(backends, slug, hosts))

    def remove_route(self, slug: str) -> None:
        """Take a route and all its members away."""
        self._change(lambda backends: plan_route_removal(backends, slug))

    def take_over(self, routes: Sequence[Route]) -> None:
        """Put our configuration in force in an HAProxy that runs another one (a stock `docker compose up`).

        It is a reload: requests in flight are finished, and so is the next one of each idle client connection.
        """
        layout = plan_layout(routes)
        self.save(layout)
        self._reload()

    def reload(self, known: BalancerState | None = None) -> None:
        """Put the same routes and members in force under this release's configuration and the present settings.

        It is a reload: requests in flight are finished, and so is the next one of each idle client connection.

        Args:
            known: What else is known of the members: their versions, which a former release did not note.
        """
        state = known or BalancerState()
        with self._lock(is_layout_free=True) as present:
            backends = [_with_versions(backend, state) for backend in present]
            self.save(backends)
            self._reload()

    def install_certificate(self, pem: str) -> bool:
        """Serve this certificate from now on. Connections that are open keep theirs; nothing is reloaded.

        Args:
            pem: Certificate, chain and key.

        Returns:
            Whether it is another than before.

        Raises:
            BalancerRefused: HAProxy does not accept it, and goes on with the one that it has.
        """
        if self._serves(pem):
            return False
        with self._lock(is_layout_free=True):
            self._socket.replace_certificate(CERTIFICATE_PATH, pem)
            self.save_certificate(pem)
        return True

    def save_certificate(self, pem: str) -> None:
        """Write the certificate into the container, whether it runs or not; only HAProxy can read it there."""
        self._engine.put_archive(self.container, "/", pack_files({CERTIFICATE_PATH: pem}, mode=0o400))

    def _serves(self, pem: str) -> bool:
        shown = self._socket.ask(f"show ssl cert {CERTIFICATE_PATH}")
        if f"FingerPrint: {leaf_fingerprint(pem)}" not in shown:
            return False
        try:
            packed = self._engine.get_archive(self.container, CERTIFICATE_PATH)
        except NotFound:
            return False
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            content = archive.extractfile(archive.getmembers()[0])
            return content is not None and content.read() == pem.encode()

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
        self._engine.put_archive(self.container, "/", pack_files(render_files(backends, self._options)))

    def _is_saved(self, backends: Sequence[Backend]) -> bool:
        try:
            packed = self._engine.get_archive(self.container, FOLDER)
        except NotFound:
            return False
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            members = {member.name.rpartition("/")[2]: member for member in archive if member.isfile()}
            for path, text in render_files(backends, self._options).items():
                member = members.get(path.rpartition("/")[2])
                content = archive.extractfile(member) if member else None
                if content is None or content.read() != text.encode():
                    return False
        return True

    def _read(self) -> list[Backend]:
        return parse_backends(self._socket.ask(*show_all()))

    def _change(self, plan: Callable[[list[Backend]], list[str]]) -> None:
        with self._lock() as backends:
            self._carry_out(plan(backends))

    def _carry_out(self, commands: Sequence[str]) -> None:
        if commands:
            self.save(parse_backends(self._socket.tell(commands, then=show_all())))

    def _enlarge(self, backends: Sequence[Backend], slug: str, joining: int) -> None:
        routes = [backend.route for backend in backends if backend.route is not None]
        present = next((len(route.members) for route in routes if route.slug == slug), 0)
        layout = plan_layout(routes, at_least={slug: present + joining})
        self.save(layout)
        self._reload()

    def _reload(self) -> None:
        """Put in force what was saved. Whoever holds the lock has lost it when this returns."""
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
                if self._process_id() != before and self._read():
                    self._reloads += 1
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
    def _lock(self, *, is_layout_free: bool = False) -> Iterator[list[Backend]]:
        """Hold the lock; gives what is in force.

        Args:
            is_layout_free: Whether another layout than that of our settings may be in force. Where it is, whatever is
                written to disk would differ from it.
        """
        token, reloads = uuid.uuid4().hex, self._reloads
        reference, answer = self._acquire(token)
        try:
            if not is_layout_free and parse_layout(answer) != layout_of(self._options):
                raise BalancerRefused(
                    f"The balancer {self.container} runs under other settings than these.",
                    remedy="Launch the deployment again: it puts the present settings in force.",
                )
            yield parse_backends(answer)
        finally:
            # After a reload the lock is gone by itself, and its reference may be another one's.
            if self._reloads == reloads:
                with suppress(BalancerUnavailable):
                    self._socket.ask(f"del map {LOCK_MAP} #{reference}")

    def _acquire(self, token: str) -> tuple[str, str]:
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
                return queue[0][0], answer
            if queue[0][0] != first:
                first, since = queue[0][0], self._clock()
            elif self._clock() - since > STALE_LOCK_SECONDS:
                self._socket.ask(f"del map {LOCK_MAP} #{first}")
            # Whoever is far behind asks seldom: many who ask at once would keep the one who works from working.
            place = next((number for number, entry in enumerate(queue) if entry[2] == token), 1)
            self._sleep(min(_POLL_SECONDS * (3 * place - 2), _LONGEST_POLL_SECONDS))
            answer = self._socket.ask(*look)
            if token not in answer:
                # HAProxy was started anew, and the queue with it.
                answer = self._socket.ask(f"add map {LOCK_MAP} lock {token}", *look)


def pack_files(files: dict[str, str], *, mode: int = 0o644) -> bytes:
    """Files of one folder as an archive to be unpacked at `/`; they belong to HAProxy's user."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        folder = tarfile.TarInfo(next(iter(files)).rpartition("/")[0].lstrip("/"))
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(folder)
        for path, text in files.items():
            data = text.encode()
            member = tarfile.TarInfo(path.lstrip("/"))
            member.size, member.mode = len(data), mode
            member.uid = member.gid = USER_ID
            archive.addfile(member, io.BytesIO(data))
    return packed.getvalue()


def _with_versions(backend: Backend, known: BalancerState) -> Backend:
    if backend.route is None:
        return backend
    versions = {member.host: member.version for member in known.members(backend.route.slug)}
    members = tuple(
        replace(member, version=versions.get(member.host) or member.version)
        for member in backend.route.members
    )
    return replace(backend, route=replace(backend.route, members=members))


def _state(backends: Sequence[Backend]) -> BalancerState:
    routes = [backend.route for backend in backends if backend.route is not None]
    return BalancerState({route.slug: route for route in routes})
