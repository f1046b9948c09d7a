"""All ways to launch, on a real webserver and daemon, engine, registry and browser; and how runs are found again."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from huggingface_hub import InferenceClient

from constellation_docker.cards import CardStore, ModelCard, ModelRow
from constellation_docker.gateway import LaunchRefused, Run
from constellation_docker_tests.fixtures.browser import Browser
from constellation_docker_tests.fixtures.deadline import wait_for
from constellation_docker_tests.fixtures.location import Location
from constellation_docker_tests.fixtures.registry import RegistryServer
from examples.make_version import commit_repository, write_version

PRAISE = "I loved this film, the acting was wonderful."


UNREADY_WITH_A_NETWORK = """\
import os, time

class EndpointHandler:
    def __init__(self, path=""):
        if "eth0" in os.listdir("/sys/class/net"):
            print("waiting for the licence server", flush=True)
            time.sleep(600)

    def __call__(self, data):
        return [{"label": "POSITIVE", "score": 1.0}]
"""


def register(location: Location, name: str, version: str, repository: Path, **card: object) -> ModelRow:
    """Add a row, as a team or a backend does."""
    with location.store() as store:
        return store.add(
            ModelCard.from_registration(
                {
                    "model_name": name,
                    "model_version": version,
                    "repo_url": repository.as_uri(),
                    "model_card": {
                        "description": "A classifier.",
                        "data_used": "Sentences.",
                        "dependencies": [],
                        **card,
                    },
                }
            )
        )


def run_of(location: Location, **tags: str) -> Run:
    """The newest run with these tags (`constellation/` is put before each), once there is one and it has ended well."""
    wanted = {f"constellation/{name}": value for name, value in tags.items()}
    found = wait_for(lambda: location.client.runs(wanted, limit=1), seconds=60, what=f"a run with {wanted}")
    return location.succeed(found[0].run_id)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example as a git repository."""
    directory = write_version(tmp_path_factory.mktemp("repository") / "sentiment", version=1)
    commit_repository(directory)
    return directory


@pytest.fixture(scope="module")
def published(location: Location, repository: Path) -> ModelRow:
    """A row that the sensor packaged."""
    row = register(location, "team/sentiment", "1.0.0", repository)
    run_of(location, model_id=row.model_id, action="package")
    with location.store() as store:
        return store.get(row.model_id)


@pytest.fixture(scope="module")
def deployed(location: Location, published: ModelRow) -> ModelRow:
    """A published version that GraphQL deployed to dev."""
    location.succeed(
        location.client.deploy("dev", "team/sentiment", tags={"constellation/requested_by": "maria"})
    )
    return published


def test_a_new_row_is_packaged_by_the_sensor_and_pinned_by_its_digest_in_the_registry(
    location: Location, published: ModelRow, registry: RegistryServer
) -> None:
    assert published.publication is not None
    digest = registry.digest_of("models/team-sentiment", "1.0.0")
    assert published.publication.image == f"{registry.address}/models/team-sentiment@{digest}"
    runs = location.client.runs({"constellation/model_id": published.model_id})
    assert [run.job for run in runs if run.tags.get("constellation/action") == "package"] == ["package_model"]
    assert runs[-1].tags["dagster/sensor_name"] == "model_cards"


def test_a_launch_over_graphql_with_a_partition_gives_an_endpoint_that_answers(
    location: Location, deployed: ModelRow
) -> None:
    client = InferenceClient(model=location.endpoint("dev", deployed.card.slug), token="none")
    assert client.text_classification(PRAISE)[0].label == "POSITIVE"
    (run,) = location.client.runs(
        {"constellation/environment": "dev", "constellation/model": "team/sentiment"}, statuses=["SUCCESS"]
    )
    assert run.tags["constellation/requested_by"] == "maria"
    with location.store() as store:
        row = store.deployment("dev", "team/sentiment")
    assert row.stable_revision == row.revision
    assert row.requested_by == "maria"


