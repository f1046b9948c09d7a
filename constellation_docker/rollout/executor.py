"""Executing a plan: each operation is one call, its outcome is recorded, what stands side by side runs side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Literal

from constellation_docker.compose import CompiledService, ComposeFile, RolloutOptions, labels
from constellation_docker.engine import Conflict, Engine
from constellation_docker.errors import ConstellationError
from constellation_docker.rollout.balancer import Balancer, Route
from constellation_docker.rollout.balancer_container import BalancerContainer
from constellation_docker.rollout.generation import render_container
from constellation_docker.rollout.health_gate import HealthGate
from constellation_docker.rollout.observed import Observed, Replica, observe_replicas, replica_host
from constellation_docker.rollout.operation import Kind, Operation
from constellation_docker.rollout.pace import Pace
from constellation_docker.rollout.plan import assume_state, plan_routes

# From healthy to reachable through the balancer; it asks once a second.
REACHABLE_SECONDS = 30.0
_PARALLEL = 8


@dataclass(frozen=True)
class StepRecord:
    """What became of one operation."""

    kind: str
    target: str
    cause: str
    seconds: float
    outcome: Literal["done", "failed"]
    message: str = ""


@dataclass(frozen=True)
class Order:
    """What an executor works on.

    Attributes:
        compose_file: The environment as it is to be.
        slug: The service.
        compiled: The service as it is to be; None: gone.
        secrets: The values behind its references, by name in the container.
        revision: The deployment's revision.
        run_id: Who does it, for the containers' labels.
        compose_path: Where the Compose file lies.
        certificate: What the balancer shows: certificate, chain and key as PEM; None: plain HTTP.
    """

    compose_file: ComposeFile
    slug: str
    compiled: CompiledService | None
    secrets: Mapping[str, str]
    revision: int
    run_id: str
    compose_path: str
    certificate: str | None = field(default=None, repr=False)

    @property
    def title(self) -> str:
        """The model and environment, for messages."""
        if self.compiled is None:
            return f"{self.slug} in {self.compose_file.environment}"
        wanted = self.compiled.wanted
        return f"{wanted.model_name}@{wanted.model_version} in {self.compose_file.environment}"


class Executor:
    """Executes operations on one environment.

    Args:
        order: What it works on.
        engine: The environment's engine.
        balancer: The environment's balancer.
        pace: How it waits.
        on_line: Told of every step.
        pull: Brings an image to the engine.
    """

    def __init__(
        self,
        order: Order,
        engine: Engine,
        balancer: Balancer,
        *,
        pace: Pace,
        on_line: Callable[[str], None],
        pull: Callable[[str], object] | None = None,
    ) -> None:
        self.records: list[StepRecord] = []
        self._done: set[str] = set()
        self._order = order
        self._engine = engine
        self._balancer = balancer
        self._pace = pace
        self._on_line = on_line
        self._pull = pull or (lambda image: engine.pull(image, on_line=on_line))
        self._project = order.compose_file.project
        self.gate = HealthGate(
            engine, balancer, project=self._project, slug=order.slug, title=order.title, pace=pace
        )
        self._actions = self._actors()

    def run(self, operations: Sequence[Operation], observed: Observed) -> None:
        """Execute operations in the order of their dependencies.

        Args:
            operations: All of them, or those that follow on what an earlier call executed.
            observed: The environment when they were planned.

        Raises:
            OperationFailed: One failed; those beside it were finished, those after it were not begun.
        """
        pending, done = list(operations), self._done
        with ThreadPoolExecutor(_PARALLEL, thread_name_prefix="rollout") as pool:
            while pending:
                self._pace.check()
                batch = [operation for operation in pending if done.issuperset(operation.after)]
                futures = {pool.submit(self._execute, operation, observed): operation for operation in batch}
                unfinished = set(futures)
                while unfinished:
                    _, unfinished = wait(unfinished, timeout=1.0)
                    if unfinished and len(batch) > 1:
                        self._pace.check()
                for future in futures:
                    future.result()
                done |= {operation.id for operation in batch}
                pending = [operation for operation in pending if operation.id not in done]

    def _execute(self, operation: Operation, observed: Observed) -> None:
        begun = self._pace.clock()
        self._on_line(f"{operation.kind}: {operation.target} ({operation.cause})")
        try:
            message = self._actions[operation.kind](operation, observed)
        except ConstellationError as error:
            self._record(operation, begun, "failed", error.message)
            self._on_line(f"{operation.kind}: {operation.target} failed: {error.message}")
            raise OperationFailed(operation, error) from error
        self._record(operation, begun, "done", message or "")

    def _actors(self) -> dict[Kind, Callable[[Operation, Observed], str | None]]:
        """What is done for each kind of operation. Waits look again by themselves; other calls are made again."""
        slug, gate = self._order.slug, self.gate
        options = self._order.compiled.options if self._order.compiled else RolloutOptions()
        balancer, engine = self._balancer, self._engine
        calls: dict[Kind, Callable[[Operation, Observed], object]] = {
            Kind.PULL_IMAGE: lambda step, _: self._pull(step.target),
            Kind.CREATE_NETWORK: lambda step, _: self._create_network(step.target),
            Kind.CREATE_BALANCER: lambda _, seen: self._container().create(assume_state(seen)),
            Kind.START_BALANCER: lambda _, seen: self._container().start(
                seen.balancer.name if seen.balancer else ""
            ),
            Kind.REPLACE_BALANCER: lambda _, seen: self._container().replace(assume_state(seen)),
            Kind.TAKE_OVER_BALANCER: lambda _, seen: self._container().take_over(assume_state(seen)),
            Kind.RELOAD_BALANCER: lambda _, seen: self._container().reload(plan_routes(seen)),
            Kind.CREATE_REPLICA: lambda step, _: self._create_replica(step.target, step.number),
            Kind.START_REPLICA: lambda step, _: engine.start(step.target),
            Kind.SWITCH: lambda step, _: balancer.switch(slug, ready=step.hosts, drain=step.drain),
            Kind.UNREGISTER: lambda step, _: balancer.unregister(slug, step.hosts),
            Kind.REMOVE_ROUTE: lambda _, __: balancer.remove_route(slug),
            Kind.STOP_REPLICA: lambda step, seen: self._stop(step.target, seen),
            Kind.REMOVE_REPLICA: lambda step, _: engine.remove(step.target, force=True),
        }
        waits: dict[Kind, Callable[[Operation, Observed], str | None]] = {
            Kind.REGISTER: lambda step, _: self._register(step.hosts, seconds=options.healthy_deadline),
            Kind.WAIT_HEALTHY: lambda step, _: gate.wait_healthy(
                step.hosts, seconds=options.healthy_deadline
            ),
            Kind.WAIT_UP: lambda step, _: gate.wait_up(
                step.hosts, seconds=min(REACHABLE_SECONDS, options.healthy_deadline)
            ),
            Kind.WAIT_DRAINED: lambda step, _: gate.wait_drained(step.hosts, seconds=options.drain_timeout),
            Kind.MONITOR: lambda step, _: gate.monitor(step.hosts, seconds=options.min_healthy_time),
        }
        return {kind: self._enduring(call) for kind, call in calls.items()} | waits

    def _enduring(
        self, call: Callable[[Operation, Observed], object]
    ) -> Callable[[Operation, Observed], str | None]:
        def act(operation: Operation, observed: Observed) -> None:
            self._pace.endure(lambda: call(operation, observed))

        return act

    def _create_network(self, name: str) -> None:
        try:
            self._engine.create_network(
                name,
                labels=labels.network_labels(
                    project=self._project, key="default", environment=self._order.compose_file.environment
                ),
            )
        except Conflict:
            return  # another service's rollout made it a moment ago

    def _create_replica(self, name: str, number: int) -> None:
        compiled = self._required()
        service = compiled.service
        body = render_container(
            service,
            project=self._project,
            name=name,
            number=number,
            secrets=self._order.secrets,
            image_id=self._engine.require_image(service.image).id,
            compose_path=self._order.compose_path,
            own_labels={
                labels.REVISION: str(self._order.revision),
                labels.GENERATION: compiled.generation,
                labels.RUN_ID: self._order.run_id,
            },
            aliases=(replica_host(service.name, number),),
        )
        try:
            self._engine.create_container(name, body)
        except Conflict:
            found = ((self._engine.container(name) or {}).get("Config") or {}).get("Labels") or {}
            if (
                found.get(labels.SPEC_HASH) != compiled.spec_hash
                or found.get(labels.RUN_ID) != self._order.run_id
            ):
                raise
            # The engine went away after it had created it, and this is the second try.

    def _register(self, hosts: Sequence[str], *, seconds: float) -> None:
        self.gate.wait_addressed(hosts, seconds=seconds)
        self._pace.endure(lambda: self._join_route(hosts))

    def _join_route(self, hosts: Sequence[str]) -> None:
        compiled = self._order.compiled
        found = {replica.host: replica for replica in self._replicas()}
        members = [found[host].member() for host in hosts if host in found]
        if compiled is not None:
            wanted = compiled.wanted
            timeout = float(compiled.service.labels[labels.TIMEOUT])
            route = Route(self._order.slug, timeout, wanted.max_body_bytes, rate_limit=wanted.rate_limit)
        else:
            timeout = max((found[host].timeout_seconds for host in hosts if host in found), default=300)
            route = Route(self._order.slug, timeout)
        self._balancer.register(route, members)

    def _stop(self, name: str, observed: Observed) -> None:
        known = {replica.name: replica for replica in observed.replicas(self._order.slug)}
        grace = known[name].stop_grace_seconds if name in known else 30.0
        self._engine.stop(name, grace_seconds=grace)

    def _replicas(self) -> tuple[Replica, ...]:
        return observe_replicas(self._engine, self._project, self._order.slug)

    def _container(self) -> BalancerContainer:
        order = self._order
        return BalancerContainer(
            self._engine,
            order.compose_file,
            compose_path=order.compose_path,
            certificate=order.certificate,
            pace=self._pace,
        )

    def _required(self) -> CompiledService:
        if self._order.compiled is None:
            raise AssertionError("a plan that removes a service creates no replica")
        return self._order.compiled

    def _record(
        self, operation: Operation, begun: float, outcome: Literal["done", "failed"], message: str
    ) -> None:
        seconds = round(self._pace.clock() - begun, 3)
        self.records.append(
            StepRecord(operation.kind.value, operation.target, operation.cause, seconds, outcome, message)
        )


class OperationFailed(Exception):
    """Carries an operation and its error from the executor to whoever decides what to do about it."""

    def __init__(self, operation: Operation, error: ConstellationError) -> None:
        super().__init__(error.message)
        self.operation = operation
        self.error = error
