"""What must be done to one service, decided from its containers, its route and what is wanted of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from constellation_docker.compose import CompiledService
from constellation_docker.rollout.balancer import Member, Route
from constellation_docker.rollout.draft import Draft, Situation, is_ready
from constellation_docker.rollout.observed import Replica
from constellation_docker.rollout.operation import Kind, Operation


def plan_service(
    project: str,
    slug: str,
    compiled: CompiledService | None,
    replicas: Sequence[Replica],
    route: Route | None,
) -> tuple[Operation, ...]:
    """What must be done so that one service runs what is wanted.

    Args:
        project: The Compose project.
        slug: The service.
        compiled: What is wanted; None: that it is gone.
        replicas: Its containers as they are.
        route: What the balancer does for it; None: nothing.
    """
    situation = Situation.of(slug, compiled, replicas, route)
    if compiled is None or compiled.wanted.replicas == 0:
        return _plan_removal(situation)
    draft = Draft(project, situation)
    cause = f"{compiled.wanted.model_name}@{compiled.wanted.model_version} is wanted"
    is_watched = bool(situation.joining) or situation.has_stale
    if compiled.options.order == "stop-first" and situation.numbers and situation.leaving_running:
        why = "its place is needed for the new one"
        draft.drain(why)
        draft.retire(why)
        draft.join(cause)
        draft.monitor()
    else:
        draft.join(cause)
        draft.drain(situation.leaving_cause)
        # The old ones stay at hand, drained, while the new ones are watched: going back is then a mere switch.
        if is_watched:
            draft.monitor()
        draft.retire(situation.leaving_cause)
    draft.clean_up()
    if not draft.operations and _route_differs(route, compiled):
        draft.add(Kind.REGISTER, slug, "the route's limits changed")
    return tuple(draft.operations)


def plan_rollback(
    project: str,
    slug: str,
    replicas: Sequence[Replica],
    route: Route | None,
    *,
    fallback: Collection[str],
    spec_hash: str,
) -> tuple[Operation, ...]:
    """What must be done so that a service runs again what it ran before.

    Args:
        project: The Compose project.
        slug: The service.
        replicas: Its containers as they are now.
        route: What the balancer does for it.
        fallback: Ids of the containers that are to serve again.
        spec_hash: Of the release that failed; its other containers are removed.
    """
    kept = [replica for replica in replicas if replica.id in fallback]
    dropped = [
        replica for replica in replicas if replica.id not in fallback and replica.spec_hash == spec_hash
    ]
    members = {member.host: member for member in (route.members if route else ())}
    gone = set(members) - {replica.host for replica in replicas}
    leaving = tuple(sorted(({replica.host for replica in dropped} & set(members)) | gone))
    draft = Draft(project, Situation(slug, None, tuple(replicas), route, tuple(kept), tuple(dropped), ()))
    cause = "it ran before and takes over again"
    waiting = [replica for replica in kept if not is_ready(replica, members)]
    # Those that were only drained can take over at once.
    absent = [replica for replica in waiting if not _is_at_hand(replica, members)]
    for replica in absent:
        if not replica.is_running:
            draft.add(Kind.START_REPLICA, replica.name, cause, hosts=(replica.host,), begins=True)
    draft.close()
    if absent:
        hosts = tuple(replica.host for replica in absent)
        draft.add(Kind.WAIT_HEALTHY, slug, cause, hosts=hosts)
        draft.add(Kind.REGISTER, slug, cause, hosts=hosts)
        draft.add(Kind.WAIT_UP, slug, cause, hosts=hosts)
    why = "the new release failed"
    if waiting or leaving:
        hosts = tuple(replica.host for replica in waiting)
        draft.add(Kind.SWITCH, slug, why, hosts=hosts, drain=leaving)
    if leaving:
        draft.add(Kind.WAIT_DRAINED, slug, why, hosts=leaving)
    if kept:
        if leaving:
            draft.add(Kind.UNREGISTER, slug, why, hosts=leaving)
    elif route is not None:
        draft.add(Kind.REMOVE_ROUTE, slug, "nothing ran before")
    draft.stop(dropped, why)
    draft.remove(dropped, why)
    return tuple(draft.operations)


def choose_fallback(
    replicas: Sequence[Replica], route: Route | None, spec_hash: str, *, failed: Kind
) -> frozenset[str]:
    """The containers that serve again when a rollout fails.

    Args:
        replicas: The service's containers when the rollout began.
        route: What the balancer did for it then.
        spec_hash: Of the release that failed.
        failed: The kind of the operation that failed.

    Returns:
        Their ids: those of another release that served; after a switch that an earlier run made, those of the release
        before, which are drained or stopped but still there; else those that served.
    """
    members = {member.host: member for member in (route.members if route else ())}
    routed = [replica for replica in replicas if replica.is_running and is_ready(replica, members)]
    # One that answered nobody before cannot be waited for now; the others are enough.
    serving = [replica for replica in routed if members[replica.host].check != "down"] or routed
    others = [replica for replica in serving if replica.spec_hash != spec_hash]
    if others:
        return frozenset(replica.id for replica in others)
    retired = [
        replica
        for replica in replicas
        if replica.spec_hash != spec_hash and (replica.is_running or replica.state == "exited")
    ]
    if retired and (failed is Kind.MONITOR or not serving):
        latest = max(retired, key=lambda replica: (replica.is_healthy, replica.created)).spec_hash
        return frozenset(replica.id for replica in retired if replica.spec_hash == latest)
    return frozenset(replica.id for replica in serving)


def _plan_removal(situation: Situation) -> tuple[Operation, ...]:
    draft = Draft("", situation)
    cause = "it is not wanted"
    members = situation.leaving_members
    if members:
        draft.add(Kind.SWITCH, situation.slug, cause, drain=members)
        draft.add(Kind.WAIT_DRAINED, situation.slug, cause, hosts=members)
    if situation.route is not None:
        draft.add(Kind.REMOVE_ROUTE, situation.slug, cause, hosts=members)
    draft.stop(situation.leaving, cause)
    draft.remove(situation.leaving, cause)
    return tuple(draft.operations)


def _route_differs(route: Route | None, compiled: CompiledService) -> bool:
    wanted = compiled.wanted
    return route is not None and (route.max_body_bytes, route.rate_limit) != (
        wanted.max_body_bytes,
        wanted.rate_limit,
    )


def _is_at_hand(replica: Replica, members: dict[str, Member]) -> bool:
    member = members.get(replica.host)
    return replica.is_healthy and member is not None and member.check == "up"
