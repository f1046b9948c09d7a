"""Operations of one service under construction: the stages that a rollout is put together from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from constellation_docker.compose import CompiledService
from constellation_docker.rollout.balancer import Member, Route
from constellation_docker.rollout.observed import Replica, replica_host
from constellation_docker.rollout.operation import Kind, Operation


@dataclass(frozen=True)
class Situation:
    """A service's containers, sorted into those that stay, those that go, and the numbers of those to come."""

    slug: str
    compiled: CompiledService | None
    replicas: tuple[Replica, ...]
    route: Route | None
    staying: tuple[Replica, ...]
    leaving: tuple[Replica, ...]
    numbers: tuple[int, ...]

    @classmethod
    def of(
        cls,
        slug: str,
        compiled: CompiledService | None,
        replicas: Sequence[Replica],
        route: Route | None,
    ) -> Situation:
        members = {member.host: member for member in (route.members if route else ())}
        wanted = compiled.wanted.replicas if compiled else 0
        fitting = [
            replica
            for replica in replicas
            if compiled
            and replica.spec_hash == compiled.spec_hash
            and replica.is_hopeful
            and not is_outlier(replica, members)
        ]
        # Those that serve come first, so that scaling down never takes one of them before one that does not.
        fitting.sort(
            key=lambda replica: (
                not is_ready(replica, members),
                not replica.is_healthy,
                replica.state == "created",
                replica.number,
            )
        )
        staying = fitting[:wanted]
        ids = {replica.id for replica in staying}
        taken = {replica.number for replica in replicas}
        names = [replica.name for replica in replicas]
        numbers: list[int] = []
        number = 1
        while len(numbers) < wanted - len(staying):
            # Somebody may have given one container the name that is another's.
            is_named = any(name.endswith(f"-{slug}-{number}") for name in names)
            if number not in taken and not is_named and replica_host(slug, number) not in members:
                numbers.append(number)
            number += 1
        leaving = tuple(replica for replica in replicas if replica.id not in ids)
        return cls(slug, compiled, tuple(replicas), route, tuple(staying), leaving, tuple(numbers))

    @property
    def members(self) -> dict[str, Member]:
        return {member.host: member for member in (self.route.members if self.route else ())}

    @property
    def joining(self) -> tuple[str, ...]:
        """Hosts that are to become ready: new ones, and those that are there but are given no requests."""
        waiting = [replica.host for replica in self.staying if not is_ready(replica, self.members)]
        return (*waiting, *(replica_host(self.slug, number) for number in self.numbers))

    @property
    def unsettled(self) -> tuple[str, ...]:
        """Hosts that must be seen healthy: those that are to become ready, and those that are ready but coming up.

        One that the balancer reaches has come up, though the engine may not have run its first check yet.
        """
        members = self.members
        coming_up = [
            replica.host
            for replica in self.staying
            if not replica.is_healthy and not (replica.host in members and members[replica.host].is_serving)
        ]
        return tuple(dict.fromkeys((*self.joining, *coming_up)))

    @property
    def leaving_members(self) -> tuple[str, ...]:
        """Hosts that the balancer is to forget: those of containers that go, and those without a container."""
        staying = {replica.host for replica in self.staying}
        return tuple(sorted(set(self.members) - staying))

    @property
    def leaving_running(self) -> bool:
        return any(replica.is_running for replica in self.leaving)

    @property
    def has_stale(self) -> bool:
        compiled = self.compiled
        return bool(compiled and any(item.spec_hash != compiled.spec_hash for item in self.leaving))

    @property
    def leaving_cause(self) -> str:
        if self.has_stale:
            return "a newer release takes its place"
        members = self.members
        broken = any(not replica.is_hopeful or is_outlier(replica, members) for replica in self.leaving)
        return "it does not run as it should" if broken else "fewer replicas are wanted"


