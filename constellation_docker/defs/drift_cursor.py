"""What the sensor of drift remembers from tick to tick, and how it tells whether to look again."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel

from constellation_docker.defs import drift_history as history
from constellation_docker.defs.comparison import Inspected
from constellation_docker.rollout import (
    News,
    Watched,
    choose_restored,
    complaints_of,
    outliers_of,
    watch_traffic,
)
from constellation_docker.settings import HealingSettings

MOST_NAMED = 50
"""Most containers that are looked into at once because something was told of them; the others come in turn."""


class Position(BaseModel):
    """Where the sensor stands with one environment.

    Attributes:
        since: The engine's time up to which its events were read.
        compared_at: When it was compared last, in seconds since 1970; 0: never.
        look_at: When to compare it again without a reason; 0: no need.
        not_before: When to ask its engine again; it was slow.
        fingerprint: Of its containers' states, where its engine forgot events.
        told: What was shown last of each service that differs, by partition.
        is_shared: Some service has several replicas, whose answers are held beside each other at every tick.
        traffic: What became of the requests of each replica, by host.
        turn: How often it was compared: which containers are looked into next.
        altered: Ids of those that were found changed in place.
    """

    since: float | None = None
    compared_at: float = 0.0
    look_at: float = 0.0
    not_before: float = 0.0
    fingerprint: str = ""
    told: dict[str, history.Shown] = {}
    is_shared: bool = False
    traffic: dict[str, Watched] = {}
    turn: int = 0
    altered: tuple[str, ...] = ()

    def inspected_with(self, news: News) -> Inspected:
        """Which containers the next comparison looks into."""
        return Inspected((*self.altered, *news.altered)[:MOST_NAMED], self.turn)

    @property
    def outliers(self) -> dict[str, str]:
        """What makes replicas outliers that fail requests, by host."""
        return outliers_of(self.traffic)


class DriftCursor(BaseModel):
    """Where the sensor stands with each environment.

    Attributes:
        environments: By name.
        judged_at: When it said last what it thinks of all services, in seconds since 1970; 0: never.
    """

    environments: dict[str, Position] = {}
    judged_at: float = 0.0

    @property
    def differing(self) -> dict[str, history.Shown]:
        """What was shown last of every service that differs, by partition."""
        return {key: shown for position in self.environments.values() for key, shown in position.told.items()}

    @classmethod
    def parse(cls, text: str | None) -> Self:
        """The cursor that a tick was given; an empty one at the first tick."""
        return cls.model_validate_json(text) if text else cls()


def choose_reason(position: Position, news: News, now: float, settings: HealingSettings) -> str:
    """Why an environment is to be compared now; empty where it is not.

    Args:
        position: Where the sensor stands with it.
        news: What its engine told.
        now: The present, in seconds since 1970.
        settings: How often.
    """
    if news.events:
        return ", ".join(news.events[:3]) + (", …" if len(news.events) > 3 else "")
    if news.fingerprint and news.fingerprint != position.fingerprint:
        return "more happened than the engine remembers"
    if position.look_at and position.look_at <= now:
        return "a service was not as wanted"
    if now - position.compared_at >= settings.full_comparison_seconds:
        return "the last comparison is long ago"
    return ""


def watch(position: Position, news: News, now: float, settings: HealingSettings) -> str:
    """Hold the answers of replicas beside each other; why the environment is to be compared, where they say so."""
    if news.traffic is None:
        return ""
    known = {*position.outliers, *complaints_of(position.traffic)}
    position.traffic = watch_traffic(news.traffic, position.traffic, now, settings.outlier_failures)
    if {*position.outliers, *complaints_of(position.traffic)} != known:
        return "replicas fail requests"
    if any(choose_restored(route) for route in news.traffic.routes.values()):
        return "a replica that fails requests is the only one left"
    return ""
