"""Bad input and bad days, as a person meets them: one sentence that names model, step and remedy; nothing half-made.

The domain rooms' own tests play every case in detail; here the sentence is followed to where a person reads it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest

from constellation_docker.cards import CardStore, ModelCard, ModelRow
from constellation_docker.definitions import defs
from constellation_docker.defs import tags
from constellation_docker.engine import Engine
from constellation_docker_tests.fixtures.engine import IMAGE_PREFIX, remove_names
from constellation_docker_tests.fixtures.registry import RegistryServer
from examples.make_version import commit_repository

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@dataclass
class Packager:
    """Packages rows in this process, on the real engine."""

    store: CardStore
    instance: dg.DagsterInstance
    directory: Path

    def register(
        self, repository: Path | str, *, version: str = "1", branch: str | None = None, **card: object
    ) -> ModelRow:
        """Add a row."""
        return self.store.add(
            ModelCard.from_registration(
                {
                    "model_name": "bad-day",
                    "model_version": version,
                    "repo_url": repository.as_uri() if isinstance(repository, Path) else repository,
                    "branch": branch,
                    "model_card": {"description": "", "data_used": "", "dependencies": [], **card},
                }
            )
        )

    def package(self, row: ModelRow) -> str:
        """Run the job; the failed step's sentence, or nothing where it succeeded."""
        self.instance.add_dynamic_partitions("model_versions", [row.key])
        result = defs.resolve_job_def("package_model").execute_in_process(
            instance=self.instance, partition_key=row.key, raise_on_error=False
        )
        sentences = [
            event.step_failure_data.user_failure_data.description
            if event.step_failure_data.user_failure_data
            else f"UNEXPLAINED {event.step_failure_data.error}"
            for event in result.all_events
            if event.is_step_failure
        ]
        assert result.success == (not sentences)
        return " ".join(str(sentence) for sentence in sentences)

    def materialize(self, row: ModelRow, asset: str) -> None:
        """Do what a click on one asset alone does."""
        job = defs.get_implicit_global_asset_job_def().get_subset(asset_selection={dg.AssetKey(asset)})
        job.execute_in_process(instance=self.instance, partition_key=row.key)

    def copy(self, example: str = "sentiment") -> Path:
        """A copy of an example that may be spoilt."""
        target = self.directory / f"repository-{len(list(self.directory.iterdir()))}"
        shutil.copytree(EXAMPLES / example, target)
        return target


@pytest.fixture
def packager(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Packager]:
    repositories = tmp_path / "repositories"
    repositories.mkdir()
    monkeypatch.setenv("CONSTELLATION_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CONSTELLATION_SOURCE__ALLOWED_SCHEMES", '["https", "file"]')
    monkeypatch.setenv("CONSTELLATION_VERIFICATION__READY_DEADLINE_SECONDS", "5")
    monkeypatch.setenv("CONSTELLATION_BUILD__IMAGE_PREFIX", IMAGE_PREFIX)
    with (
        CardStore.open(f"sqlite:///{tmp_path}/home/cards.db") as store,
        dg.DagsterInstance.ephemeral() as instance,
    ):
        yield Packager(store, instance, repositories)
    remove_names(engine, f"{IMAGE_PREFIX}/bad-day:")


def spoil_python(repository: Path) -> None:
    (repository / "handler.py").write_text("class EndpointHandler(:\n")


def spoil_handler(repository: Path) -> None:
    (repository / "handler.py").write_text("class Something:\n    pass\n")


def take_the_weights(repository: Path) -> None:
    (repository / "model.safetensors").unlink()
    shutil.rmtree(repository / "onnx")


def ask_for_what_does_not_exist(repository: Path) -> None:
    (repository / "requirements.txt").write_text("constellation-no-such-package-at-all==1\n")


def ask_for_what_conflicts(repository: Path) -> None:
    (repository / "requirements.txt").write_text("idna==3.6\nidna==3.7\n")


def raise_at_start(repository: Path) -> None:
    (repository / "handler.py").write_text(
        "class EndpointHandler:\n"
        "    def __init__(self, path=''):\n        raise RuntimeError('the moon is full')\n"
        "    def __call__(self, data):\n        return []\n"
    )


