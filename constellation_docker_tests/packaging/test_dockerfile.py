"""The Dockerfile and the recipe, as text and facts; no engine is needed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from constellation_docker.packaging.base_image import BaseImage
from constellation_docker.packaging.dockerfile import render_adoption, render_dockerfile
from constellation_docker.packaging.recipe import (
    ImageRecipe,
    choose_files,
    plan_image,
    read_server_tree,
    without_password,
)
from constellation_docker.packaging.runtime import Runtime
from constellation_docker.packaging.source import Source
from constellation_docker_tests.packaging.images import (
    MODEL_ID,
    STAND_IN,
    make_card,
    make_choice,
    make_lock,
    make_source,
)

BASE = BaseImage(
    reference="registry.example/python@sha256:" + "1" * 64,
    image_id="sha256:" + "2" * 64,
    origin="registry",
    python_version="3.11",
    python_path="/usr/local/bin/python3.11",
    libc="manylinux_2_36",
    architecture="amd64",
    size_bytes=1,
)


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return make_source(tmp_path / "repository", {"config.json": "{}", "onnx/model.onnx": b"weights"})


def plan(source: Source, **changes: object) -> ImageRecipe:
    given = {
        "card": make_card(),
        "lock": make_lock(),
        "choice": make_choice(weights=("onnx/model.onnx",)),
        "base": BASE,
        "server": read_server_tree(STAND_IN),
        **changes,
    }
    return plan_image(
        given["card"],  # type: ignore[arg-type]
        source,
        given["lock"],  # type: ignore[arg-type]
        given["choice"],  # type: ignore[arg-type]
        given["base"],  # type: ignore[arg-type]
        model_id=MODEL_ID,
        server=given["server"],  # type: ignore[arg-type]
    )


def test_layers_lie_in_the_order_in_which_they_change_least() -> None:
    text = render_dockerfile(base="python:3", python="/usr/bin/python3", labels={}, port=8080)
    last_stage = text[text.index("AS model") :]
    assert [line for line in last_stage.splitlines() if line.startswith("COPY")] == [
        "COPY --from=server-assembly /out/ /",
        "COPY layers/model/ /",
        "COPY layers/card/ /",
    ]
    assert "FROM ${ENVIRONMENT} AS model" in text


def test_the_last_stage_runs_nothing_so_that_no_tool_can_stay_behind() -> None:
    text = render_dockerfile(base="python:3", python="/usr/bin/python3", labels={}, port=8080)
    assert "RUN" not in text[text.index("AS model") :]


def test_values_with_quotes_dollars_and_line_ends_stay_values() -> None:
    text = render_dockerfile(
        base="python:3", python="p", labels={"note": 'a "b" $HOME \\ \n USER root'}, port=8080
    )
    assert (
        '    note="a \\"b\\" \\$HOME \\\\ USER root"' in text
        or 'LABEL note="a \\"b\\" \\$HOME \\\\ USER root"' in text
    )
    assert "\nUSER root" not in text


def test_an_image_of_ones_own_keeps_its_user_and_health_check() -> None:
    text = render_adoption(image="own", labels={"a": "b"}, port=9000, user=None, health=None)
    assert "USER" not in text
    assert "HEALTHCHECK" not in text
    assert "EXPOSE 9000" in text


def test_an_image_of_ones_own_that_is_root_gets_another_user() -> None:
    text = render_adoption(
        image="own", labels={}, port=9000, user="65532:65532", health=["/usr/bin/curl", "-f"]
    )
    assert "USER 65532:65532" in text
    assert 'CMD ["/usr/bin/curl", "-f"]' in text


def test_the_same_inputs_give_the_same_recipe(source: Source) -> None:
    assert plan(source).digest == plan(source).digest


def test_each_input_changes_the_recipe(source: Source, tmp_path: Path) -> None:
    other_source = make_source(tmp_path / "other", {"config.json": "{}", "onnx/model.onnx": b"other weights"})
    server = read_server_tree(STAND_IN)
    recipes = [
        plan(source),
        plan(other_source),
        plan(source, card=make_card(description="Another text.")),
        plan(source, lock=make_lock("# another\n")),
        plan(source, base=replace(BASE, reference="python@sha256:" + "3" * 64)),
        plan(source, server=server.model_copy(update={"digest": "sha256:" + "4" * 64})),
        plan(source, choice=make_choice(Runtime.CUSTOM, handler="handler.py")),
    ]
    assert len({recipe.digest for recipe in recipes}) == len(recipes)


def test_models_with_the_same_lock_have_the_same_environment(source: Source, tmp_path: Path) -> None:
    other_source = make_source(tmp_path / "other", {"model.onnx": b"x"})
    one = plan(source)
    two = plan(other_source, card=make_card("tests/other", "2.0"))
    assert one.environment_digest == two.environment_digest
    assert one.digest != two.digest
    assert plan(source, lock=make_lock("# another\n")).environment_digest != one.environment_digest


def test_labels_tell_where_an_image_comes_from(source: Source) -> None:
    recipe = plan_image(
        make_card(description="Two\nlines."),
        source.model_copy(update={"url": "https://user:hunter2@git.example/team/model"}),
        make_lock(),
        make_choice(),
        BASE,
        model_id=MODEL_ID,
        created_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        server=read_server_tree(STAND_IN),
    )
    labels = recipe.labels
    assert labels["org.opencontainers.image.source"] == "https://git.example/team/model"
    assert labels["org.opencontainers.image.revision"] == source.commit
    assert labels["org.opencontainers.image.version"] == "1.0"
    assert labels["org.opencontainers.image.licenses"] == "apache-2.0"
    assert labels["org.opencontainers.image.created"] == "2026-01-02T03:04:05Z"
    assert labels["org.opencontainers.image.description"] == "Two lines."
    assert labels["org.opencontainers.image.base.digest"] == "sha256:" + "1" * 64
    assert labels["constellation.model-id"] == MODEL_ID
    assert labels["constellation.lock-digest"] == make_lock().digest
    assert labels["constellation.card-digest"].startswith("sha256:")
    assert "hunter2" not in recipe.model_dump_json(exclude={"source"})


def test_passwords_are_cut_out_of_addresses() -> None:
    assert without_password("https://user:word@host:8443/a?b=c") == "https://host:8443/a?b=c"
    assert without_password("https://host/a@b") == "https://host/a@b"


FILES = {
    "config.json": "{}",
    "onnx/model.onnx": "graph",
    "onnx/model.onnx_data": "data",
    "onnx/model_fp16.onnx": "another graph",
    "model.safetensors": "weights",
    "pytorch_model.bin": "weights",
    "tf_model.h5": "weights",
    "vocab.txt": "words",
}


def kept(tmp_path: Path, runtime: Runtime, *weights: str) -> set[str]:
    source = make_source(tmp_path / "repository", FILES)
    return {file.path for file in choose_files(source, make_choice(runtime, weights=weights))}


def test_an_onnx_image_leaves_weights_out_that_it_does_not_read(tmp_path: Path) -> None:
    assert kept(tmp_path, Runtime.ONNX, "onnx/model.onnx") == {
        "config.json",
        "onnx/model.onnx",
        "onnx/model.onnx_data",
        "vocab.txt",
    }


def test_a_transformers_image_leaves_weights_out_that_it_does_not_read(tmp_path: Path) -> None:
    assert kept(tmp_path, Runtime.TRANSFORMERS, "model.safetensors") == {
        "config.json",
        "model.safetensors",
        "vocab.txt",
    }


def test_a_custom_handler_gets_every_file(tmp_path: Path) -> None:
    assert kept(tmp_path, Runtime.CUSTOM) == set(FILES)
