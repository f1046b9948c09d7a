"""What is imported before the first fork of a run."""

from __future__ import annotations

# Everything that a run imports, but for what reads the settings as it is imported. A test holds it against that.
PRELOADED = (
    "dagster._cli.api",
    "dagster._core.definitions.repository_definition.repository_data_builder",
    "dagster._core.execution.plan.active",
    "dagster._core.executor.in_process",
    "dagster._core.storage.local_compute_log_manager",
    "dagster._core.utility_ops",
    "dagster._core.workspace.autodiscovery",
    "constellation_docker.cards.rendering",
    "constellation_docker.defs.checks",
    "constellation_docker.defs.deletion",
    "constellation_docker.defs.deployment_assets",
    "constellation_docker.defs.image_jobs",
    "constellation_docker.defs.jobs",
    "constellation_docker.defs.launching.worker",
    "constellation_docker.defs.model_assets",
    "constellation_docker.defs.records",
    "constellation_docker.defs.resources",
    "constellation_docker.defs.sensors",
    "huggingface_hub.utils",
)