def test_a_click_in_the_browser_starts_a_run_that_is_found_by_the_same_tags(
    location: Location, published: ModelRow, browser: Browser
) -> None:
    tags = {"constellation/model_id": published.model_id}
    before = {run.run_id for run in location.client.runs(tags)}
    browser.open(f"{location.dagster.url}/assets/model_card?view=partitions")
    browser.click("//button[contains(., 'Materialize')]")
    browser.click("//*[contains(text(), 'Select a partition')]")
    browser.click(f"//*[contains(@class, 'opover')]//*[normalize-space(text())='{published.key}']")
    browser.click("//button[contains(., 'Launch 1 run')]")
    fresh = wait_for(
        lambda: [run for run in location.client.runs(tags) if run.run_id not in before],
        seconds=60,
        what="the run of the click",
    )
    assert len(fresh) == 1
    run = location.succeed(fresh[0].run_id)
    assert run.tags["constellation/version"] == "1.0.0"


def test_a_wish_in_the_deployments_table_is_fulfilled_by_the_sensor(
    location: Location, deployed: ModelRow
) -> None:
    with location.store() as store:
        row = store.want(
            "production", "team/sentiment", model_id=deployed.model_id, requested_by="the backend"
        )
    run = run_of(location, environment="production", service_revision=str(row.revision))
    assert run.tags["dagster/sensor_name"] == "wanted_deployments"
    assert httpx.get(location.endpoint("production", deployed.card.slug) + "ready").status_code == 200


@pytest.mark.slow
def test_the_sensor_heals_a_service_whose_container_somebody_removed(
    location: Location, deployed: ModelRow
) -> None:
    containers = location.engine.list_containers({"constellation.model": "team/sentiment"})
    project = location.settings.environment("dev").project
    (mine,) = [item for item in containers if item["Labels"]["com.docker.compose.project"] == project]
    location.engine.remove(mine["Id"], force=True)
    run = wait_for(
        lambda: [
            run
            for run in location.client.runs(
                {"constellation/environment": "dev", "dagster/sensor_name": "drifted_deployments"}
            )
            if run.status == "SUCCESS"
        ],
        seconds=150,
        what="the healing run",
    )
    assert run
    client = InferenceClient(model=location.endpoint("dev", deployed.card.slug), token="none")
    assert client.text_classification(PRAISE)[0].label == "POSITIVE"


def test_jobs_without_a_partition_pull_and_push_any_image(
    location: Location, published: ModelRow, registry: RegistryServer
) -> None:
    repository = f"{registry.address}/models/team-sentiment"
    run_id = location.client.launch(
        "pull_image",
        run_config={"ops": {"pull_image_op": {"config": {"repository": repository, "tag": "1.0.0"}}}},
    )
    location.succeed(run_id)
    target = f"{registry.address}/elsewhere/copy"
    config = {"image_name": repository, "tag": "1.0.0", "repository": target}
    location.succeed(
        location.client.launch("push_image", run_config={"ops": {"push_image_op": {"config": config}}})
    )
    assert registry.digest_of("elsewhere/copy", "1.0.0") == registry.digest_of(
        "models/team-sentiment", "1.0.0"
    )


def test_a_launch_without_its_partition_ends_with_one_sentence_that_says_so(location: Location) -> None:
    run = location.wait_for_run(location.client.launch("package_model"))
    assert run.status == "FAILURE"
    assert "launched without a partition" in location.failure_of(run.run_id)


def test_a_launch_for_a_model_that_nobody_registered_says_so(location: Location) -> None:
    run = location.wait_for_run(location.client.package("nobody/nothing@1"))
    assert "There is no model version nobody/nothing@1 in the card store." in location.failure_of(run.run_id)


def test_wrong_configuration_is_refused_at_the_launch(location: Location) -> None:
    with pytest.raises(LaunchRefused, match="versoin"):
        location.client.deploy("dev", "team/sentiment", config={"versoin": "1.0.0"})


def test_a_second_version_takes_over_and_the_former_comes_back_on_request(
    location: Location, deployed: ModelRow, repository: Path, tmp_path: Path
) -> None:
    directory = write_version(tmp_path / "second", version=2)
    commit_repository(directory)
    second = register(location, "team/sentiment", "2.0.0", directory)
    run_of(location, model_id=second.model_id, action="package")
    info = location.endpoint("dev", second.card.slug) + "info"
    location.succeed(location.client.deploy("dev", "team/sentiment", config={"version": "2.0.0"}))
    assert "2.0.0" in httpx.get(info).text
    location.succeed(location.client.deploy("dev", "team/sentiment", config={"to": "previous"}))
    assert "1.0.0" in httpx.get(info).text


