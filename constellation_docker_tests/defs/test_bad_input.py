"""Bad input and bad days, as a person meets them: one sentence that names model, step and remedy; nothing half-made.

The domain rooms' own tests play every case in detail; here the sentence is followed to where a person reads it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from constellation_docker.defs import tags
from constellation_docker_tests.fixtures.package_index import PackageIndex
from constellation_docker_tests.fixtures.packager import Packager
from constellation_docker_tests.fixtures.registry import RegistryServer
from examples.make_version import commit_repository


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


def call_home_at_start(repository: Path) -> None:
    (repository / "handler.py").write_text(
        "import urllib.request\nclass EndpointHandler:\n"
        "    def __init__(self, path=''):\n        urllib.request.urlopen('https://huggingface.co', timeout=2)\n"
        "    def __call__(self, data):\n        return []\n"
    )


def answer_rubbish(repository: Path) -> None:
    (repository / "handler.py").write_text(
        "class EndpointHandler:\n"
        "    def __init__(self, path=''):\n        pass\n"
        "    def __call__(self, data):\n        return {'rubbish': 'the moon is made of cheese'}\n"
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
        pytest.param(
            call_home_at_start,
            ["wants the network", "Put what it fetches into the repository"],
            marks=pytest.mark.slow,
        ),
        (answer_rubbish, ["5 of 5 examples went wrong", "Praise, Complaint", "Expected a list"]),
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
    assert packager.reason(row) in sentence, "what the gateway says is what the step says"
    assert packager.store.get(row.model_id).published_at is None

    corrected = packager.register(packager.copy(), description="corrected")
    assert corrected.model_id == row.model_id
    assert packager.package(corrected) == ""
    assert packager.store.get(row.model_id).published_at is not None
    shown = packager.instance.get_latest_data_version_record(dg.AssetKey("model_card"), partition_key=row.key)
    assert shown is not None and shown.asset_materialization is not None
    digest = (shown.asset_materialization.tags or {})["dagster/data_version"]
    assert digest == corrected.card.digest, "what was made of the card would count as out of date"


@pytest.mark.slow
def test_a_model_that_never_gets_ready_is_given_up_after_its_deadline_and_a_quick_one_is_published(
    packager: Packager, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = packager.copy()
    never_get_ready(repository)
    row = packager.register(repository)
    with monkeypatch.context() as impatient:
        impatient.setenv("CONSTELLATION_VERIFICATION__READY_DEADLINE_SECONDS", "5")
        sentence = packager.package(row)
    assert "bad-day@1" in sentence and "not ready after 5 s" in sentence
    assert packager.store.get(row.model_id).published_at is None
    corrected = packager.register(packager.copy(), description="corrected")
    assert packager.package(corrected) == ""


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


@pytest.mark.slow
def test_a_source_distribution_that_fails_to_build_is_named_with_its_line_and_the_remedy(
    packager: Packager, package_index: PackageIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONSTELLATION_INDEX__EXTRA_URLS", f'["{package_index.url}"]')
    monkeypatch.setenv("CONSTELLATION_BUILD__NETWORK", "host")  # the index listens on this machine's loopback
    package_index.add_source("moonlight", "1.0", "raise SystemExit('the moon is new')")
    repository = packager.copy()
    (repository / "requirements.txt").write_text("moonlight==1.0\n")
    row = packager.register(repository)
    sentence = packager.package(row)
    assert "bad-day@1: moonlight 1.0 (requirements.txt:1) has no wheel" in sentence
    assert "does not build" in sentence and "wheelhouse" in sentence
    assert packager.store.get(row.model_id).published_at is None
    corrected = packager.register(packager.copy(), description="corrected")
    assert packager.package(corrected) == ""


def test_a_failing_dockerfile_is_told_with_its_step(packager: Packager) -> None:
    repository = packager.copy()
    base = "scratch"
    (repository / "Dockerfile").write_text(f"FROM {base}\nCOPY nothing-of-that-name /\n")
    row = packager.register(
        repository, constellation={"runtime": "dockerfile", "port": 8000, "health_path": "/health"}
    )
    sentence = packager.package(row)
    assert "bad-day@1" in sentence and "nothing-of-that-name" in sentence


@pytest.mark.slow
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


@pytest.mark.slow
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
