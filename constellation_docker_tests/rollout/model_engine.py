"""A model of an engine and a balancer, to execute plans on in memory: what each operation does, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from constellation_docker.compose import CompiledService
from constellation_docker.rollout import Member, Operation, Replica, Route
from constellation_docker.rollout.observed import replica_host


class Fault(Exception):
    """An operation failed, as the test wanted."""


@dataclass
class ModelEngine:
    """One service on an engine, and its route.

    Attributes:
        compiled: What is wanted.
        is_good: Whether new containers of it become healthy.
        replicas: The containers, by name.
        route: The route; None: none.
    """

    project: str
    slug: str
    compiled: CompiledService | None
    is_good: bool = True
    replicas: dict[str, Replica] = field(default_factory=dict)
    route: Route | None = None
    clock: int = 1000

    def execute(self, operation: Operation) -> None:
        """Do what an operation does.

        Raises:
            Fault: It cannot succeed.
        """
        self.clock += 1
        act = getattr(self, f"_{operation.kind.name.lower()}")
        act(operation)

    def serving(self) -> set[str]:
        """Hosts that are given requests and would answer them."""
        return {
            member.host
            for member in self._members()
            if member.state == "ready" and self._is_answering(member.host)
        }

    def _members(self) -> tuple[Member, ...]:
        return self.route.members if self.route else ()

    def _by_host(self, host: str) -> Replica | None:
        return next((replica for replica in self.replicas.values() if replica.host == host), None)

    def _is_answering(self, host: str) -> bool:
        replica = self._by_host(host)
        return replica is not None and replica.is_healthy

    def _change(self, name: str, **changes: object) -> None:
        self.replicas[name] = replace(self.replicas[name], **changes)  # type: ignore[arg-type]
        host = self.replicas[name].host
        check = "up" if self._is_answering(host) else "down"
        if self.route and self.route.member(host):
            self._set_members([replace(m, check=check) if m.host == host else m for m in self._members()])  # type: ignore[arg-type]

    def _set_members(self, members: list[Member]) -> None:
        assert self.route is not None
        self.route = replace(self.route, members=tuple(members))

    def _create_replica(self, operation: Operation) -> None:
        assert self.compiled is not None
        assert operation.target not in self.replicas, "a container's name is unique"
        host = replica_host(self.slug, operation.number)
        assert not (self.route and self.route.member(host)), "a new replica inherits no place at the balancer"
        self.replicas[operation.target] = Replica(
            id=f"id-{operation.target}-{self.clock}",
            name=operation.target,
            number=operation.number,
            host=host,
            state="created",
            health="none",
            spec_hash=self.compiled.spec_hash,
            created=self.clock,
            revision=1,
        )

    def _start_replica(self, operation: Operation) -> None:
        replica = self.replicas[operation.target]
        is_new = self.compiled is not None and replica.spec_hash == self.compiled.spec_hash
        health = "unhealthy" if is_new and not self.is_good else "healthy"
        self._change(operation.target, state="running", health=health)

    def _wait_healthy(self, operation: Operation) -> None:
        for host in operation.hosts:
            replica = self._by_host(host)
            assert replica is not None and replica.is_running, f"{host} is waited for, but was not started"
            if replica.health == "starting":
                good = self.is_good or self.compiled is None or replica.spec_hash != self.compiled.spec_hash
                self._change(replica.name, health="healthy" if good else "unhealthy")
            if not self._is_answering(host):
                raise Fault(f"{host} is not healthy")

    def _register(self, operation: Operation) -> None:
        self.route = self.route or Route(self.slug, 300)
        known = {member.host for member in self._members()}
        joining = [self._by_host(host) for host in operation.hosts if host not in known]
        self._set_members(
            [*self._members(), *(replica.member() for replica in joining if replica is not None)]
        )

    def _wait_up(self, operation: Operation) -> None:
        for host in operation.hosts:
            assert self.route and self.route.member(host), f"{host} is not registered"
            if not self._is_answering(host):
                raise Fault(f"{host} is not reachable")
        self._set_members(
            [replace(m, check="up") if m.host in operation.hosts else m for m in self._members()]
        )

    def _switch(self, operation: Operation) -> None:
        assert self.route is not None
        for host in operation.hosts:
            assert self.route.member(host), f"{host} is not registered"
            assert self._is_answering(host), f"{host} is given requests, but is not healthy"
        self._set_members(
            [
                replace(m, state="ready")
                if m.host in operation.hosts
                else replace(m, state="drain")
                if m.host in operation.drain
                else m
                for m in self._members()
            ]
        )

    def _wait_drained(self, operation: Operation) -> None:
        for member in self._members():
            assert member.host not in operation.hosts or member.state != "ready", "it is not draining"

    def _unregister(self, operation: Operation) -> None:
        for member in self._members():
            if member.host in operation.hosts:
                assert member.state != "ready", f"{member.host} is taken away while it serves"
        self._set_members([member for member in self._members() if member.host not in operation.hosts])

    def _remove_route(self, operation: Operation) -> None:
        assert not self.serving(), "a route is removed while it serves"
        self.route = None

    def _stop_replica(self, operation: Operation) -> None:
        replica = self.replicas[operation.target]
        assert replica.host not in self.serving(), f"{replica.name} is stopped while it serves"
        self._change(operation.target, state="exited", health="none")

    def _monitor(self, operation: Operation) -> None:
        for host in operation.hosts:
            if not self._is_answering(host):
                raise Fault(f"{host} turned bad")

    def _remove_replica(self, operation: Operation) -> None:
        replica = self.replicas[operation.target]
        assert not replica.is_running, f"{replica.name} is removed while it runs"
        assert replica.host not in self.serving()
        del self.replicas[operation.target]