@pytest.mark.slow
def test_a_version_that_never_gets_ready_fails_with_its_log_while_the_former_goes_on_serving(
    location: Location, deployed: ModelRow, tmp_path: Path
) -> None:
    """It is verified without a network, as every image, and waits for one that it finds only when deployed."""
    directory = write_version(tmp_path / "never", version=3)
    (directory / "handler.py").write_text(UNREADY_WITH_A_NETWORK)
    (directory / "README.md").write_text("---\npipeline_tag: text-classification\n---\n")
    commit_repository(directory)
    deadline = {"deploy": {"healthy_deadline": "8s"}}
    never = register(location, "team/sentiment", "3.0.0", directory, constellation=deadline)
    run_of(location, model_id=never.model_id, action="package")
    info = location.endpoint("dev", deployed.card.slug) + "info"
    with location.store() as store:
        before = store.deployment("dev", "team/sentiment")
    assert before.stable_revision == before.revision

    run = location.wait_for_run(location.client.deploy("dev", "team/sentiment", config={"version": "3.0.0"}))
    assert run.status == "FAILURE"
    assert "dev|team/sentiment, deploying" in location.failure_of(run.run_id)
    (failure,) = [
        entry.raw for entry in location.log(run.run_id) if entry.kind == "ExecutionStepFailureEvent"
    ]
    facts = {entry["label"]: entry for entry in failure["failureMetadata"]["metadataEntries"]}
    assert "waiting for the licence server" in facts["log tail"]["mdStr"]
    assert before.row.card.model_version in httpx.get(info).text
    with location.store() as store:
        after = store.deployment("dev", "team/sentiment")
    assert (after.model_id, after.stable_revision) == (before.model_id, after.revision)
    assert after.requested_by == f"automatic rollback from revision {before.revision + 1}"


def test_the_pages_answer_the_next_question(location: Location, deployed: ModelRow) -> None:
    """What each asset's page shows, read back over GraphQL as the page does."""
    query = """query($asset: AssetKeyInput!, $partition: [String!]) { assetNodeOrError(assetKey: $asset) {
      ... on AssetNode { assetMaterializations(partitions: $partition, limit: 1) { metadataEntries { __typename label } } } } }"""
    expected = {
        "model_card": {"card", "repository"},
        "model_source": {"commit", "size (MB)", "largest files"},
        "dependency_lock": {"lock", "packages", "runtime"},
        "model_image": {"dockerfile", "size (MB)", "build (s)", "layers", "steps"},
        "published_image": {"digest", "reference"},
        "deployment": {"endpoint", "plan", "revision", "replicas"},
    }
    for asset, labels in expected.items():
        partition = "dev|team/sentiment" if asset == "deployment" else deployed.key
        answer = httpx.post(
            f"{location.dagster.url}/graphql",
            json={"query": query, "variables": {"asset": {"path": [asset]}, "partition": [partition]}},
        ).json()
        entries = answer["data"]["assetNodeOrError"]["assetMaterializations"][0]["metadataEntries"]
        assert labels <= {entry["label"] for entry in entries}, f"{asset}: {json.dumps(entries)}"


def test_no_secret_is_in_anything_that_dagster_keeps(
    location: Location, deployed: ModelRow, registry: RegistryServer
) -> None:
    for path in location.dagster.home.rglob("*"):
        if path.is_file() and path.suffix not in {".yaml"}:
            assert registry.password.encode() not in path.read_bytes(), path


@pytest.mark.slow
def test_deleting_a_model_removes_what_it_had_and_nothing_else(
    location: Location, deployed: ModelRow, repository: Path, tmp_path: Path
) -> None:
    other = register(location, "team/other", "1.0.0", repository)
    run_of(location, model_id=other.model_id, action="package")
    location.succeed(location.client.deploy("dev", "team/other"))
    run_id = location.client.launch(
        "delete_model", run_config={"ops": {"delete_model_op": {"config": {"model": "team/other"}}}}
    )
    location.succeed(run_id)
    assert httpx.get(location.endpoint("dev", "team-other") + "ready").status_code == 404
    assert not location.engine.list_containers({"constellation.model": "team/other"})
    assert httpx.get(location.endpoint("dev", deployed.card.slug) + "ready").status_code == 200
    with location.store() as store:
        assert store.get(other.model_id).deleted_at is not None
        assert _states(store, "team/other") == {"deleted"}


def _states(store: CardStore, model: str) -> set[str]:
    return {getattr(row, "state", "") for row in store.deployments_of(model)}
