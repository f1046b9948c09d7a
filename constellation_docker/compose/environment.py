"""An environment's Compose file, compiled from what it is to run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from constellation_docker.cards.quantities import byte_count
from constellation_docker.compose import labels
from constellation_docker.compose.balancer_config import (
    CERTIFICATE_PATH,
    CONFIG_PATH,
    DEFAULT_TIMEOUT_SECONDS,
    HEALTH_COMMAND,
    METRICS_PORT,
    PORT,
    SOCKET_FOLDER,
    USER_ID,
    BalancerOptions,
    StandaloneRoute,
    render_standalone_config,
)
from constellation_docker.compose.config_hash import config_hash, spec_hash
from constellation_docker.compose.errors import ClashingServices
from constellation_docker.compose.model import (
    Healthcheck,
    Limits,
    MountedConfig,
    MountedSecret,
    PublishedPort,
    Reservations,
    Service,
    Variable,
    doubled,
)
from constellation_docker.compose.schema import check_compose_document
from constellation_docker.compose.wanted import RolloutOptions, WantedService, resolve_rollout_options
from constellation_docker.compose.yaml_text import render_yaml
from constellation_docker.settings import EnvironmentSettings, RolloutSettings

BALANCER_SERVICE = "balancer"
_BALANCER_MEMORY = 512 * 1024 * 1024
_CERTIFICATE = MountedSecret(
    source="balancer-certificate",
    target=CERTIFICATE_PATH,
    variable="BALANCER_CERTIFICATE",
    meaning="the balancer's certificate, chain and key as PEM",
)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class CompiledService:
    """One service of an environment: what was wanted, and what its replicas are created from.

    Attributes:
        wanted: What was wanted.
        service: The Compose service.
        spec_hash: Our hash of it.
        options: Order and deadlines of its rollouts.
    """

    wanted: WantedService
    service: Service
    spec_hash: str
    options: RolloutOptions

    @property
    def generation(self) -> str:
        """The short name of the replicas that are created from this."""
        return self.spec_hash[:12]


@dataclass(frozen=True)
class ComposeFile:
    """An environment's Compose file, valid against the official schema.

    Attributes:
        environment: The environment's name.
        project: The Compose project.
        services: The models' services, by slug.
        balancer: The balancer's service.
        balancer_hash: Our hash of it.
        balancer_options: What the settings say about its configuration.
        document: The file as data.
        text: The file as YAML.
        kept: Services that the file has not got and that stay as they are, whatever they are, by slug: why.
    """

    environment: str
    project: str
    services: dict[str, CompiledService]
    balancer: Service
    balancer_hash: str
    document: dict[str, Any] = field(repr=False)
    text: str = field(repr=False)
    kept: Mapping[str, str] = field(default_factory=dict)
    balancer_options: BalancerOptions = field(default_factory=BalancerOptions)

    @property
    def network(self) -> str:
        """The engine's name of the network that all services are in."""
        return f"{self.project}_default"

    @cached_property
    def config_hashes(self) -> dict[str, str]:
        """Compose's hash of every service without secrets, by service name (`docker compose config --hash '*'`)."""
        services = [self.balancer, *(compiled.service for compiled in self.services.values())]
        return {service.name: config_hash(service) for service in services if not service.secrets}


