"""Settings of environments and of rollouts."""

from __future__ import annotations

from pydantic import Field

from constellation_docker.settings.section import Section


class EnvironmentSettings(Section):
    """One environment: an engine, a Compose project, a balancer with one published port."""

    engine_url: str | None = Field(
        None,
        description="Engine address: unix://…, tcp://… or ssh://…. Default: DOCKER_HOST, the CLI's context, the default socket.",
    )
    project: str | None = Field(
        None, description="Compose project name (default: `constellation-<environment>`)."
    )
    bind: str = Field("127.0.0.1", description="Address on which the balancer's port is published.")
    port: int = Field(8080, ge=0, le=65535, description="Port of the balancer.")
    public_url: str | None = Field(
        None, description="URL under which people reach the balancer (default: http://bind:port)."
    )


class RolloutSettings(Section):
    """Deadlines of a rollout; a card may set its own. Names follow Compose and Nomad."""

    healthy_deadline_seconds: float = Field(300, description="Longest for a new replica to become healthy.")
    progress_deadline_seconds: float = Field(600, description="Longest for a whole rollout.")
    min_healthy_time_seconds: float = Field(
        10, description="How long the new generation must stay healthy to be stable."
    )
    drain_timeout_seconds: float = Field(
        60, description="Longest wait for requests in flight on the old generation."
    )
    stop_grace_seconds: float = Field(30, description="SIGTERM to SIGKILL.")
    lease_seconds: float = Field(
        60, description="How long a rollout's lease lasts when its holder is not heard of."
    )
    retained_releases: int = Field(
        3, description="How many releases of a service keep their image for a quick return."
    )
