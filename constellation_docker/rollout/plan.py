"""The plan that moves an environment to what is wanted: data, decided without touching anything.

The shape is Compose's own since 2026 (docker/compose, `pkg/compose/plan.go`): observe, plan, execute.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from constellation_docker.compose import CompiledService, ComposeFile
from constellation_docker.rollout.balancer import BalancerState, Route
from constellation_docker.rollout.faults import describe_faults
from constellation_docker.rollout.haproxy_config import layout_of
from constellation_docker.rollout.observed import Observed, Replica
from constellation_docker.rollout.operation import Action, Change, Kind, Operation, Plan
from constellation_docker.rollout.service_plan import plan_service


def plan_environment(observed: Observed, compose_file: ComposeFile) -> Plan:
    """What must be done so that a whole environment runs what its Compose file says: the preview.

    Args:
        observed: The environment as it is.
        compose_file: As it is to be.
    """
    return plan_rollout(observed, compose_file)


def plan_rollout(observed: Observed, compose_file: ComposeFile, only: str | None = None) -> Plan:
    """What must be done so that an environment, or one service of it, runs what its Compose file says.

    Args:
        observed: The environment as it is.
        compose_file: As it is to be.
        only: The slug of the one service that is concerned; None: all of them, and those that are to go.
    """
    operations = list(plan_ground(observed, compose_file))
    ground = tuple(operation.id for operation in operations)
    state = assume_state(observed)
    slugs = sorted({*compose_file.services, *observed.services, *state.routes}) if only is None else [only]
    changes = []
    for slug in slugs:
        compiled = compose_file.services.get(slug)
        route = state.routes.get(slug)
        replicas = observed.replicas(slug)
        if only is None and slug in compose_file.kept:
            changes.append(Change(slug, "keep", _what_runs(replicas), "as it is", compose_file.kept[slug]))
            continue
        steps = plan_service(compose_file.project, slug, compiled, replicas, route)
        operations += [_after_all(step, ground) for step in steps]
        changes.append(summarize_change(slug, compiled, replicas, route, steps))
    return Plan(compose_file.project, tuple(operations), tuple(changes))


def plan_ground(observed: Observed, compose_file: ComposeFile) -> tuple[Operation, ...]:
    """What must be done so that an environment has its network and its balancer."""
    operations: list[Operation] = []
    if not observed.has_network:
        network = compose_file.network
        operations.append(
            Operation(f"network {network}", Kind.CREATE_NETWORK, network, "the environment has no network")
        )
    name = f"{compose_file.project}-{compose_file.balancer.name}-1"
    after = tuple(operation.id for operation in operations)

    def add(kind: Kind, cause: str) -> None:
        operations.append(Operation(f"{kind} {name}", kind, name, cause, after=after))

    balancer = observed.balancer
    if balancer is None:
        add(Kind.CREATE_BALANCER, "the environment has no balancer")
    elif balancer.spec_hash != compose_file.balancer_hash:
        add(Kind.REPLACE_BALANCER, "its image, its ports or whether it speaks TLS changed")
    elif balancer.name != name:
        add(Kind.START_BALANCER, f"its container was given the name {balancer.name}")
    elif not balancer.answers:
        add(Kind.START_BALANCER, f"it is {balancer.state} and does not answer")
    elif not balancer.is_ours:
        add(Kind.TAKE_OVER_BALANCER, "it was started by stock Compose")
    elif balancer.layout != layout_of(compose_file.balancer_options):
        add(Kind.RELOAD_BALANCER, "its configuration is of other settings or of another release")
    return tuple(operations)


def plan_routes(observed: Observed) -> BalancerState:
    """The routes of a balancer that knows none yet, from what runs: of each service, its oldest healthy generation.

    The oldest, because it is the one that served before a newer one was begun.
    """
    routes: dict[str, Route] = {}
    for slug, replicas in observed.services.items():
        healthy = [replica for replica in replicas if replica.is_healthy]
        if not healthy:
            continue
        oldest = min(healthy, key=lambda replica: (replica.created, replica.number)).spec_hash
        chosen = [replica for replica in healthy if replica.spec_hash == oldest]
        routes[slug] = Route(
            slug,
            chosen[0].timeout_seconds,
            None,
            tuple(replace(replica.member(), state="ready", check="up") for replica in chosen),
        )
    return BalancerState(routes)


def assume_state(observed: Observed) -> BalancerState:
    """What the balancer does, or what it will do once it is there."""
    balancer = observed.balancer
    return observed.state if balancer and balancer.is_ours else plan_routes(observed)


def summarize_change(
    slug: str,
    compiled: CompiledService | None,
    replicas: Sequence[Replica],
    route: Route | None,
    steps: Sequence[Operation],
) -> Change:
    """What a plan does to one service, in one line."""
    running = _what_runs(replicas)
    wanted = (
        f"{compiled.wanted.replicas} × {compiled.wanted.model_version}" if compiled is not None else "nothing"
    )

    def change(action: Action, cause: str) -> Change:
        return Change(slug, action, running, wanted, cause)

    if not steps:
        return change("keep", "it runs as wanted")
    if compiled is None or compiled.wanted.replicas == 0:
        return change("remove", "it is not wanted")
    if not replicas:
        return change("create", "it does not run")
    if any(replica.spec_hash != compiled.spec_hash for replica in replicas):
        return change("replace", "its image or its settings changed")
    if all(replica.is_hopeful for replica in replicas) and len(replicas) != compiled.wanted.replicas:
        return change("scale", "another number of replicas is wanted")
    return change("heal", "; ".join(describe_faults(compiled, replicas, route)) or steps[0].cause)


def _what_runs(replicas: Sequence[Replica]) -> str:
    releases = sorted(
        {replica.version or replica.spec_hash[:12] or "unknown" for replica in replicas if replica.is_running}
    )
    count = sum(replica.is_running for replica in replicas)
    return f"{count} × {', '.join(releases)}" if count else "nothing"


def _after_all(operation: Operation, ground: tuple[str, ...]) -> Operation:
    return operation if operation.after or not ground else replace(operation, after=ground)
