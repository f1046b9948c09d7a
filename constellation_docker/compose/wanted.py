"""What an environment is to run, resolved: a deployment's row, its model's card and publication in one record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from constellation_docker.cards.quantities import duration_seconds
from constellation_docker.cards.serving_options import DeployOptions, RateLimit, Resources
from constellation_docker.compose.errors import NotPublished
from constellation_docker.compose.model import Healthcheck
from constellation_docker.settings import RolloutSettings

if TYPE_CHECKING:
    from constellation_docker.cards import DeploymentRow

# The images that we build run as this user; it owns nothing.
SERVING_USER = "65532:65532"


class WantedService(BaseModel):
    """One model in an environment, as it is to run.

    Args:
        model_name: The model's name.
        slug: Its safe form: Compose service, host name, path at the balancer.
        model_version: The version.
        model_id: The version's id.
        revision: The deployment's revision.
        image: Pinned reference of the image.
        port: Port on which a replica listens.
        ready_path: Answers 200 once a replica can answer.
        replicas: How many replicas.
        resources: What each may use.
        env: Environment variables.
        secrets: Environment variables by reference.
        healthcheck: Docker's health check; None: the image's own.
        request_timeout_seconds: Longest for one request; None: the balancer's default.
        max_body_bytes: Largest request body that the balancer lets through; None: any.
        rate_limit: How many requests each client may make; None: any.
        user: User and group in the container.
        deploy: The card's own order and deadlines.
        state: Whether it is to run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model_name: str
    slug: str
    model_version: str
    model_id: str
    revision: int = 1
    image: str
    port: int = 8080
    ready_path: str = "/ready"
    replicas: int = Field(1, ge=0)
    resources: Resources = Resources()
    env: dict[str, str] = Field(default_factory=dict)
    secrets: dict[str, str] = Field(default_factory=dict)
    healthcheck: Healthcheck | None = None
    request_timeout_seconds: float | None = None
    max_body_bytes: int | None = None
    rate_limit: RateLimit | None = None
    user: str = SERVING_USER
    deploy: DeployOptions = DeployOptions()
    state: Literal["running", "stopped", "deleted"] = "running"


class RolloutOptions(BaseModel):
    """A service's order and deadlines: the card's, where it gives them, else the environment's. In seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    order: Literal["start-first", "stop-first"] = "start-first"
    healthy_deadline: float = 300
    progress_deadline: float = 600
    min_healthy_time: float = 10
    drain_timeout: float = 60
    stop_grace_period: float = 30


def resolve_rollout_options(deploy: DeployOptions, settings: RolloutSettings) -> RolloutOptions:
    """A service's order and deadlines.

    Args:
        deploy: What its card says.
        settings: What holds where the card says nothing.
    """

    def chosen(own: str | None, default: float) -> float:
        return default if own is None else duration_seconds(own)

    return RolloutOptions(
        order=deploy.order,
        healthy_deadline=chosen(deploy.healthy_deadline, settings.healthy_deadline_seconds),
        progress_deadline=chosen(deploy.progress_deadline, settings.progress_deadline_seconds),
        min_healthy_time=chosen(deploy.min_healthy_time, settings.min_healthy_time_seconds),
        drain_timeout=chosen(deploy.drain_timeout, settings.drain_timeout_seconds),
        stop_grace_period=chosen(deploy.stop_grace_period, settings.stop_grace_seconds),
    )


def wanted_service(row: DeploymentRow) -> WantedService:
    """What a deployment's row asks for.

    Raises:
        NotPublished: Its model version has no image yet.
    """
    card, publication = row.row.card, row.row.publication
    if publication is None:
        raise NotPublished(
            f"{row.row.key} cannot be deployed to {row.environment}: it has no published image.",
            remedy="Launch the job package_model for it first.",
            model=row.row.key,
            environment=row.environment,
        )
    serving = card.serving
    return WantedService(
        model_name=card.model_name,
        slug=card.slug,
        model_version=card.model_version,
        model_id=str(row.row.model_id),
        revision=row.revision,
        image=publication.image,
        port=publication.port,
        ready_path=publication.ready_path,
        replicas=row.wanted_replicas,
        resources=row.wanted_resources,
        env=dict(serving.env),
        secrets=dict(serving.secrets),
        request_timeout_seconds=serving.request_timeout_seconds,
        max_body_bytes=serving.max_body_bytes,
        rate_limit=serving.rate_limit,
        deploy=serving.deploy,
        state=row.state,
    )
