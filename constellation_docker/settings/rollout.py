"""Settings of environments and of rollouts."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from constellation_docker.settings.secret import SecretReference
from constellation_docker.settings.section import Section


def _checked_name(name: str) -> str:
    if not name or len(name) > 253 or any(character.isspace() or character in "/:@" for character in name):
        # An IPv6 address is the only name with colons.
        try:
            ip_address(name)
        except ValueError:
            raise ValueError(
                "must be a host name such as models.example, *.example, or an IP address"
            ) from None
    return name


class TlsSettings(Section):
    """HTTPS at an environment's balancer. Without a certificate of its own, one of a private CA is issued and renewed."""

    certificate: SecretReference | None = Field(
        None,
        description="Reference to a PEM with the certificate, its chain and its key. Default: the project's own CA issues one.",
    )
    names: tuple[Annotated[str, AfterValidator(_checked_name)], ...] = Field(
        (),
        description="Further host names and addresses in the certificate that the project's own CA issues.",
    )
    folder: Path | None = Field(
        None,
        description="Where the project's own CA lies (default: `environments/<environment>/tls` in `home`).",
    )
    leaf_days: int = Field(
        30, ge=1, le=397, description="How long an issued certificate is good; renewed after two thirds."
    )
    minimum: Literal["TLSv1.2", "TLSv1.3"] = Field("TLSv1.2", description="Oldest version of TLS.")


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
        None,
        description="URL under which people reach the balancer (default: http://bind:port, with `tls` https://…).",
    )
    tls: TlsSettings | None = Field(None, description="HTTPS and HTTP/2 at the balancer; `{}` turns it on.")
    metrics_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="Port of the balancer's metrics and status page, on the same address. Default: not published.",
    )
    slow_start_seconds: int = Field(
        10,
        ge=0,
        le=3600,
        description="How long the share of requests of a replica that has just become ready grows; 0: at once.",
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