class Draft:
    """Operations under construction; each new stage comes after all operations of the one before."""

    def __init__(self, project: str, situation: Situation) -> None:
        self.operations: list[Operation] = []
        self._project = project
        self._situation = situation
        self._last: tuple[str, ...] = ()
        self._stage: tuple[str, ...] = ()

    def add(
        self,
        kind: Kind,
        target: str,
        cause: str,
        *,
        hosts: tuple[str, ...] = (),
        drain: tuple[str, ...] = (),
        number: int = 0,
        begins: bool = False,
        after: tuple[str, ...] | None = None,
    ) -> str:
        """Add an operation after the stage before it; with `begins` it stands beside others of its stage."""
        # A service may be switched twice, so the number of operations makes the name unique.
        name = f"{kind} {target} #{len(self.operations) + 1}"
        earlier = self._last if after is None else after
        self.operations.append(
            Operation(name, kind, target, cause, self._situation.slug, earlier, number, hosts, drain)
        )
        if begins:
            self._stage = (*self._stage, name)
        else:
            self._last, self._stage = (name,), ()
        return name

    def close(self) -> None:
        """End a stage of operations that stand side by side."""
        if self._stage:
            self._last, self._stage = self._stage, ()

    def join(self, cause: str) -> None:
        """Let the new replicas come up and take requests."""
        situation = self._situation
        for number in situation.numbers:
            name = f"{self._project}-{situation.slug}-{number}"
            host = (replica_host(situation.slug, number),)
            made = self.add(Kind.CREATE_REPLICA, name, cause, number=number, hosts=host, begins=True)
            self._stage = tuple(item for item in self._stage if item != made)
            self.add(Kind.START_REPLICA, name, cause, number=number, hosts=host, begins=True, after=(made,))
        for replica in situation.staying:
            if replica.state == "created":
                why = "an earlier run created it"
                self.add(Kind.START_REPLICA, replica.name, why, hosts=(replica.host,), begins=True)
        self.close()
        if not situation.unsettled:
            return
        # The balancer looks at them while they come up, so that nobody waits for its first check afterwards.
        if situation.joining:
            self.add(Kind.REGISTER, situation.slug, "the balancer must know them", hosts=situation.joining)
        why = "only healthy replicas may take requests"
        self.add(Kind.WAIT_HEALTHY, situation.slug, why, hosts=situation.unsettled)
        if not situation.joining:
            return
        self.add(Kind.WAIT_UP, situation.slug, "the balancer must reach them", hosts=situation.joining)
        is_drained = any(operation.kind is Kind.WAIT_DRAINED for operation in self.operations)
        drain = () if is_drained else situation.leaving_members
        self.add(Kind.SWITCH, situation.slug, cause, hosts=situation.joining, drain=drain)

    def drain(self, cause: str) -> None:
        """Give the replicas that go no more requests, and let them finish those that they have."""
        situation = self._situation
        members = situation.leaving_members
        if not members:
            return
        is_switched = any(operation.kind is Kind.SWITCH for operation in self.operations)
        if not is_switched:
            self.add(Kind.SWITCH, situation.slug, cause, drain=members)
        self.add(Kind.WAIT_DRAINED, situation.slug, cause, hosts=members)

    def retire(self, cause: str) -> None:
        """Take the replicas that go out of the balancer, and stop them."""
        situation = self._situation
        if members := situation.leaving_members:
            self.add(Kind.UNREGISTER, situation.slug, cause, hosts=members)
        self.stop(situation.leaving, cause)

    def stop(self, replicas: Sequence[Replica], cause: str) -> None:
        """Stop the replicas that run."""
        for replica in replicas:
            if replica.state in {"running", "restarting", "paused"}:
                self.add(Kind.STOP_REPLICA, replica.name, cause, hosts=(replica.host,), begins=True)
        self.close()

    def monitor(self) -> None:
        """Watch the replicas that serve now."""
        situation = self._situation
        hosts = (*(replica.host for replica in situation.staying), *situation.joining)
        unique = tuple(dict.fromkeys(hosts))
        self.add(Kind.MONITOR, situation.slug, "it must stay healthy to be stable", hosts=unique)

    def clean_up(self) -> None:
        """Remove the containers of the replicas that went."""
        self.remove(self._situation.leaving, "it is not needed any more")

    def remove(self, replicas: Sequence[Replica], cause: str) -> None:
        """Remove containers."""
        for replica in replicas:
            self.add(Kind.REMOVE_REPLICA, replica.name, cause, hosts=(replica.host,), begins=True)
        self.close()


def is_outlier(replica: Replica, members: dict[str, Member]) -> bool:
    """Whether a replica fails requests that its siblings answer."""
    member = members.get(replica.host)
    return member is not None and member.is_outlier


def is_ready(replica: Replica, members: dict[str, Member]) -> bool:
    """Whether the balancer gives a replica requests."""
    member = members.get(replica.host)
    return member is not None and member.state == "ready"
