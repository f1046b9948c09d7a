"""The code location as it is loaded: without a warning, and with pages that stay small at 10,000 model versions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from dagster import AssetMaterialization, DagsterInstance

from constellation_docker.cards import ModelCard
from constellation_docker.engine import Engine
from constellation_docker.gateway.graphql import GraphQL
from constellation_docker_tests.fixtures.browser import Browser
from constellation_docker_tests.fixtures.deadline import wait_for
from constellation_docker_tests.fixtures.location import Location, running_location, variables_of

VERSIONS = 10_000
MATERIALIZED = 200
CHUNK = 1_000
MOST_PAGE_BYTES = 3_000_000
MOST_LAUNCH_BYTES = 10_000

# Python's own warnings, and those of Dagster's processes; those of a run (`- dagster - WARNING`) are its own matter.
COMPLAINT = re.compile(r"\w*Warning: |- dagster[\w.-]+ - (WARNING|ERROR|CRITICAL)")


def test_webserver_and_daemon_load_the_location_without_a_warning(location: Location) -> None:
    for name in ("instance-migrate", "webserver", "daemon"):
        text = (location.dagster.home / f"{name}.log").read_text(encoding="utf-8", errors="replace")
        assert not [line for line in text.splitlines() if COMPLAINT.search(line)], name


@pytest.fixture(scope="module")
def large(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Location]:
    """A location of its own, in whose history 10,000 versions are partitions; some of them were packaged."""
    home = tmp_path_factory.mktemp("large")
    for place in running_location(home, variables_of(home), engine):
        keys = [f"team-{number % 100}/model-{number // 100}@1.{number}" for number in range(VERSIONS)]
        with DagsterInstance.from_config(str(place.dagster.home)) as instance:
            for first in range(0, VERSIONS, CHUNK):
                instance.add_dynamic_partitions("model_versions", keys[first : first + CHUNK])
            for key in keys[:MATERIALIZED]:
                instance.report_runless_asset_event(AssetMaterialization("model_image", partition=key))
        yield place


def graphql_bytes(browser: Browser) -> int:
    """The size of every GraphQL answer that the present page has asked for, unpacked."""
    sizes: list[int] = browser.driver.execute_script(
        "return performance.getEntriesByType('resource')"
        ".filter(entry => entry.name.includes('/graphql')).map(entry => entry.decodedBodySize)"
    )
    return sum(sizes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "sign"),
    [
        ("/assets/model_image?view=partitions", f"{VERSIONS:,}"),
        ("/assets/deployment?view=overview", "deployment"),
        ("/assets/published_image?view=lineage", "published_image"),
    ],
)
def test_a_page_of_ten_thousand_versions_asks_for_little(
    large: Location, browser: Browser, path: str, sign: str
) -> None:
    browser.open(large.dagster.url + path)
    wait_for(lambda: sign in browser.text("//body"), seconds=60, what=f"{sign} on {path}")
    assert 0 < graphql_bytes(browser) < MOST_PAGE_BYTES


@pytest.mark.slow
def test_a_launch_beside_ten_thousand_versions_reads_as_little_as_beside_one(
    large: Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    post = GraphQL._post

    def count(client: GraphQL, body: Mapping[str, Any]) -> bytes:
        answer = post(client, body)
        read.append(len(answer))
        return answer

    monkeypatch.setattr(GraphQL, "_post", count)
    with large.store() as store:
        row = store.add(
            ModelCard.from_registration(
                {
                    "model_name": "one/more",
                    "model_version": "1",
                    "repo_url": (tmp_path / "nowhere").as_uri(),
                    "model_card": {"description": "", "data_used": "", "dependencies": []},
                }
            )
        )
    run_id = large.client.package(row.key)
    assert 0 < sum(read) < MOST_LAUNCH_BYTES
    assert large.wait_for_run(run_id).status == "FAILURE"  # there is no such directory
