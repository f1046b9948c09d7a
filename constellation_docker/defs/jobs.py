"""The jobs that package and deploy: selections of assets, so that a launch and a click do the same."""

from __future__ import annotations

import dagster as dg

from constellation_docker.defs import tags

package_model = dg.define_asset_job(
    "package_model",
    selection=dg.AssetSelection.assets(
        "model_card", "model_source", "dependency_lock", "model_image", "published_image"
    ),
    description="Package one model version: fetch, lock, build, verify, publish. Partition: name@version.",
    tags={tags.ACTION: "package"},
)

deploy_model = dg.define_asset_job(
    "deploy_model",
    # The check of drift is for looks from outside.
    selection=dg.AssetSelection.assets("deployment").without_checks(),
    description="Bring one service to its wanted state, with no request dropped. Partition: environment|name.",
    tags={tags.ACTION: "deploy"},
)