def never_get_ready(repository: Path) -> None:
    (repository / "handler.py").write_text(
        "import time\nclass EndpointHandler:\n"
        "    def __init__(self, path=''):\n        time.sleep(600)\n"
        "    def __call__(self, data):\n        return []\n"
    )


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (spoil_python, ["handler.py:1"]),
        (spoil_handler, ["EndpointHandler"]),
        (take_the_weights, ["weights"]),
        (ask_for_what_does_not_exist, ["constellation-no-such-package-at-all", "requirements.txt:1"]),
        (ask_for_what_conflicts, ["idna==3.6", "idna==3.7"]),
        (raise_at_start, ["the moon is full"]),
        (never_get_ready, ["ready", "5"]),
    ],
)
def test_a_bad_repository_ends_with_one_sentence_and_a_corrected_one_is_published(
    packager: Packager, spoil: Callable[[Path], None], expected: list[str]
) -> None:
    repository = packager.copy()
    spoil(repository)
    row = packager.register(repository)
    sentence = packager.package(row)
    assert "bad-day@1" in sentence
    assert "UNEXPLAINED" not in sentence
    assert all(word in sentence for word in expected), sentence
    assert packager.store.get(row.model_id).published_at is None

    corrected = packager.register(packager.copy(), description="corrected")
    assert corrected.model_id == row.model_id
    assert packager.package(corrected) == ""
    assert packager.store.get(row.model_id).published_at is not None


def test_a_repository_that_does_not_exist_and_a_branch_that_is_gone_are_named(packager: Packager) -> None:
    nowhere = packager.register(packager.directory / "nowhere")
    assert "nowhere" in packager.package(nowhere)
    repository = packager.copy()
    commit_repository(repository)
    gone = packager.register(repository, version="2", branch="release-7")
    assert "release-7" in packager.package(gone)


def test_a_scheme_that_is_not_allowed_is_refused_with_the_setting_that_allows_it(
    packager: Packager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONSTELLATION_SOURCE__ALLOWED_SCHEMES", '["https"]')
    sentence = packager.package(packager.register(packager.copy()))
    assert "allowed_schemes" in sentence


def test_a_failing_dockerfile_is_told_with_its_step(packager: Packager) -> None:
    repository = packager.copy()
    base = "scratch"
    (repository / "Dockerfile").write_text(f"FROM {base}\nCOPY nothing-of-that-name /\n")
    row = packager.register(
        repository, constellation={"runtime": "dockerfile", "port": 8000, "health_path": "/health"}
    )
    sentence = packager.package(row)
    assert "bad-day@1" in sentence and "nothing-of-that-name" in sentence


def test_an_engine_that_is_down_is_named_and_the_failure_is_marked_as_passing(
    packager: Packager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONSTELLATION_BUILD__ENGINE_URL", f"unix://{packager.directory}/no.sock")
    row = packager.register(packager.copy())
    assert "no.sock" in packager.package(row)
    (run,) = packager.instance.get_runs()
    assert run.tags[tags.IS_TRANSIENT] == "true"
    monkeypatch.delenv("CONSTELLATION_BUILD__ENGINE_URL")
    assert packager.package(row) == ""


def test_a_registry_that_refuses_the_password_is_told_without_it(
    packager: Packager, registry: RegistryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONSTELLATION_REGISTRY__REPOSITORY", f"{registry.address}/models")
    monkeypatch.setenv("CONSTELLATION_REGISTRY__USERNAME", "env:TEST_USER")
    monkeypatch.setenv("CONSTELLATION_REGISTRY__PASSWORD", "env:TEST_PASSWORD")
    monkeypatch.setenv("TEST_USER", registry.username)
    monkeypatch.setenv("TEST_PASSWORD", "not-the-password")
    row = packager.register(packager.copy())
    sentence = packager.package(row)
    assert registry.address in sentence and "not-the-password" not in sentence
    assert packager.store.get(row.model_id).published_at is None
    monkeypatch.setenv("TEST_PASSWORD", registry.password)
    assert packager.package(row) == ""


def test_a_row_that_was_corrected_while_it_was_packaged_is_not_published_from_its_old_self(
    packager: Packager, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = packager.register(packager.copy())
    from constellation_docker.defs import model_assets

    publish = model_assets.publish_image

    def publish_late(*arguments: object, **options: object) -> object:
        packager.register(packager.copy(), description="corrected meanwhile")
        return publish(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(model_assets, "publish_image", publish_late)
    assert "was corrected while" in packager.package(row)
    assert packager.store.get(row.model_id).published_at is None


def test_an_image_that_failed_its_checks_is_not_published_by_a_click_on_the_last_asset_either(
    packager: Packager,
) -> None:
    repository = packager.copy()
    raise_at_start(repository)
    row = packager.register(repository)
    assert "the moon is full" in packager.package(row)
    with pytest.raises(dg.Failure, match=r"has not passed .*becomes_ready"):
        packager.materialize(row, "published_image")
    assert packager.store.get(row.model_id).published_at is None
