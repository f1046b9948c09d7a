"""Which replicas fail requests that their siblings answer, from what the balancer counted between looks. Pure.

A replica can pass `/ready` and fail every request: its weights are damaged, its GPU is lost, its disk is full. The
balancer's own answer to that (`observe layer7`) is mild, because HAProxy's strict one, `on-error mark-down`, takes the
last replica as well as any other. So the look decides here, where all replicas are seen beside each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pydantic import BaseModel, ConfigDict

from constellation_docker.rollout.balancer import BalancerState, Member, Route, Tally
from constellation_docker.rollout.observed import Observed

WINDOW_SECONDS = 60.0
"""How long what was counted adds up, so that a service with few requests is judged too."""

BAD_SHARE = 0.5
"""A replica fails its requests where so many of them failed, or more."""

WELL_SHARE = 0.1
"""A replica answers well where at most so many failed."""

SPARED = "fails requests that its siblings answer"


class Watched(BaseModel):
    """What is remembered of a replica from look to look.

    Attributes:
        slug: Its service.
        begun: When the window began, in seconds since 1970.
        first: What had become of its requests then.
        last: What had at the last look.
        finding: What makes it an outlier; empty where it is none.
        complaint: What makes it fail like most of its siblings; empty where it does not.
    """

    model_config = ConfigDict(frozen=True)

    slug: str
    begun: float
    first: Tally
    last: Tally
    finding: str = ""
    complaint: str = ""


@dataclass(frozen=True)
class _Share:
    """What became of a replica's requests and checks between two looks."""

    good: int
    bad: int

    @classmethod
    def between(cls, earlier: Tally, later: Tally) -> _Share:
        bad = later.bad - earlier.bad + later.failed_checks - earlier.failed_checks
        return cls(later.good - earlier.good, bad)

    @property
    def total(self) -> int:
        return self.good + self.bad

    def is_bad(self, least: int) -> bool:
        return self.bad >= max(1, least) and self.bad >= BAD_SHARE * self.total

    @property
    def is_well(self) -> bool:
        return self.good > 0 and self.bad <= WELL_SHARE * self.total


def watch_traffic(
    state: BalancerState, before: Mapping[str, Watched], now: float, least: int
) -> dict[str, Watched]:
    """What is to be remembered after a look, with the outliers found.

    A replica is one where it failed at least `least` requests and checks since the last look, or within the window, and
    at least half of all, while as many siblings or more answered well. Where most replicas fail, the model does: that is
    remembered as a complaint, and taking replicas away would help nobody.

    Args:
        state: What the balancer does.
        before: What was remembered after the last look, by host.
        now: The present, in seconds since 1970.
        least: Fewest failures that count; 0: nothing is watched.
    """
    watched: dict[str, Watched] = {}
    if not least:
        return watched
    for route in state.routes.values():
        for member in route.members:
            watched[member.host] = _remember(route.slug, member, before.get(member.host), now)
        watched |= _judge(route, before, watched, least)
    return watched


def outliers_of(watched: Mapping[str, Watched]) -> dict[str, str]:
    """What makes each outlier one, by host."""
    return {host: item.finding for host, item in watched.items() if item.finding}


def complaints_of(watched: Mapping[str, Watched]) -> dict[str, str]:
    """What is said of services most of whose replicas fail, by slug."""
    return {item.slug: item.complaint for item in watched.values() if item.complaint}


def mark_outliers(observed: Observed, outliers: Mapping[str, str]) -> Observed:
    """An environment as a look at its balancer's counts found it: what plans it, replaces the outliers.

    Args:
        observed: As it is.
        outliers: Hosts of the replicas that fail.
    """
    routes = {
        slug: replace(
            route,
            members=tuple(
                replace(member, is_outlier=member.is_outlier or member.host in outliers)
                for member in route.members
            ),
        )
        for slug, route in observed.state.routes.items()
    }
    return replace(observed, state=BalancerState(routes))


def choose_spared(route: Route) -> tuple[str, ...]:
    """The outliers that get requests although another replica answers."""
    if not any(member.is_serving and not member.is_outlier for member in route.members):
        return ()
    return tuple(member.host for member in route.members if member.is_outlier and member.state == "ready")


def choose_restored(route: Route) -> tuple[str, ...]:
    """The outliers that are to be given requests again, because nobody else is there to answer any."""
    if any(member.state == "ready" and member.check != "down" for member in route.members):
        return ()
    return tuple(
        member.host
        for member in route.members
        if member.is_outlier and member.state == "drain" and member.check == "up"
    )


def _remember(slug: str, member: Member, known: Watched | None, now: float) -> Watched:
    """A replica's record without a verdict of this look."""
    tally = member.tally
    fresh = Watched(slug=slug, begun=now, first=tally, last=tally)
    if known is None or any(later < earlier for earlier, later in zip(known.last, tally, strict=True)):
        return fresh  # it has just joined, or the balancer was started anew
    if member.state != "ready":
        # What is drained keeps its finding; what its last requests come to says nothing.
        return fresh.model_copy(update={"finding": known.finding if member.is_outlier else ""})
    if now - known.begun < WINDOW_SECONDS:
        return known.model_copy(update={"last": tally})
    if _Share.between(known.first, tally).is_well:
        return fresh
    return fresh.model_copy(update={"finding": known.finding, "complaint": known.complaint})


def _judge(
    route: Route, before: Mapping[str, Watched], watched: Mapping[str, Watched], least: int
) -> dict[str, Watched]:
    """The records of replicas that this look finds to fail: outliers, or all that fail like most of them."""
    spared = sum(member.is_outlier and member.state != "ready" for member in route.members)
    asked = [member for member in route.members if member.state == "ready" and member.host in before]
    for span in ("last", "first"):
        shares = {
            member.host: _Share.between(getattr(before[member.host], span), member.tally) for member in asked
        }
        bad = [host for host, share in shares.items() if share.is_bad(least)]
        well = [member.host for member in asked if member.check == "up" and shares[member.host].is_well]
        if bad and len(bad) + spared <= len(well):
            return {
                host: watched[host].model_copy(
                    update={"finding": watched[host].finding or _describe(shares, host, well)}
                )
                for host in bad
            }
        if len(bad) > len(well) and 2 * len(bad) > len(asked):
            told = next((watched[host].complaint for host in bad if watched[host].complaint), "")
            complaint = told or _complain(shares, bad)
            return {host: watched[host].model_copy(update={"complaint": complaint}) for host in bad}
    return {}


def _complain(shares: Mapping[str, _Share], bad: Sequence[str]) -> str:
    failed, total = sum(shares[host].bad for host in bad), sum(shares[host].total for host in bad)
    return f"{failed} of {total} requests and checks failed on {len(bad)} of {len(shares)} replicas"


def _describe(shares: Mapping[str, _Share], host: str, well: Sequence[str]) -> str:
    siblings = _Share(sum(shares[other].good for other in well), sum(shares[other].bad for other in well))
    own = shares[host]
    return (
        f"{SPARED}: {own.bad} of {own.total} requests and checks failed, "
        f"and {siblings.bad} of {siblings.total} of its siblings'"
    )
