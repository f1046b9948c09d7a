"""Moving one service to what is wanted: observe, plan, execute, and put back what was where that fails.

A run that is killed at any step leaves only labelled containers and the balancer's own state behind; the next run
observes those and goes on from there. Nothing is kept anywhere else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from constellation_docker.compose import CompiledService, ComposeFile, endpoint_url
from constellation_docker.engine import Engine
from constellation_docker.errors import ConstellationError
from constellation_docker.rollout.alteration import inspect_replicas
from constellation_docker.rollout.certificates import resolve_certificate
from constellation_docker.rollout.errors import Outcome, RolloutCancelled, RolloutFailed, StepFailed
from constellation_docker.rollout.executor import Executor, OperationFailed, Order, StepRecord
from constellation_docker.rollout.ground_lock import ground_lock
from constellation_docker.rollout.haproxy import HaproxyBalancer
from constellation_docker.rollout.observed import Observed, balancer_name, observe
from constellation_docker.rollout.operation import Kind, Operation, Plan
from constellation_docker.rollout.pace import Lease, Pace, never
from constellation_docker.rollout.plan import plan_ground, plan_rollout
from constellation_docker.rollout.service_plan import choose_fallback, plan_rollback
from constellation_docker.settings import EnvironmentSettings, resolve_secret

_HIDDEN = "•••"
# Network and balancer are there after one round; a second one takes over what came up with another configuration.
_GROUND_ROUNDS = 3


@dataclass(frozen=True)
class RolloutResult:
    """How a rollout ended well.

    Attributes:
        environment: The environment.
        slug: The service.
        outcome: `successful`; `unchanged` where it ran as wanted already; `removed` where it is not wanted.
        revision: The deployment's revision.
        spec_hash: Our hash of what its replicas were created from.
        generation: The short name of its replicas.
        replicas: Names of its containers.
        endpoint_url: Where it is reached; None where it was removed.
        plan: What was to be done.
        steps: What was done.
        seconds: How long it took.
    """

    environment: str
    slug: str
    outcome: Literal["successful", "unchanged", "removed"]
    revision: int
    spec_hash: str
    generation: str
    replicas: tuple[str, ...]
    endpoint_url: str | None
    plan: Plan
    steps: tuple[StepRecord, ...]
    seconds: float

    def rows(self) -> list[dict[str, Any]]:
        """The steps as a table."""
        return [asdict(step) for step in self.steps]


def roll_out(
    compose_file: ComposeFile,
    slug: str,
    *,
    engine: Engine,
    settings: EnvironmentSettings,
    lease: Lease | None = None,
    run_id: str = "",
    compose_path: str = "",
    on_line: Callable[[str], None] = lambda line: None,
    is_cancelled: Callable[[], bool] = never,
    resolve: Callable[[str], str] = resolve_secret,
    pull: Callable[[str], object] | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> RolloutResult:
    """Move one service of an environment to what its Compose file says. Nothing else is touched.

    The new replicas come up beside the old ones, take over when they are healthy and the balancer reaches them, and are
    watched for a while. Where any of this fails, the old ones go on, or are put back, and the new ones are removed.

    Args:
        compose_file: The environment as it is to be. A service that it does not have is removed.
        slug: The service.
        engine: The environment's engine.
        settings: The environment's settings.
        lease: The right to work on the service, already taken; it is renewed while this lasts.
        run_id: Who does it, for the containers' labels.
        compose_path: Where the Compose file lies, for the containers' labels (`docker compose ls` shows it).
        on_line: Told of every step.
        is_cancelled: Asked several times a second.
        resolve: Gives the secret behind a reference.
        pull: Brings an image to the engine; default: pulls it with what `docker login` left on this machine.
        clock: Seconds that only grow.
        sleep: Waits so many seconds.

    Raises:
        RolloutFailed: It did not succeed; `outcome` says what runs now, `log_tail` why.
        RolloutCancelled: It was cancelled; what ran before runs on.
        InvalidInput: A secret cannot be read.
        InvalidCertificate: The balancer's certificate cannot be used.
        EngineUnreachable: The engine went away and stayed away. The next run goes on from there.
        BalancerUnavailable: The balancer does not answer, and starting it did not help.
    """
    compiled = compose_file.services.get(slug)
    secrets = _resolve_secrets(compiled, resolve)
    certificate = resolve_certificate(compose_file.environment, settings, resolve=resolve)
    begun = clock()
    order = Order(
        compose_file=compose_file,
        slug=slug,
        compiled=compiled,
        secrets=secrets,
        revision=compiled.wanted.revision if compiled else 0,
        run_id=run_id,
        compose_path=compose_path or f"/{compose_file.project}/compose.yaml",
        certificate=certificate.pem if certificate else None,
    )
    pace = Pace(
        f"The rollout of {order.title}",
        progress_deadline=compiled.options.progress_deadline if compiled else None,
        lease=lease,
        is_cancelled=is_cancelled,
        clock=clock,
        sleep=sleep,
    )
    balancer = HaproxyBalancer(
        engine,
        balancer_name(compose_file.project),
        compose_file.balancer_options,
        clock=clock,
        sleep=sleep,
    )
    executor = Executor(order, engine, balancer, pace=pace, on_line=on_line, pull=pull)
    observed = _prepare(executor, order, engine, pace)
    own = {replica.id for replica in observed.replicas(slug)}
    observed = pace.endure(lambda: inspect_replicas(engine, observed, compose_file, own))
    if observed.balancer is not None and observed.balancer.is_ours:
        pace.endure(balancer.settle)
        if certificate is not None and pace.endure(lambda: balancer.install_certificate(certificate.pem)):
            on_line(
                f"The balancer shows the certificate that is good until {certificate.not_after:%Y-%m-%d}."
            )
    plan = _with_image(plan_rollout(observed, compose_file, slug), compiled, engine)
    try:
        executor.run(plan.operations, observed)
    except (OperationFailed, StepFailed, RolloutCancelled) as failure:
        raise _give_up(failure, executor, order, observed, plan, pace, engine, balancer, on_line) from failure
    after = observe(engine, compose_file.project)
    port = after.balancer.published_port if after.balancer else None
    gone = compiled is None or compiled.wanted.replicas == 0
    return RolloutResult(
        environment=compose_file.environment,
        slug=slug,
        outcome="removed" if gone else "unchanged" if plan.is_empty else "successful",
        revision=order.revision,
        spec_hash=compiled.spec_hash if compiled else "",
        generation=compiled.generation if compiled else "",
        replicas=tuple(replica.name for replica in after.replicas(slug)),
        endpoint_url=None if gone else endpoint_url(settings, slug, port=port),
        plan=plan,
        steps=tuple(executor.records),
        seconds=round(clock() - begun, 3),
    )


def _prepare(executor: Executor, order: Order, engine: Engine, pace: Pace) -> Observed:
    """Observe, and see to it that network and balancer are there."""
    project = order.compose_file.project
    observed = observe(engine, project)
    # A service that is removed needs neither.
    if not plan_ground(observed, order.compose_file) or (
        order.compiled is None and observed.balancer is None
    ):
        return observed
    with ground_lock(engine, order.compose_file, pace):
        for _ in range(_GROUND_ROUNDS):
            observed = observe(engine, project)
            ground = plan_ground(observed, order.compose_file)
            if not ground:
                break
            try:
                executor.run(ground, observed)
            except OperationFailed as failure:
                raise failure.error from failure
    return observed


def _with_image(plan: Plan, compiled: CompiledService | None, engine: Engine) -> Plan:
    """The plan, with the image pulled first where the engine has not got it."""
    makes = any(operation.kind is Kind.CREATE_REPLICA for operation in plan.operations)
    if compiled is None or not makes or engine.image(compiled.service.image) is not None:
        return plan
    image = compiled.service.image
    pull = Operation(
        f"pull {image}", Kind.PULL_IMAGE, image, "the engine has not got it", service=compiled.service.name
    )
    rest = [
        operation if operation.after else replace(operation, after=(pull.id,))
        for operation in plan.operations
    ]
    return replace(plan, operations=(pull, *rest))


def _give_up(
    failure: OperationFailed | StepFailed | RolloutCancelled,
    executor: Executor,
    order: Order,
    before: Observed,
    plan: Plan,
    pace: Pace,
    engine: Engine,
    balancer: HaproxyBalancer,
    on_line: Callable[[str], None],
) -> Exception:
    """Put back what ran before, and give the error that tells of it."""
    error = failure.error if isinstance(failure, OperationFailed) else failure
    failed = failure.operation.kind if isinstance(failure, OperationFailed) else Kind.WAIT_HEALTHY
    if error.is_transient or failed is Kind.PULL_IMAGE or pace.has_lost_lease:
        # The engine or the balancer is away, or somebody else works here now, so nothing can be put back; or nothing
        # was begun. The next run goes on from here.
        return error
    compiled = order.compiled
    if compiled is None:
        return error
    route = before.state.routes.get(order.slug)
    fallback = choose_fallback(before.replicas(order.slug), route, compiled.spec_hash, failed=failed)
    on_line(f"{error.message} Putting back what ran before.")
    outcome: Outcome = "rolled_back" if fallback else "failed"
    rollback_problem = ""
    log_tail: tuple[str, ...] = ()
    undo = Executor(order, engine, balancer, pace=pace.patient(), on_line=on_line)
    try:
        now = observe(engine, order.compose_file.project)
        operations = plan_rollback(
            order.compose_file.project,
            order.slug,
            now.replicas(order.slug),
            now.state.routes.get(order.slug),
            fallback=fallback,
            spec_hash=compiled.spec_hash,
        )
        # First whatever makes the old ones serve again; then the log, which goes with the new ones' containers.
        first = next((index for index, step in enumerate(operations, 1) if step.kind is Kind.SWITCH), 0)
        undo.run(operations[:first], now)
        log_tail = _log_of(executor, compiled, fallback, order)
        undo.run(operations[first:], now)
        if fallback and fallback.isdisjoint(replica.id for replica in now.replicas(order.slug)):
            raise StepFailed("the containers that ran before are gone.")
    except (OperationFailed, ConstellationError) as problem:
        outcome = "rollback_failed"
        rollback_problem = problem.error.message if isinstance(problem, OperationFailed) else problem.message
    if isinstance(error, RolloutCancelled) and outcome != "rollback_failed":
        return error
    return _rollout_failed(error, outcome, rollback_problem, order, log_tail, plan, executor, undo)


def _log_of(
    executor: Executor, compiled: CompiledService, fallback: frozenset[str], order: Order
) -> tuple[str, ...]:
    """The end of the failed release's log."""
    lines = executor.gate.log_tail(
        lambda replica: replica.spec_hash == compiled.spec_hash and replica.id not in fallback
    )
    return _without_secrets(lines, order.secrets)