def compile_environment(
    environment: str,
    settings: EnvironmentSettings,
    services: Sequence[WantedService],
    *,
    balancer_image: str,
    rollout: RolloutSettings | None = None,
    kept: Mapping[str, str] | None = None,
) -> ComposeFile:
    """Compile an environment's Compose file.

    The file stands alone: `docker compose up -d --wait` with Compose 2.23.1 or later gives the same endpoints, at
    `http://<bind>:<port>/<slug>/`. It holds no secret, only `${NAME}` where one belongs.

    Args:
        environment: The environment's name.
        settings: Its settings.
        services: What it is to run; those that are stopped or deleted are left out.
        balancer_image: Pinned reference of the HAProxy image.
        rollout: The settings for deadlines that cards do not give.
        kept: Services of which nobody can say how they are to run, by slug: why. A plan leaves them alone.

    Raises:
        ClashingServices: Two services have one slug.
        InvalidComposeFile: The result does not fit the official schema.
    """
    rollout = rollout or RolloutSettings()
    project = project_name(environment, settings)
    compiled: dict[str, CompiledService] = {}
    for wanted in sorted(services, key=lambda service: service.slug):
        if wanted.state != "running":
            continue
        if wanted.slug in compiled or wanted.slug == BALANCER_SERVICE:
            other = compiled[wanted.slug].wanted.model_name if wanted.slug in compiled else "the balancer"
            raise ClashingServices(
                f"{wanted.model_name} and {other} would both be the service {wanted.slug} in {environment}.",
                remedy="Rename one of the models, or remove one from this environment.",
                environment=environment,
                slug=wanted.slug,
            )
        compiled[wanted.slug] = _compile_service(environment, wanted, rollout)
    balancer = _balancer_service(environment, settings, balancer_image)
    left_out = {slug: why for slug, why in sorted((kept or {}).items()) if slug not in compiled}
    options = balancer_options(settings)
    document: dict[str, Any] = {
        "name": project,
        "services": {
            BALANCER_SERVICE: balancer.document(),
            **{slug: item.service.document() for slug, item in compiled.items()},
        },
        "networks": {"default": {}},
        "configs": {
            "haproxy": {
                "content": doubled(render_standalone_config(list(map(_route, compiled.values())), options))
            }
        },
    }
    if balancer.secret_files:
        document["secrets"] = {
            secret.source: {"environment": secret.variable} for secret in balancer.secret_files
        }
    check_compose_document(document)
    return ComposeFile(
        environment=environment,
        project=project,
        services=compiled,
        balancer=balancer,
        balancer_hash=balancer.labels[labels.SPEC_HASH],
        document=document,
        text=_header(environment, compiled, balancer, left_out) + render_yaml(document),
        kept=left_out,
        balancer_options=options,
    )


def balancer_options(settings: EnvironmentSettings) -> BalancerOptions:
    """What an environment's settings say about its balancer's configuration."""
    return BalancerOptions(
        tls_minimum=settings.tls.minimum if settings.tls else None,
        has_status_page=settings.metrics_port is not None,
        slow_start_seconds=settings.slow_start_seconds,
    )


def project_name(environment: str, settings: EnvironmentSettings) -> str:
    """The Compose project of an environment."""
    return settings.project or f"constellation-{environment}"


def balancer_url(settings: EnvironmentSettings, *, port: int | None = None) -> str:
    """Where people reach an environment's balancer, with a slash at its end.

    Args:
        settings: The environment's settings.
        port: The balancer's port, where the engine chose it.
    """
    scheme = "https" if settings.tls else "http"
    root = settings.public_url or f"{scheme}://{settings.bind}:{port or settings.port}"
    return f"{root.rstrip('/')}/"


def endpoint_url(settings: EnvironmentSettings, slug: str, *, port: int | None = None) -> str:
    """Where people reach a model: below its slug at the balancer; see `balancer_url`."""
    return f"{balancer_url(settings, port=port)}{slug}/"


def _compile_service(environment: str, wanted: WantedService, rollout: RolloutSettings) -> CompiledService:
    options = resolve_rollout_options(wanted.deploy, rollout)
    resources = wanted.resources
    reserved = resources.reservations
    draft = Service(
        name=wanted.slug,
        image=wanted.image,
        replicas=wanted.replicas,
        limits=Limits(cpus=float(resources.cpus), memory=byte_count(resources.memory), pids=resources.pids),
        reservations=Reservations(
            cpus=None if reserved.cpus is None else float(reserved.cpus),
            memory=None if reserved.memory is None else byte_count(reserved.memory),
            gpus=resources.gpus,
        ),
        environment={
            **wanted.env,
            **{key: _variable(wanted.slug, key, reference) for key, reference in wanted.secrets.items()},
        },
        healthcheck=wanted.healthcheck,
        labels={
            labels.ENVIRONMENT: environment,
            labels.ROLE: labels.MODEL_ROLE,
            labels.MODEL: wanted.model_name,
            labels.SLUG: wanted.slug,
            labels.VERSION: wanted.model_version,
            labels.MODEL_ID: wanted.model_id,
            labels.PORT: str(wanted.port),
            labels.READY_PATH: wanted.ready_path,
            labels.TIMEOUT: f"{wanted.request_timeout_seconds or DEFAULT_TIMEOUT_SECONDS:g}",
            labels.STOP_GRACE: f"{options.stop_grace_period:g}",
        },
        stop_grace_period=options.stop_grace_period,
        user=wanted.user,
        extension={"revision": wanted.revision, "rollout": options.model_dump()},
    )
    own_hash = spec_hash(draft)
    service = draft.model_copy(update={"labels": {**draft.labels, labels.SPEC_HASH: own_hash}})
    return CompiledService(wanted=wanted, service=service, spec_hash=own_hash, options=options)


