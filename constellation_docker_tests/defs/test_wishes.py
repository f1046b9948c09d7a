"""Wishes for services that stop, start and go, carried out by the real job on a real engine."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy import create_engine, text

from constellation_docker.defs import tags
from constellation_docker_tests.fixtures.deployer import Deployer, keys

CELL = "dev|acme/tiny"


@pytest.mark.parametrize("state", [pytest.param("stopped", marks=pytest.mark.slow), "deleted"])
def test_a_service_that_is_wanted_stopped_or_deleted_is_taken_away_and_comes_back_only_by_a_version(
    deployer: Deployer, state: str
) -> None:
    row = deployer.publish("acme/tiny")
    assert deployer.deploy("acme/tiny").success
    assert deployer.running("acme/tiny") == ["1"]
    newer = deployer.publish("acme/tiny", "2")

    wish = deployer.store.want("dev", "acme/tiny", model_id=row.model_id, state=state)  # type: ignore[arg-type]
    assert keys(deployer.wishes()) == [CELL]
    result = deployer.deploy("acme/tiny")
    assert result.success
    assert deployer.running("acme/tiny") == []
    assert deployer.engine.image(row.publication.image if row.publication else "") is not None
    materialization = result.asset_materializations_for_node("deployment")[-1]
    assert materialization.metadata["endpoint"].value == f"(none: it is wanted {state})"

    stable = deployer.store.deployment("dev", "acme/tiny")
    assert (stable.stable_revision, stable.revision) == (wish.revision, wish.revision)
    assert deployer.wishes() == deployer.drifts() == []
    assert deployer.deploy("acme/tiny").success
    assert deployer.running("acme/tiny") == [], "a click carries out the wish as it stands"
    assert deployer.store.deployment("dev", "acme/tiny").model_id == row.model_id

    assert deployer.deploy("acme/tiny", version="2").success
    assert deployer.running("acme/tiny") == ["2"]
    started = deployer.store.deployment("dev", "acme/tiny")
    assert (started.state, started.model_id) == ("running", newer.model_id)


def test_what_still_runs_of_a_stopped_service_is_drift(deployer: Deployer) -> None:
    row = deployer.publish("acme/tiny")
    assert deployer.deploy("acme/tiny").success
    wish = deployer.store.want("dev", "acme/tiny", model_id=row.model_id, state="stopped")
    deployer.store.mark_stable("dev", "acme/tiny", wish.revision)
    assert keys(deployer.drifts()) == [CELL]


def test_a_service_that_a_deletion_is_at_work_on_gets_no_run(deployer: Deployer) -> None:
    row = deployer.publish("acme/tiny")
    deployer.store.want("dev", "acme/tiny", model_id=row.model_id, state="deleted")
    run = dg.DagsterRun(
        job_name="delete_model",
        run_id="0b9b4a64-0000-4000-8000-000000000001",
        status=dg.DagsterRunStatus.STARTED,
        tags={tags.MODEL: "acme/tiny"},
    )
    deployer.instance.add_run(run)
    assert deployer.wishes() == []
    deployer.instance.report_run_failed(run)
    assert keys(deployer.wishes()) == [CELL]


@pytest.mark.slow
def test_a_look_for_drift_makes_no_image_and_finds_a_missing_balancer(
    deployer: Deployer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("acme/one", "acme/two"):
        deployer.publish(name)
        assert deployer.deploy(name).success
    # Nothing on the engine is of this name, so a deployment would have to make it.
    monkeypatch.setenv("CONSTELLATION_BASE_IMAGE__HAPROXY", "registry.invalid/haproxy:9")
    monkeypatch.setenv("CONSTELLATION_BASE_IMAGE__ORIGIN", "registry")
    assert deployer.drifts() == []
    deployer.engine.remove(f"{deployer.projects['dev']}-acme-two-1", force=True)
    assert keys(deployer.drifts()) == ["dev|acme/two"]

    monkeypatch.delenv("CONSTELLATION_BASE_IMAGE__HAPROXY")
    monkeypatch.delenv("CONSTELLATION_BASE_IMAGE__ORIGIN")
    assert deployer.deploy("acme/two").success
    deployer.engine.remove(f"{deployer.projects['dev']}-balancer-1", force=True)
    assert keys(deployer.drifts()) == ["dev|acme/one"]
    assert deployer.deploy("acme/one").success
    assert deployer.drifts() == []


@pytest.mark.slow
def test_the_preview_keeps_what_waits_for_its_version_and_what_has_a_row_that_cannot_be_used(
    deployer: Deployer, tmp_path: Path
) -> None:
    for name in ("acme/waiting", "acme/spoilt", "acme/unwanted"):
        deployer.publish(name)
        assert deployer.deploy(name).success
    second = deployer.register("acme/waiting", "2")
    deployer.store.want("dev", "acme/waiting", model_id=second.model_id)
    unwanted = deployer.store.deployment("dev", "acme/unwanted")
    deployer.store.want("dev", "acme/unwanted", model_id=unwanted.model_id, state="stopped")
    first = deployer.register("acme/first")
    deployer.store.want("dev", "acme/first", model_id=first.model_id)
    with create_engine(deployer.store.address).begin() as connection:
        connection.execute(
            text("UPDATE deployments SET resources = '{\"memroy\": 1}' WHERE model_name = 'acme/spoilt'")
        )
    assert deployer.preview() == {
        "acme-waiting": "keep: it runs as wanted",
        "acme-spoilt": "keep: its row cannot be used",
        "acme-unwanted": "remove: it is not wanted",
    }
    compiled = (tmp_path / "home/environments/dev/compose.yaml").read_text()
    assert "# Left out, and left as it runs: acme-spoilt: its row cannot be used." in compiled
    assert "acme-first: acme/first@1 is wanted, and not published yet." in compiled
    assert deployer.deploy("acme/waiting", version="1").success
    assert deployer.running("acme/spoilt") == ["1"]
