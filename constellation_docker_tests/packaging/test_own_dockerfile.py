"""Repositories with a Dockerfile or a ready-made image of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from constellation_docker.engine import BuildFailed, Engine
from constellation_docker.packaging.base_image import BaseImage
from constellation_docker.packaging.image import (
    ROLE_LABEL,
    BuiltImage,
    build_image,
)
from constellation_docker.packaging.runtime import Runtime
from constellation_docker.packaging.verification import verify_image
from constellation_docker.settings import Settings, VerificationSettings
from constellation_docker_tests.packaging.images import (
    IMAGE_PREFIX,
    TRIAL_ID,
    Build,
    ignore,
    make_card,
    make_choice,
    make_recipe,
    own_recipe,
)


@pytest.fixture(scope="module")
def own_image(python_base: BaseImage, built: Build, tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    dockerfile = (
        f"FROM {python_base.reference}\nCOPY server.py /srv/\n"
        f'CMD ["{python_base.python_path}", "/srv/server.py"]\n'
    )
    return built(own_recipe(python_base, tmp_path_factory.mktemp("own"), dockerfile))


def test_a_repositorys_own_dockerfile_is_honoured(own_image: BuiltImage, engine: Engine) -> None:
    facts = engine.require_image(own_image.tag)
    assert own_image.has_own_server
    assert facts.config["Cmd"][-1] == "/srv/server.py"
    assert facts.config["User"] == "65532:65532"
    assert "http://127.0.0.1:9000/up" in " ".join(facts.config["Healthcheck"]["Test"])
    assert facts.labels["constellation.port"] == "9000"
    assert facts.labels["constellation.runtime"] == "dockerfile"
    left = [name for image in engine.list_images({ROLE_LABEL: "own"}) for name in image.tags]
    assert not [name for name in left if name.startswith(f"{IMAGE_PREFIX}/")]


def test_an_image_with_a_server_of_its_own_is_verified_too(own_image: BuiltImage, engine: Engine) -> None:
    card = make_card("tests/own", constellation={"runtime": "dockerfile", "port": 9000, "health_path": "/up"})
    report = verify_image(
        own_image, card, engine, model_id=TRIAL_ID, settings=VerificationSettings(), on_line=ignore
    )
    assert report.passed, [check.message for check in report.failures]
    assert report.check("rejects_malformed_input").is_skipped
    assert "POSITIVE" in report.check("answers_examples").received


def test_a_dockerfile_that_fails_ends_with_its_step_and_its_last_lines(
    python_base: BaseImage, engine: Engine, build_settings: Settings, tmp_path: Path
) -> None:
    dockerfile = f"FROM {python_base.reference}\nRUN echo first line >&2 && echo the reason >&2 && exit 4\n"
    with pytest.raises(BuildFailed) as caught:
        build_image(
            own_recipe(python_base, tmp_path, dockerfile), engine, settings=build_settings, on_line=ignore
        )
    assert caught.value.message.startswith("The image of tests/own@1.0 cannot be built")
    assert "RUN echo first line" in caught.value.message
    assert "the reason" in caught.value.message
    assert list(caught.value.log_tail) == ["first line", "the reason"]


def test_a_ready_made_image_is_adopted(
    python_base: BaseImage, own_image: BuiltImage, built: Build, engine: Engine
) -> None:
    card = make_card(
        "tests/ready-made",
        constellation={"runtime": "image", "image": own_image.tag, "port": 9000, "health_path": "/up"},
    )
    recipe = make_recipe(python_base, None, card, choice=make_choice(Runtime.IMAGE), lock=None)
    image = built(recipe)
    labels = engine.require_image(image.tag).labels
    assert labels["constellation.model"] == "tests/ready-made"
    assert labels["constellation.runtime"] == "image"
    assert (
        image.layers[: len(own_image.layers)] == own_image.layers or image.size_bytes == own_image.size_bytes
    )