def _balancer_service(environment: str, settings: EnvironmentSettings, image: str) -> Service:
    draft = Service(
        name=BALANCER_SERVICE,
        image=image,
        limits=Limits(memory=_BALANCER_MEMORY, pids=256),
        entrypoint=("haproxy", "-W", "-db", "-f", CONFIG_PATH),
        configs=(MountedConfig(source="haproxy", target=CONFIG_PATH),),
        healthcheck=Healthcheck(
            test=("CMD", "sh", "-c", HEALTH_COMMAND), interval=5, timeout=5, retries=3, start_period=10
        ),
        labels={labels.ENVIRONMENT: environment, labels.ROLE: labels.BALANCER_ROLE},
        ports=tuple(
            PublishedPort(target=target, published=published, host_ip=settings.bind)
            for target, published in ((PORT, settings.port), (METRICS_PORT, settings.metrics_port))
            if published is not None
        ),
        secret_files=(_CERTIFICATE,) if settings.tls else (),
        # Compose writes the configuration into the container, which a read-only root would forbid.
        read_only=False,
        # The owner is named because runc gives the folder another mode from the second start on.
        tmpfs=(f"{SOCKET_FOLDER}:mode=0700,uid={USER_ID},gid={USER_ID}",),
        user=f"{USER_ID}:{USER_ID}",
    )
    own_hash = spec_hash(draft)
    return draft.model_copy(update={"labels": {**draft.labels, labels.SPEC_HASH: own_hash}})


def _variable(slug: str, key: str, reference: str) -> Variable:
    kind, _, name = reference.partition(":")
    if kind == "env" and _VARIABLE.fullmatch(name):
        return Variable(name=name, reference=reference)
    own_name = re.sub(r"[^A-Z0-9]", "_", f"{slug}_{key}".upper())
    return Variable(name=own_name if _VARIABLE.fullmatch(own_name) else f"_{own_name}", reference=reference)


def _route(compiled: CompiledService) -> StandaloneRoute:
    wanted = compiled.wanted
    return StandaloneRoute(
        slug=wanted.slug,
        port=wanted.port,
        ready_path=wanted.ready_path,
        replicas=wanted.replicas,
        timeout_seconds=wanted.request_timeout_seconds or DEFAULT_TIMEOUT_SECONDS,
        max_body_bytes=wanted.max_body_bytes,
        rate_limit=wanted.rate_limit,
    )


def _header(
    environment: str, services: dict[str, CompiledService], balancer: Service, kept: Mapping[str, str]
) -> str:
    lines = [
        f"# The environment {environment}, compiled by constellation_docker. Do not edit: it is written anew.",
        "# It also works by itself: docker compose -f <this file> up -d --wait   (Compose 2.23.1 or later)",
    ]
    variables = {secret.variable: secret.meaning for secret in balancer.secret_files} | {
        variable.name: variable.reference
        for item in services.values()
        for variable in item.service.secrets.values()
    }
    lines += [f"# Needs the variable {name} ({variables[name]})." for name in sorted(variables)]
    lines += [
        f"# Left out, and left as it runs: {slug}: {' '.join(why.split())}." for slug, why in kept.items()
    ]
    return "\n".join(lines) + "\n"
