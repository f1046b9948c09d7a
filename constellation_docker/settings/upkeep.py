"""Settings of what happens by itself: notifications and putting things right."""

from __future__ import annotations

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
