"""Clean-up as its job does it: what stays, what goes, and what the board shows."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from constellation_docker.compose import labels
from constellation_docker.definitions import defs
from constellation_docker.defs import reaping, tags
from constellation_docker.defs.reaping import find_live_runs, retained_images
from constellation_docker.engine import Engine
from constellation_docker.rollout.reaper import Holdings, take_stock
from constellation_docker_tests.fixtures.deployer import Deployer


@pytest.fixture
def reaper(deployer: Deployer, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, object]]:
    """Run the job, which sees only this test's objects: others work on the same engine. Gives what the board shows."""
    monkeypatch.setenv("CONSTELLATION_BUILD__IMAGE_PREFIX", deployer.projects["dev"])
    monkeypatch.setenv("CONSTELLATION_REAPING__MIN_AGE_SECONDS", "0")

    def take_own_stock(engine: Engine) -> Holdings:
        stock = take_stock(engine)
        made = set(deployer.made)
        projects = set(deployer.projects.values())
        return Holdings(
            [row for row in stock.containers if row["Labels"].get(labels.COMPOSE_PROJECT) in projects],
            [image for image in stock.images if image.id in made],
        )

    monkeypatch.setattr(reaping, "take_stock", take_own_stock)

    def run(**config: object) -> dict[str, object]:
        result = defs.resolve_job_def("reap").execute_in_process(
            instance=deployer.instance, run_config={"ops": {"leftovers": {"config": config}}}
        )
        (shown,) = result.asset_materializations_for_node("leftovers")
        table = shown.metadata["leftovers"]
        records = table.records if isinstance(table, dg.TableMetadataValue) else []
        names = [str(record.data["name"]) for record in records]
        freed = shown.metadata["freed (MB)"].value
        return {"names": sorted(names), "freed": freed}

    return run


def test_images_of_the_last_releases_stay_and_older_ones_go(
    deployer: Deployer, reaper: Callable[..., dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONSTELLATION_ROLLOUT__RETAINED_RELEASES", "2")
    rows = [deployer.publish("acme/tiny", version) for version in ("1", "2", "3", "4")]
    for row in rows[:3]:
        deployer.store.want("dev", "acme/tiny", model_id=row.model_id)
    prefix = deployer.projects["dev"]
    # Nothing but the engine has an image that is in no registry.
    assert reaper()["names"] == []
    monkeypatch.setattr(reaping, "retained_images", _as_if_in_a_registry)
    assert reaper(dry_run=True) == {"names": [f"{prefix}/acme-tiny:1"], "freed": 0}
    assert deployer.engine.image(deployer.tag_of(rows[0])) is not None
    assert reaper()["names"] == [f"{prefix}/acme-tiny:1"]
    assert [deployer.engine.image(deployer.tag_of(row)) is not None for row in rows] == [
        False,  # three releases ago
        True,  # before this one
        True,  # wanted
        True,  # the newest, which somebody may deploy next
    ]


def _as_if_in_a_registry(*arguments: object, is_building: bool) -> set[str]:
    return retained_images(*arguments, is_building=False)  # type: ignore[arg-type]


def test_what_a_live_run_works_on_stays(
    deployer: Deployer, reaper: Callable[..., dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reaping, "retained_images", lambda *_, **__: set())
    row = deployer.publish("acme/tiny")
    run = dg.DagsterRun(
        job_name="deploy_model",
        run_id="0b9b4a64-0000-4000-8000-000000000002",
        status=dg.DagsterRunStatus.STARTED,
        tags={tags.PARTITION: "dev|acme/tiny"},
    )
    deployer.instance.add_run(run)
    live = find_live_runs(deployer.instance, without="")
    assert (live.models, live.is_packaging) == (frozenset({"acme/tiny"}), False)
    names = [deployer.tag_of(row)]
    assert reaper(dry_run=True)["names"] == []
    deployer.instance.report_run_failed(run)
    assert reaper(dry_run=True)["names"] == names


def test_a_service_that_the_store_never_heard_of_is_drained_and_removed(
    deployer: Deployer, reaper: Callable[..., dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    deployer.publish("acme/lost")
    assert deployer.deploy("acme/lost").success
    monkeypatch.setattr(type(deployer.store), "wanted", lambda *_, **__: [])
    assert reaper()["names"] == [f"{deployer.projects['dev']}-acme-lost-1"]
    assert deployer.running("acme/lost") == []


def test_sources_and_records_that_no_model_needs_leave_home(
    deployer: Deployer,
    reaper: Callable[..., dict[str, object]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CONSTELLATION_REAPING__CACHE_SECONDS", "60")
    deployer.register("acme/waiting")
    home = tmp_path / "home"
    for digest in ("a" * 64, "b" * 64):
        (home / "sources" / digest / "tree").mkdir(parents=True)
        (home / "sources" / digest / "source.json").write_text("{}")
        (home / "sources" / digest / "tree" / "weights").write_bytes(b"x" * 1000)
    records = home / "records" / "model_source"
    records.mkdir(parents=True)
    (records / "acme%2Fwaiting%401.json").write_text(f'{{"digest": "sha256:{"a" * 64}"}}')
    (records / "acme%2Fgone%401.json").write_text(f'{{"digest": "sha256:{"b" * 64}"}}')
    assert reaper()["names"] == [], "they are young"
    for path in [*(home / "sources").iterdir(), *records.iterdir()]:
        os.utime(path, (time.time() - 3600,) * 2)
    done = reaper()
    assert done["names"] == ["record acme/gone@1", f"source {'b' * 64}"]
    assert 0.001 <= float(str(done["freed"])) < 0.002
    assert sorted(path.name for path in (home / "sources").iterdir()) == ["a" * 64]
    assert [path.name for path in records.iterdir()] == ["acme%2Fwaiting%401.json"]
