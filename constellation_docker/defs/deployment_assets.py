"""The assets of an environment: compose_file (what would run, and the plan) and deployment (one service of it)."""

from collections.abc import Sequence
from typing import Literal

import dagster as dg
from pydantic import Field

from constellation_docker.cards import CardNotFound, CardStore, DeploymentNotFound, DeploymentRow, InvalidRow, ModelRow
from constellation_docker.cards.store import KEEP
from constellation_docker.compose import ComposeFile, compile_environment, endpoint_url, wanted_service
from constellation_docker.defs import metadata, tags
from constellation_docker.defs.failures import RETRY_WHAT_PASSES, explained
from constellation_docker.defs.partitions import ARROW_ONLY, environments_partitions, service_of, services_partitions
from constellation_docker.defs.resources import CardStoreResource, EngineResource, SettingsResource
from constellation_docker.engine import Engine
from constellation_docker.errors import InvalidInput
from constellation_docker.packaging import ensure_base_image
from constellation_docker.rollout import Plan, observe, plan_environment, roll_out
from constellation_docker.settings import Settings


class DeployConfig(dg.Config):
    """What to deploy; with nothing given, what is wanted already, or else the newest published version."""

    version: str | None = Field(None, description="Version of the model, such as 1.0.0.")
    model_id: str | None = Field(None, description="The version's id, instead of `version`.")
    to: str | None = Field(None, description="`previous`, or a revision number: go back to that release.")
    replicas: int | None = Field(None, description="How many replicas; not given: as now, or as the card says.")


def compile_wanted(
    environment: str, rows: Sequence[DeploymentRow | InvalidRow], settings: Settings, balancer_image: str
) -> ComposeFile:
    """The environment's Compose file, from the rows that can be used and are published."""
    services = [
        wanted_service(row) for row in rows if isinstance(row, DeploymentRow) and row.row.publication is not None
    ]
    return compile_environment(
        environment,
        settings.environment(environment),
        services,
        balancer_image=balancer_image,
        rollout=settings.rollout,
    )