def _rollout_failed(
    error: ConstellationError,
    outcome: Outcome,
    rollback_problem: str,
    order: Order,
    log_tail: tuple[str, ...],
    plan: Plan,
    executor: Executor,
    undo: Executor,
) -> RolloutFailed:
    now = {
        "rolled_back": "What ran before goes on serving.",
        "failed": "Nothing ran before, and nothing runs now.",
        "rollback_failed": f"Putting back what ran before failed too: {rollback_problem}",
    }[outcome]
    remedy = (
        "Look at the environment now, then launch the deployment again."
        if outcome == "rollback_failed"
        else error.remedy or "Read the log, correct the model or its card, and deploy again."
    )
    steps = [*executor.records, *undo.records]
    return RolloutFailed(
        f"{error.message} {now}",
        outcome=outcome,
        remedy=remedy,
        log_tail=log_tail or tuple(error.details.get("log_tail", ())),
        model=order.compiled.wanted.model_name if order.compiled else order.slug,
        environment=order.compose_file.environment,
        reason=error.message,
        plan=plan.rows(),
        steps=[asdict(step) for step in steps],
    )


def _resolve_secrets(compiled: CompiledService | None, resolve: Callable[[str], str]) -> dict[str, str]:
    if compiled is None:
        return {}
    return {key: resolve(variable.reference) for key, variable in compiled.service.secrets.items()}


def _without_secrets(lines: tuple[str, ...], secrets: Mapping[str, str]) -> tuple[str, ...]:
    text = "\n".join(lines)
    for value in filter(None, secrets.values()):
        text = text.replace(value, _HIDDEN)
    return tuple(text.splitlines())
