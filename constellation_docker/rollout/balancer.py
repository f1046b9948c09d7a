"""What a rollout needs of a balancer, whatever it is made of.

A member is one replica behind the balancer. It joins *draining* (checked, but given no requests), becomes *ready* in a
switch, is drained by a later switch, and leaves when nothing is in flight on it any more.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from constellation_docker.cards.serving_options import RateLimit

MemberState = Literal["ready", "drain", "maint"]
CheckState = Literal["up", "down", "unknown"]


class Tally(NamedTuple):
    """What became of a replica's requests and checks since the balancer was started.

    Attributes:
        good: Requests that it answered, but for those with 5xx.
        bad: Requests that it answered with 5xx, and those that could not reach it or broke off.
        failed_checks: Checks that failed while it was taken for good.
    """

    good: int = 0
    bad: int = 0
    failed_checks: int = 0


NOTHING_YET = Tally()


@dataclass(frozen=True)
class Member:
    """One replica, as the balancer knows it.

    Attributes:
        host: Its name in the environment's network; it identifies the member within its route.
        port: Port on which it listens.
        ready_path: Answers 200 once it can answer; the balancer asks it all the time.
        state: Whether it is given requests (`ready`) or only finishes those that it has (`drain`).
        check: What the balancer's own requests to `ready_path` found.
        in_flight: Requests that it has not finished.
        address: Its IPv4 address, where the balancer knows one.
        reason: What the last check found, in the balancer's words.
        failures: How many checks in a row have failed.
        version: The model's version, for people who look.
        is_outlier: It was found to fail requests that its siblings answer; a deployment replaces it.
        tally: What became of its requests.
    """

    host: str
    port: int
    ready_path: str
    state: MemberState = "drain"
    check: CheckState = "unknown"
    in_flight: int = 0
    address: str | None = None
    reason: str = ""
    failures: int = 0
    version: str = ""
    is_outlier: bool = False
    tally: Tally = NOTHING_YET

    @property
    def is_serving(self) -> bool:
        """Whether it is given requests and answers them."""
        return self.state == "ready" and self.check == "up"


@dataclass(frozen=True)
class Route:
    """One service at the balancer.

    Attributes:
        slug: The path under which it is reached, and its name.
        timeout_seconds: Longest that the balancer waits for an answer.
        max_body_bytes: Largest request that it lets through; None: any.
        members: Its replicas.
        rate_limit: How many requests each client may make; None: any.
    """

    slug: str
    timeout_seconds: float
    max_body_bytes: int | None = None
    members: tuple[Member, ...] = ()
    rate_limit: RateLimit | None = None

    def member(self, host: str) -> Member | None:
        """The member of that name."""
        return next((member for member in self.members if member.host == host), None)


@dataclass(frozen=True)
class BalancerState:
    """All routes of a balancer."""

    routes: Mapping[str, Route] = field(default_factory=dict)

    def members(self, slug: str) -> tuple[Member, ...]:
        """The members of a route; empty where there is no such route."""
        route = self.routes.get(slug)
        return route.members if route else ()


class Balancer(Protocol):
    """The balancer of one environment. Every change is also on its disk when the call returns."""

    def read(self) -> BalancerState:
        """What it does right now."""

    def read_members(self, slug: str) -> tuple[Member, ...]:
        """The members of one route right now; cheap enough to be asked several times a second."""

    def has_former_process(self) -> bool:
        """Whether a process from before a reload goes on for clients that were connected to it.

        It knows the members of its time, and what it has in flight is in nobody else's count.
        """

    def register(self, route: Route, members: Sequence[Member]) -> None:
        """Let members join a route, draining. The route is made where there is none."""

    def switch(self, slug: str, *, ready: Collection[str], drain: Collection[str]) -> None:
        """Give requests to the members `ready`, and no more to `drain`, in one step. Names are hosts."""

    def unregister(self, slug: str, hosts: Collection[str]) -> None:
        """Take members out of a route."""

    def remove_route(self, slug: str) -> None:
        """Take a route and all its members away."""
