"""An environment's Docker Compose file: typed, valid against the official schema, with both hashes.

It touches nothing: data in, data and text out. `rollout` executes what it describes.
"""

from constellation_docker.compose.config_hash import config_hash, network_hash, spec_hash
from constellation_docker.compose.environment import (
    BALANCER_SERVICE,
    CompiledService,
    ComposeFile,
    balancer_url,
    compile_environment,
    endpoint_url,
    project_name,
)
from constellation_docker.compose.errors import ClashingServices, InvalidComposeFile, NotPublished
from constellation_docker.compose.model import Healthcheck, Limits, Reservations, Service, Variable
from constellation_docker.compose.schema import check_compose_document
from constellation_docker.compose.wanted import (
    RolloutOptions,
    WantedService,
    resolve_rollout_options,
    wanted_service,
)

__all__ = [
    "BALANCER_SERVICE",
    "ClashingServices",
    "CompiledService",
    "ComposeFile",
    "Healthcheck",
    "InvalidComposeFile",
    "Limits",
    "NotPublished",
    "Reservations",
    "RolloutOptions",
    "Service",
    "Variable",
    "WantedService",
    "balancer_url",
    "check_compose_document",
    "compile_environment",
    "config_hash",
    "endpoint_url",
    "network_hash",
    "project_name",
    "resolve_rollout_options",
    "spec_hash",
    "wanted_service",
]
