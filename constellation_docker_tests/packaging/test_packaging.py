"""The examples, from their repositories to published images, through every part of this room."""

from __future__ import annotations

import functools
import json
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from constellation_docker.cards import ModelCard
from constellation_docker.engine import Engine
from constellation_docker.packaging.base_image import BaseImage
from constellation_docker.packaging.image import BuiltImage
from constellation_docker.packaging.lock import resolve_lock
from constellation_docker.packaging.publishing import publish_image
from constellation_docker.packaging.recipe import plan_image
from constellation_docker.packaging.runtime import Runtime, choose_runtime
from constellation_docker.packaging.source import fetch_source
from constellation_docker.packaging.verification import VerificationReport, verify_image
from constellation_docker.settings import (
    IndexSettings,
    RegistrySettings,
    Settings,
    SourceSettings,
    VerificationSettings,
)
from constellation_docker_tests.fixtures.deadline import wait_for
from constellation_docker_tests.fixtures.engine import IMAGE_PREFIX, TEST_LABEL
from constellation_docker_tests.fixtures.registry import RegistryServer
from constellation_docker_tests.packaging.images import MODEL_ID, TRIAL_ID

EXAMPLES = Path(__file__).parents[2] / "examples"
Package = Callable[[str], tuple[ModelCard, BuiltImage, VerificationReport]]


def ignore(_: str) -> None:
    """An `on_line`."""


@pytest.fixture(scope="module")
def package(
    engine: Engine, python_base: BaseImage, built: Callable[..., BuiltImage], build_settings: Settings
) -> Package:
    """Packages the repository of that name in `examples/`, as the assets do."""
    settings = build_settings.model_copy(
        update={
            "source": SourceSettings(allowed_schemes=("file",)),
            "index": IndexSettings(),
        }
    )

    def package(name: str) -> tuple[ModelCard, BuiltImage, VerificationReport]:
        registered = ModelCard.from_registration(
            {
                "model_name": f"examples/{name}",
                "model_version": "1.0.0",
                "repo_url": f"file://{EXAMPLES / name}",
                "branch": None,
                "model_card": {"description": "An example.", "data_used": "", "dependencies": []},
            }
        )
        source = fetch_source(
            registered.repo_url,
            None,
            settings=settings.source,
            ca_bundle=None,
            store=settings.home,
            model=registered.key,
            on_line=ignore,
        )
        card = registered.merged_with(source.readme) if source.readme else registered
        choice = choose_runtime(source, card)
        lock = resolve_lock(
            source,
            card,
            choice,
            base=python_base,
            settings=settings.index,
            store=settings.home,
            on_line=ignore,
        )
        recipe = plan_image(card, source, lock, choice, python_base, model_id=MODEL_ID)
        image = built(recipe, settings=settings)
        return (
            card,
            image,
            verify_image(
                image, card, engine, model_id=TRIAL_ID, settings=VerificationSettings(), on_line=ignore
            ),
        )

    return functools.cache(package)


def test_the_sentiment_example_becomes_a_verified_published_image(
    package: Package, engine: Engine, anonymous_registry: RegistryServer
) -> None:
    card, image, report = package("sentiment")
    assert report.passed, [check.message for check in report.failures]
    assert image.runtime is Runtime.ONNX
    names = engine.require_image(image.image_id).labels
    assert names["constellation.task"] == "text-classification"
    answers = report.check("answers_examples")
    assert "through the Hugging Face client" in answers.message
    assert answers.received.count("POSITIVE") >= len(card.widget)
    assert "4 of them acknowledged" in report.check("finishes_request_in_flight").sent
    settings = RegistrySettings(repository=f"{anonymous_registry.address}/models")
    published = publish_image(image, card, engine, settings, ignore)
    assert anonymous_registry.digest_of("models/examples-sentiment", "1.0.0") == published.digest
    engine.remove_image(f"{published.repository}:{published.tag}")


@pytest.mark.parametrize(("cpus", "threads"), [(1.0, 1), (0.5, 1)])
def test_threads_follow_the_containers_limit_of_processors(
    package: Package, engine: Engine, cpus: float, threads: int
) -> None:
    _, image, _ = package("sentiment")
    config = {
        "Image": image.image_id,
        "Labels": {TEST_LABEL: "threads"},
        "HostConfig": {"NanoCpus": int(cpus * 1e9), "NetworkMode": "none", "Tmpfs": {"/tmp": ""}},
    }
    with engine.temporary_container(f"{IMAGE_PREFIX}-{uuid.uuid4().hex[:8]}", config) as container:
        engine.start(container)
        log = wait_for(
            lambda: text if '"listening"' in (text := engine.logs(container)) else "", what="the first line"
        )
    assert json.loads(log.splitlines()[0])["threads"] == threads


def test_the_images_layers_are_small(package: Package) -> None:
    _, image, _ = package("sentiment")
    sizes = {layer.name: layer.size_bytes for layer in image.layers}
    assert sizes["environment"] < 200e6
    assert sizes["server"] < 3e6
    assert image.size_bytes < 300e6


def test_the_example_with_a_handler_of_its_own_is_verified(package: Package) -> None:
    _, image, report = package("keyword-handler")
    assert report.passed, [check.message for check in report.failures]
    assert image.runtime is Runtime.CUSTOM
