"""The labels on what we create: ours, and Compose's own.

What runs is found out from these alone, so a run that was killed leaves nothing that the next one cannot read.
"""

from __future__ import annotations

from constellation_docker.compose.config_hash import network_hash

# Ours, in the Compose file: what a replica is.
ENVIRONMENT = "constellation.environment"
MODEL = "constellation.model"
SLUG = "constellation.slug"
VERSION = "constellation.version"
MODEL_ID = "constellation.model-id"
PORT = "constellation.port"
READY_PATH = "constellation.ready-path"
TIMEOUT = "constellation.timeout-seconds"
STOP_GRACE = "constellation.stop-grace-seconds"
ROLE = "constellation.role"
SPEC_HASH = "constellation.spec-hash"

# Ours, on containers only: which release made it. Compose's hash does not cover these.
REVISION = "constellation.revision"
GENERATION = "constellation.generation"
RUN_ID = "constellation.run-id"

# Compose's (docker/compose, `pkg/api/labels.go`).
COMPOSE_PROJECT = "com.docker.compose.project"
COMPOSE_SERVICE = "com.docker.compose.service"
COMPOSE_NUMBER = "com.docker.compose.container-number"
COMPOSE_ONEOFF = "com.docker.compose.oneoff"
COMPOSE_CONFIG_HASH = "com.docker.compose.config-hash"
COMPOSE_VERSION = "com.docker.compose.version"
COMPOSE_IMAGE = "com.docker.compose.image"
COMPOSE_DEPENDS_ON = "com.docker.compose.depends_on"
COMPOSE_CONFIG_FILES = "com.docker.compose.project.config_files"
COMPOSE_WORKING_DIR = "com.docker.compose.project.working_dir"
COMPOSE_NETWORK = "com.docker.compose.network"

# The version whose conventions we follow; Compose only shows it.
FOLLOWED_VERSION = "2.40.3"
MODEL_ROLE = "model"
BALANCER_ROLE = "balancer"
LOCK_ROLE = "lock"


def container_labels(
    *, project: str, service: str, number: int, config_hash: str, image_id: str, compose_path: str
) -> dict[str, str]:
    """Compose's labels for one container. With them `docker compose ps, logs, down` see it as its own.

    Args:
        project: The Compose project.
        service: The service's name.
        number: The replica's number, from 1.
        config_hash: Compose's hash of the service.
        image_id: Id of the image that it runs.
        compose_path: Where the Compose file lies (`docker compose ls` shows it).
    """
    return {
        COMPOSE_PROJECT: project,
        COMPOSE_SERVICE: service,
        COMPOSE_NUMBER: str(number),
        COMPOSE_ONEOFF: "False",
        COMPOSE_CONFIG_HASH: config_hash,
        COMPOSE_VERSION: FOLLOWED_VERSION,
        COMPOSE_IMAGE: image_id,
        COMPOSE_DEPENDS_ON: "",
        COMPOSE_CONFIG_FILES: compose_path,
        COMPOSE_WORKING_DIR: compose_path.rpartition("/")[0] or "/",
    }


def network_labels(*, project: str, key: str, environment: str) -> dict[str, str]:
    """Compose's labels for a network, and ours."""
    return {
        COMPOSE_PROJECT: project,
        COMPOSE_NETWORK: key,
        COMPOSE_VERSION: FOLLOWED_VERSION,
        COMPOSE_CONFIG_HASH: network_hash(f"{project}_{key}"),
        ENVIRONMENT: environment,
    }
