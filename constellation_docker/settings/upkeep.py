"""Settings of what happens by itself: notifications and putting things right."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from constellation_docker.settings.secret import SecretReference
from constellation_docker.settings.section import Section


class NotificationSettings(Section):
    """Who hears of failed runs."""

    webhook_url: SecretReference | None = Field(
        None, description="Reference to a URL that gets a JSON POST for every failed run."
    )
    timeout_seconds: float = Field(10, description="Longest for one notification.")


class ReconcileSettings(Section):
    """How often things are put right by themselves."""

    cron: str = Field("*/10 * * * *", description="When the reconciling schedule runs.")
    max_attempts: int = Field(
        3, description="Most automatic re-runs of a packaging that failed for passing reasons."
    )
    max_runs_per_tick: int = Field(30, description="Most runs that one sensor or schedule tick requests.")


class HealingSettings(Section):
    """What happens where something else runs than is wanted."""

    mode: Literal["heal", "report"] = Field(
        "heal", description="`heal` puts it right; `report` only shows it, and touches nothing."
    )
    full_comparison_seconds: float = Field(
        60, ge=5, description="How often an environment is compared although its engine told of nothing."
    )
    max_attempts: int = Field(
        5,
        ge=1,
        description="Most healings of one release in a row. Then somebody must look, and is told once.",
    )
    backoff_seconds: float = Field(
        10,
        ge=0,
        description="Pause after the first healing of a release; each further one doubles it.",
    )
    max_backoff_seconds: float = Field(600, ge=0, description="Longest such pause.")
    outlier_failures: int = Field(
        10,
        ge=0,
        description="A replica that failed so many requests within a minute, and half of all, while its siblings answer "
        "theirs, gets no more and is replaced; 0: nobody looks.",
    )
    quiet_seconds: float = Field(
        3600, ge=0, description="A release that was well for so long starts to be counted anew."
    )


class ReapingSettings(Section):
    """Removing what belongs to nothing any more."""

    cron: str = Field("17 * * * *", description="When the schedule `reap` runs.")
    dry_run: bool = Field(False, description="Only report what would be removed.")
    min_age_seconds: float = Field(
        3600, ge=0, description="What is younger is never removed: somebody may be about to use it."
    )
    cache_seconds: float = Field(
        30 * 24 * 3600.0,
        ge=0,
        description="How long sources, exports and wheels in `home` are kept that no model of the card store needs.",
    )
