"""Where a run can be looked at."""

from __future__ import annotations

from pydantic import BaseModel, Field

from constellation_docker.settings import Settings

UI_PATH = "/ui"
"""Under this path the gateway passes on Dagster's UI to those who are logged in."""


class Link(BaseModel):
    """A run, and where people look at it."""

    run_id: str
    url: str = Field(description="The run's page in Dagster's UI, behind the gateway's login.")


def run_link(settings: Settings, run_id: str | None) -> Link | None:
    """The link to a run; None where there is none."""
    if run_id is None:
        return None
    public = (settings.gateway.public_url or "").rstrip("/")
    return Link(run_id=run_id, url=f"{public}{UI_PATH}/runs/{run_id}")
