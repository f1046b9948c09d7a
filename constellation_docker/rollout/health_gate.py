"""The waits of a rollout: until replicas are healthy, reachable, drained, and have stayed well."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from constellation_docker.compose.balancer_config import KEEP_ALIVE_SECONDS
from constellation_docker.engine import Engine, EngineError
from constellation_docker.rollout.balancer import Balancer, Member
from constellation_docker.rollout.errors import StepFailed
from constellation_docker.rollout.observed import Replica, observe_replicas
from constellation_docker.rollout.own_check import OwnChecks
from constellation_docker.rollout.pace import POLL_SECONDS, Pace

# A replica that crashes now and then while it comes up may still make it; one that crashes again and again does not.
MAX_CRASHES = 3
# Servers that log every request have lines of checks between those that tell something.
LOG_LINES = 200
# While it takes long, it is looked at less often: a twentieth of the time that it has taken, up to so long.
_LONGEST_PAUSE_SECONDS = 2.0
# Failed checks in a row that end a rollout which is being watched: fewer than take the replica out of service.
BAD_CHECKS = 2


class HealthGate:
    """Looks at one service's replicas until they are as they should be.

    Args:
        engine: The engine that runs them.
        balancer: The environment's balancer.
        project: The Compose project.
        slug: The service.
        title: The model and environment, for messages.
        pace: How it waits.
    """

    def __init__(
        self, engine: Engine, balancer: Balancer, *, project: str, slug: str, title: str, pace: Pace
    ) -> None:
        self._engine = engine
        self._balancer = balancer
        self._project = project
        self._slug = slug
        self._title = title
        self._pace = pace

    def wait_healthy(self, hosts: Sequence[str], *, seconds: float) -> None:
        """Wait until all replicas pass their Docker health check, run by the engine or by ourselves.

        Raises:
            StepFailed: One of them ended, crashes again and again, or is not healthy in time.
        """
        begun = self._pace.clock()
        checks = OwnChecks(self._engine)

        def is_well(replica: Replica | None) -> bool:
            return replica is not None and (replica.is_healthy or checks.have_passed(replica))

        while True:
            replicas = self._replicas()
            self._pace.endure(
                lambda: checks.run([replicas[host] for host in hosts if host in replicas])  # noqa: B023
            )
            waiting = [host for host in hosts if not is_well(replicas.get(host))]
            if not waiting:
                return
            for host in waiting:
                self._check_hopeful(host, replicas.get(host))
            elapsed = self._pace.clock() - begun
            if elapsed > seconds:
                names = ", ".join(self._name(host, replicas) for host in waiting)
                raise StepFailed(
                    f"{self._title}: {names} did not become healthy within {seconds:g} seconds.",
                    remedy="Read its log; raise deploy.healthy_deadline in the card if it needs more time.",
                    replicas=waiting,
                )
            self._pace.pause(min(_LONGEST_PAUSE_SECONDS, max(POLL_SECONDS, elapsed / 20)))

    def wait_addressed(self, hosts: Sequence[str], *, seconds: float) -> None:
        """Wait until all replicas have an address: one that is just being started anew has none.

        Raises:
            StepFailed: One of them ended, crashes again and again, or has none in time.
        """
        deadline = self._pace.clock() + seconds
        while True:
            replicas = self._replicas()
            waiting = [host for host in hosts if host not in replicas or replicas[host].address is None]
            if not waiting:
                return
            for host in waiting:
                self._check_hopeful(host, replicas.get(host))
            if self._pace.clock() > deadline:
                names = ", ".join(self._name(host, replicas) for host in waiting)
                raise StepFailed(
                    f"{self._title}: {names} got no address within {seconds:g} seconds.",
                    remedy="Read its log.",
                    replicas=waiting,
                )
            self._pace.pause()

    def wait_up(self, hosts: Sequence[str], *, seconds: float) -> None:
        """Wait until the balancer reaches all replicas at their readiness path.

        Raises:
            StepFailed: It does not reach one in time, or one ended.
        """
        deadline = self._pace.clock() + seconds
        while True:
            members, replicas = self._members(), self._replicas()
            waiting = [host for host in hosts if not _is_reached(members.get(host), replicas.get(host))]
            if not waiting:
                return
            for host in waiting:
                self._check_hopeful(host, replicas.get(host))
            if self._pace.clock() > deadline:
                found = "; ".join(
                    f"{self._name(host, replicas)}: {members[host].reason or 'no answer'}"
                    if host in members
                    else f"{self._name(host, replicas)}: unknown to the balancer"
                    for host in waiting
                )
                path = next((members[host].ready_path for host in waiting if host in members), "/ready")
                raise StepFailed(
                    f"{self._title}: the balancer got no good answer from {path} within {seconds:g} seconds ({found}).",
                    remedy="Check the port and the ready_path in the card, and read the log.",
                    replicas=waiting,
                )
            self._pace.pause()

    def wait_drained(self, hosts: Collection[str], *, seconds: float) -> str:
        """Wait until nothing is in flight on replicas, or the time is over.

        After a reload clients that were connected before may have one more request answered, by a process that knows
        the replicas of then; so they stay for as long as an idle connection does.

        Returns:
            A remark for the record; empty where all requests were finished.
        """
        begun = self._pace.clock()
        while True:
            members = self._members()
            left = sum(members[host].in_flight for host in hosts if host in members)
            if not left and not self._pace.endure(self._balancer.has_former_process):
                return ""
            elapsed = self._pace.clock() - begun
            if left and elapsed > seconds:
                return f"{left} requests were still in flight after {seconds:g} seconds; the replicas finish them while they stop"
            if elapsed > max(seconds, KEEP_ALIVE_SECONDS):
                return "a request from before the balancer's reload may be in flight; the replicas finish it while they stop"
            self._pace.pause()

    def monitor(self, hosts: Sequence[str], *, seconds: float) -> None:
        """Watch replicas for a while.

        Raises:
            StepFailed: One of them ended, crashed, or is not healthy or reachable any more.
        """
        crashes = {host: self._crashes(replica) for host, replica in self._replicas().items()}
        deadline = self._pace.clock() + seconds
        replicas = self._replicas()
        while self._pace.clock() < deadline:
            # The balancer is asked first: it is the first to know, and gives a replica up a few seconds later.
            members = self._members()
            reasons = {host: _failing_check(members.get(host)) for host in hosts}
            if not any(reasons.values()):
                replicas = self._replicas()
                reasons = {
                    host: self._turned_bad(replicas.get(host), members.get(host), crashes.get(host, 0))
                    for host in hosts
                }
            for host, reason in reasons.items():
                if reason:
                    raise StepFailed(
                        f"{self._title}: {self._name(host, replicas)} turned bad after it had taken over: {reason}.",
                        remedy="Read its log.",
                        replicas=[host],
                    )
            self._pace.pause(min(POLL_SECONDS, max(0.05, deadline - self._pace.clock())))

    def log_tail(self, is_concerned: Callable[[Replica], bool]) -> tuple[str, ...]:
        """The end of the log of the replica that is worst off, with what its health check last said.

        Args:
            is_concerned: Which replicas to look at.
        """
        concerned = [replica for replica in self._replicas().values() if is_concerned(replica)]
        if not concerned:
            return ()
        worst = min(concerned, key=lambda replica: (replica.is_healthy, replica.is_running, replica.number))
        try:
            lines = self._engine.logs(worst.id, tail=LOG_LINES).splitlines()
            facts = self._engine.container(worst.id) or {}
        except EngineError as error:
            return (f"the log of {worst.name} cannot be read: {error.message}",)
        checks = ((facts.get("State") or {}).get("Health") or {}).get("Log") or []
        if checks and checks[-1].get("ExitCode"):
            said = (checks[-1].get("Output") or "").strip()[-500:]
            lines.append(f"[health check of {worst.name}] exit code {checks[-1]['ExitCode']}: {said}")
        return tuple(lines)

    def _turned_bad(self, replica: Replica | None, member: Member | None, crashes_before: int) -> str:
        if replica is None:
            return "its container is gone"
        if member is not None and member.is_outlier:
            return "it fails requests that other replicas answer"
        if member is None or member.state != "ready":
            return "the balancer does not know it any more"
        faults = {
            f"its container is {replica.state}": not replica.is_running,
            "its health check fails": replica.health == "unhealthy",
            "it crashed and was started again": self._crashes(replica) > crashes_before,
        }
        return next((fault for fault, is_found in faults.items() if is_found), "")

    def _check_hopeful(self, host: str, replica: Replica | None) -> None:
        name = replica.name if replica else host
        if replica is None:
            raise StepFailed(
                f"{self._title}: the container of replica {host} is gone.",
                remedy="Find out who removed it, and launch the deployment again.",
            )
        if replica.state in {"exited", "dead"}:
            facts = (self._engine.container(replica.id) or {}).get("State") or {}
            killed = " (out of memory)" if facts.get("OOMKilled") else ""
            raise StepFailed(
                f"{self._title}: {name} ended with exit code {facts.get('ExitCode')}{killed}.",
                remedy="Read its log.",
                replicas=[host],
            )
        crashes = self._crashes(replica)
        if crashes >= MAX_CRASHES:
            raise StepFailed(
                f"{self._title}: {name} crashed {crashes} times while starting.",
                remedy="Read its log.",
                replicas=[host],
            )

    def _crashes(self, replica: Replica) -> int:
        facts = self._pace.endure(lambda: self._engine.container(replica.id))
        return int((facts or {}).get("RestartCount", 0))

    def _replicas(self) -> Mapping[str, Replica]:
        found = self._pace.endure(lambda: observe_replicas(self._engine, self._project, self._slug))
        return {replica.host: replica for replica in found}

    def _members(self) -> Mapping[str, Member]:
        members = self._pace.endure(lambda: self._balancer.read_members(self._slug))
        return {member.host: member for member in members}

    def _name(self, host: str, replicas: Mapping[str, Replica]) -> str:
        return replicas[host].name if host in replicas else host


def _is_reached(member: Member | None, replica: Replica | None) -> bool:
    if member is None or replica is None or member.check != "up":
        return False
    # A container that was started anew has another address, and somebody else may have got its old one.
    return member.address is None or member.address == replica.address


def _failing_check(member: Member | None) -> str:
    """What is wrong with a replica by the balancer's own checks; empty where nothing is."""
    if member is None or (member.check != "down" and member.failures < BAD_CHECKS):
        return ""
    return f"it does not answer {member.ready_path} well ({member.reason or 'no answer'})"
