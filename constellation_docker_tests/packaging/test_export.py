"""Export at packaging: which models it is for, and one in a real container."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from constellation_docker.engine import Engine
from constellation_docker.packaging.base_image import BaseImage
from constellation_docker.packaging.export import (
    ExportRequired,
    explain_no_export,
    export_source,
)
from constellation_docker.packaging.exporter import render_export_container
from constellation_docker.packaging.image import ROLE_LABEL
from constellation_docker.packaging.runtime import Runtime, choose_runtime
from constellation_docker.packaging.source import Source
from constellation_docker.settings import BuildSettings, Settings
from constellation_docker_tests.packaging.images import (
    IMAGE_PREFIX,
    TRIAL_ID,
    make_card,
    make_choice,
    make_source,
)

TinyModel = Callable[[str], Path]


def transformers_source(tiny_model: TinyModel, folder: Path, name: str = "classifier") -> Source:
    origin = tiny_model(name)
    files = [path for path in origin.rglob("*") if path.is_file() and path.suffix != ".onnx"]
    return make_source(folder, {path.relative_to(origin).as_posix(): path.read_bytes() for path in files})


@pytest.mark.parametrize(
    ("serving", "runtime", "task", "says"),
    [
        ({}, Runtime.TRANSFORMERS, "text-classification", ""),
        ({}, Runtime.ONNX, "text-classification", "only models for transformers"),
        ({}, Runtime.CUSTOM, "text-classification", "only models for transformers"),
        ({"export": "never"}, Runtime.TRANSFORMERS, "text-classification", "says never"),
        (
            {"runtime": "transformers"},
            Runtime.TRANSFORMERS,
            "text-classification",
            "asks for the transformers",
        ),
        ({"runtime": "transformers", "export": "require"}, Runtime.TRANSFORMERS, "fill-mask", ""),
        ({}, Runtime.TRANSFORMERS, "text-generation", "does not serve text-generation"),
    ],
)
def test_what_is_exported_follows_from_card_runtime_and_task(
    tmp_path: Path, serving: dict[str, Any], runtime: Runtime, task: str, says: str
) -> None:
    source = make_source(tmp_path / "source", {"model.safetensors": b"weights", "config.json": "{}"})
    card = make_card(constellation=serving)
    told = explain_no_export(source, card, make_choice(runtime, task=task))
    assert says in told if says else told == ""


def test_a_model_of_gigabytes_is_not_exported(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source", {"model.safetensors": b"weights"})
    large = source.files[0].model_copy(update={"size_bytes": 9 * 1024**3})
    told = explain_no_export(
        source.model_copy(update={"files": (large,)}), make_card(), make_choice(Runtime.TRANSFORMERS)
    )
    assert "not exported" in told


def test_the_exporters_container_has_no_network_and_no_rights() -> None:
    config = render_export_container(
        "image", model_id=TRIAL_ID, model="a@1", arguments=["--task", "x"], weight_bytes=10**9, expires_at=0
    )
    host = config["HostConfig"]
    assert host["NetworkMode"] == "none"
    assert host["ReadonlyRootfs"] and host["CapDrop"] == ["ALL"]
    assert host["Memory"] == host["MemorySwap"] > 8 * 10**9
    assert config["User"] == "65532:65532"


def test_a_required_export_that_does_not_apply_is_an_error_that_says_why(
    tmp_path: Path, engine: Engine, python_base: BaseImage
) -> None:
    source = make_source(tmp_path / "source", {"model.safetensors": b"weights"})
    card = make_card(constellation={"export": "require"})
    with pytest.raises(ExportRequired, match="does not serve text-generation"):
        export_source(
            source,
            card,
            make_choice(Runtime.TRANSFORMERS, task="text-generation"),
            engine,
            model_id=TRIAL_ID,
            base=python_base,
            settings=Settings(home=tmp_path / "home"),
            on_line=print,
        )


@pytest.fixture
def without_exporter(engine: Engine) -> Iterator[None]:
    """Removes the exporter's image afterwards: it is large, and only this test's."""
    yield
    for image in engine.list_images({ROLE_LABEL: "exporter"}):
        for tag in image.tags:
            if tag.startswith(f"{IMAGE_PREFIX}/"):
                engine.remove_image(tag)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("without_exporter")
def test_a_transformers_repository_becomes_an_onnx_one_in_a_container(
    tiny_model: TinyModel, tmp_path: Path, engine: Engine, python_base: BaseImage
) -> None:
    source = transformers_source(tiny_model, tmp_path / "source")
    card = make_card(widget=[{"text": "the movie was great"}, {"text": "i hate this film"}])
    settings = Settings(
        home=tmp_path / "home", build=BuildSettings(network="host", image_prefix=IMAGE_PREFIX)
    )
    choice = choose_runtime(source, card)
    assert choice.runtime is Runtime.TRANSFORMERS
    options: dict[str, Any] = {"model_id": TRIAL_ID, "base": python_base, "settings": settings}

    lines: list[str] = []
    exported = export_source(source, card, choice, engine, on_line=lines.append, **options)
    assert exported.report is not None and exported.report.kept, (exported.report, lines[-20:])
    assert exported.choice.runtime is Runtime.ONNX
    assert exported.choice.weights == ("onnx/model.onnx",)
    assert exported.report.largest_deviation is not None and exported.report.largest_deviation < 1e-4
    paths = {file.path for file in exported.source.files}
    assert "onnx/model.onnx" in paths and "model.safetensors" not in paths and "tokenizer.json" in paths
    assert (exported.source.path / "onnx" / "model.onnx").is_file()
    assert exported.source.digest != source.digest

    again = export_source(source, card, choice, engine, on_line=lines.append, **options)
    assert again.report is not None and again.report.is_cached
    assert again.source.digest == exported.source.digest

    strict = make_card(widget=[{"text": "good"}], constellation={"tolerance": 0.0})
    refused = export_source(source, strict, choice, engine, on_line=lines.append, **options)
    assert refused.report is not None and not refused.report.kept
    assert "more than 0" in refused.reason
    assert refused.choice == choice and refused.source == source
    demanding = make_card(widget=[{"text": "good"}], constellation={"tolerance": 0.0, "export": "require"})
    with pytest.raises(ExportRequired, match="more than 0"):
        export_source(source, demanding, choice, engine, on_line=lines.append, **options)

    slow = make_card(widget=[{"text": "bad"}])
    late = export_source(source, slow, choice, engine, on_line=lines.append, timeout_seconds=1.0, **options)
    assert late.report is not None and not late.report.kept
    assert "longer than 1 seconds" in late.reason
    assert not engine.list_containers({"constellation.subject": slow.key})
