"""The exporter itself, on tiny models: what it keeps, what it refuses, and how it says so."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from constellation_docker.packaging.exporting import __main__ as program

TinyModel = Callable[[str], Path]


@pytest.fixture
def copy(tiny_model: TinyModel, tmp_path: Path) -> Callable[[str], Path]:
    def make(name: str) -> Path:
        return Path(shutil.copytree(tiny_model(name), tmp_path / name, ignore=shutil.ignore_patterns("onnx")))

    return make


def export(model: Path, task: str, *options: str, examples: list[Any] | None = None) -> dict[str, Any]:
    out = model.parent / f"out-{model.name}"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    asked = model.parent / "examples.json"
    asked.write_text(json.dumps(examples or []))
    arguments = ["--model", str(model), "--out", str(out), "--task", task, "--examples", str(asked), *options]
    assert program.main([*arguments, "--threads", "2"]) == 0
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    report["files"] = sorted(path.name for path in out.iterdir())
    return report


@pytest.mark.slow
def test_a_graph_that_agrees_is_kept_with_its_deviations(copy: Callable[[str], Path]) -> None:
    examples = [{"inputs": "the movie was great"}, {"inputs": ["bad", "good"]}, {"inputs": {"odd": 1}}, "odd"]
    report = export(copy("classifier"), "text-classification", examples=examples)
    assert report["kept"]
    assert report["files"] == ["model.onnx", "report.json"]
    assert report["largest_deviation"] < 1e-5 < report["tolerance"]
    assert {"example 1", "example 3", "a batch of different lengths", "the longest text"} <= set(
        report["deviations"]
    )
    assert set(report["steps"]) == {"load", "export", "compare"}
    assert "within 0.001" in report["reason"]


def test_a_graph_over_the_tolerance_is_not_kept_and_nothing_is_left(copy: Callable[[str], Path]) -> None:
    report = export(copy("classifier"), "text-classification", "--tolerance", "0")
    assert not report["kept"]
    assert report["files"] == ["report.json"]
    assert "more than 0" in report["reason"]


@pytest.mark.slow
def test_eight_bit_weights_are_kept_where_they_agree_and_the_exact_ones_where_not(
    copy: Callable[[str], Path],
) -> None:
    path = copy("encoder")
    small = export(path, "feature-extraction", "--quantize", "--tolerance", "1")
    assert (small["kept"], small["file"]) == (True, "model_quantized.onnx")
    assert small["files"] == ["model_quantized.onnx", "report.json"]
    exact = export(path, "feature-extraction", "--quantize", "--tolerance", "1e-5")
    assert (exact["kept"], exact["file"]) == (True, "model.onnx")
    assert "8-bit weights are not used" in exact["notes"][0]
    assert exact["files"] == ["model.onnx", "report.json"]


@pytest.mark.parametrize("name", ["gpt2", "speech"])
def test_a_task_that_is_not_exported_is_refused_in_one_sentence(
    copy: Callable[[str], Path], name: str
) -> None:
    report = export(copy(name), "text-generation")
    assert not report["kept"]
    assert "models for text-generation are not exported" in report["reason"]


def test_weights_that_lack_the_head_are_refused(copy: Callable[[str], Path]) -> None:
    report = export(copy("encoder"), "text-classification")
    assert not report["kept"]
    assert "would be random" in report["reason"]


def test_broken_weights_are_refused_with_what_transformers_says(copy: Callable[[str], Path]) -> None:
    path = copy("classifier")
    (path / "model.safetensors").write_bytes(b"broken")
    report = export(path, "text-classification")
    assert not report["kept"]
    assert "cannot load it" in report["reason"] and "\n" not in report["reason"]


def test_a_repository_without_tokenizer_json_is_refused(copy: Callable[[str], Path]) -> None:
    path = copy("classifier")
    (path / "tokenizer.json").unlink()
    report = export(path, "text-classification")
    assert not report["kept"]
    assert report["files"] == ["report.json"]


def test_a_deviation_is_measured_in_what_clients_get() -> None:
    from constellation_docker.packaging.exporting.comparison import deviation

    class Configuration:
        problem_type = None

    logits = np.array([[2.0, 0.0]])
    shifted = logits + 5
    assert deviation(logits, shifted, None, "text-classification", Configuration()) == pytest.approx(0)
    assert deviation(logits, -logits, None, "text-classification", Configuration()) > 0.7
    vectors = np.array([[[3.0, 4.0], [1.0, 0.0]]])
    other = np.array([[[6.0, 8.0], [9.0, 9.0]]])
    mask = np.array([[1, 0]])
    assert deviation(vectors, other, mask, "feature-extraction", Configuration()) == pytest.approx(0)
    assert deviation(vectors, other, None, "feature-extraction", Configuration()) > 0.2
