"""The check over all services speaks of what was deployed last: Dagster shows an older verdict as none."""

from __future__ import annotations

import dagster as dg

from constellation_docker.defs import drift_history
from constellation_docker_tests.defs.test_drift import Watch
from constellation_docker_tests.fixtures.deployer import Deployer

CHECK = dg.AssetCheckKey(drift_history.ASSET, drift_history.CHECK)


def judgements(deployer: Deployer) -> list[float]:
    """When the check said something, newest first."""
    storage = deployer.instance.event_log_storage
    records = storage.get_asset_check_execution_history(CHECK, limit=10)
    return [record.event.timestamp for record in records if record.event]


def test_the_check_says_something_after_each_deployment_and_only_then(deployer: Deployer) -> None:
    watch = Watch(deployer)
    deployer.publish("acme/tiny")
    for count in (1, 2):
        assert deployer.deploy("acme/tiny").success
        watch.tick()
        watch.tick()
        said = judgements(deployer)
        deployed = deployer.instance.get_latest_materialization_event(drift_history.ASSET)
        assert deployed is not None
        assert len(said) == count
        assert said[0] > deployed.timestamp
