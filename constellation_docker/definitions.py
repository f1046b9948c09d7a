"""The code location: every asset, check, job, sensor and schedule, on one screen.

model_card ▶ model_source ▶ dependency_lock ▶ model_image ▶ published_image      name@version
                                               compose_file ◀─┤                  environment
                                               deployment   ◀─┘                  environment|name
leftovers                                                                        what is cleaned up
"""

from __future__ import annotations

import dagster as dg

from constellation_docker.defs import (
    checks,
    drift,
    image_jobs,
    jobs,
    model_assets,
    reaping,
    schedules,
    sensors,
)
from constellation_docker.defs.deletion import delete_model
from constellation_docker.defs.deployment_assets import deployment_assets
from constellation_docker.defs.records import RecordIOManager
from constellation_docker.defs.resources import CardStoreResource, EngineResource, SettingsResource
from constellation_docker.settings import load_settings

defs = dg.Definitions(
    assets=[
        model_assets.model_card,
        model_assets.model_source,
        model_assets.dependency_lock,
        model_assets.model_image,
        model_assets.published_image,
        *deployment_assets(environments=list(load_settings().environments)),
        reaping.leftovers,
    ],
    asset_checks=[
        checks.inspect_source,
        checks.compare_export,
        checks.verify_built_image,
        drift.runs_as_wanted,
    ],
    jobs=[
        jobs.package_model,
        jobs.deploy_model,
        delete_model,
        image_jobs.pull_image,
        image_jobs.push_image,
        reaping.reap_job,
    ],
    sensors=[sensors.model_cards, sensors.wanted_deployments, drift.drifted_deployments, sensors.failed_runs],
    schedules=[schedules.repackage_failed, drift.heal_drift, reaping.reap_schedule],
    resources={
        "settings": SettingsResource(),
        "cards": CardStoreResource(),
        "engines": EngineResource(),
        "records": RecordIOManager(),
    },
    executor=dg.in_process_executor,
)
