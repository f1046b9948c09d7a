"""What cannot be served is refused while loading, in one sentence that says why."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from constellation_docker.serving.config import Config, Options
from constellation_docker.serving.loading import load_model
from constellation_docker.serving.model import LoadFailed, Request
from constellation_docker.serving.runtimes.encoder import plan_groups
from constellation_docker.serving.runtimes.repository import Repository
from constellation_docker.serving.runtimes.tokenizer import resolve_max_length
from constellation_docker.serving.strict_json import render_json

TinyModel = Callable[[str], Path]


@pytest.fixture
def copy(tiny_model: TinyModel, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a tiny model that the test may break."""

    def make(name: str) -> Path:
        return Path(shutil.copytree(tiny_model(name), tmp_path / name))

    return make


def edit(path: Path, **values: Any) -> None:
    document = json.loads(path.read_text())
    document.update(values)
    path.write_text(json.dumps(document))


def refusal(path: Path, task: str | None, runtime: str, **extra: Any) -> str:
    config = Config(task=task, runtime=runtime, model_path=path, options=Options(threads=1), extra=extra)
    with pytest.raises(LoadFailed) as failed:
        load_model(config)
    assert "\n" not in str(failed.value)
    return str(failed.value)


def test_an_unknown_runtime_and_a_missing_directory_are_refused(tmp_path: Path) -> None:
    assert "one of onnx, transformers, custom" in refusal(tmp_path, None, "tensorflow")
    assert "no model directory" in refusal(tmp_path / "none", "fill-mask", "onnx")


def test_onnxruntime_is_told_to_send_nothing_home(
    tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(onnxruntime, "disable_telemetry_events", lambda: told.append("disabled"))
    config = Config(
        task="text-classification",
        runtime="onnx",
        model_path=tiny_model("classifier"),
        options=Options(threads=1),
    )
    load_model(config)
    assert told == ["disabled"]
    monkeypatch.delattr(onnxruntime, "disable_telemetry_events")
    load_model(config)


def test_the_onnx_runtime_refuses_tasks_and_files_that_it_does_not_serve(copy) -> None:
    path = copy("classifier")
    assert "does not serve the task text-generation" in refusal(path, "text-generation", "onnx")
    assert "an image gives one array" in refusal(path, "image-classification", "onnx")
    assert "names no class `entailment`" in refusal(path, "zero-shot-classification", "onnx")
    (path / "tokenizer.json").write_text("{")
    assert "tokenizer.json cannot be read" in refusal(path, "text-classification", "onnx")
    (path / "tokenizer.json").unlink()
    assert "no tokenizer.json" in refusal(path, "text-classification", "onnx")
    (path / "onnx" / "model.onnx").write_bytes(b"not a graph")
    assert "cannot load model.onnx" in refusal(path, "text-classification", "onnx")
    (path / "onnx" / "model.onnx").unlink()
    assert "no ONNX graph" in refusal(path, "text-classification", "onnx")
    assert "no ONNX graph" in refusal(path, "text-classification", "onnx", weights_file="../../other.onnx")
    (path / "config.json").write_text("[]")
    (path / "onnx" / "model.onnx").write_bytes(b"x")
    assert "cannot load" in refusal(path, "text-classification", "onnx")


def test_an_unknown_pooling_or_module_is_refused(copy) -> None:
    path = copy("sentence")
    (path / "1_Pooling" / "config.json").write_text("{}")
    assert "pooling" in refusal(path, "sentence-similarity", "onnx")
    (path / "modules.json").write_text('[{"type": "sentence_transformers.models.LSTM", "path": "1"}]')
    assert "LSTM" in refusal(path, "sentence-similarity", "onnx")


def test_an_image_processor_that_is_not_reproduced_is_refused(copy) -> None:
    path = copy("vit")
    edit(path / "preprocessor_config.json", image_processor_type="DonutImageProcessor")
    assert "DonutImageProcessor" in refusal(path, "image-classification", "onnx")


def test_a_model_saved_by_a_newer_transformers_is_refused_in_one_sentence(copy) -> None:
    path = copy("classifier")
    edit(path / "config.json", transformers_version="6.1.0")
    told = refusal(path, "text-classification", "transformers")
    assert "saved by transformers 6.1.0" in told and "transformers>=6" in told


def test_a_tokenizer_of_transformers_5_is_refused_by_transformers_4(copy) -> None:
    from constellation_docker.serving.runtimes.transformers_loading import require_readable

    path = copy("classifier")
    edit(path / "config.json", transformers_version=None)
    edit(path / "tokenizer_config.json", tokenizer_class="TokenizersBackend")
    with pytest.raises(LoadFailed, match="TokenizersBackend"):
        require_readable(Repository(path), "4.57.6")


def test_a_model_that_brings_code_of_its_own_is_refused(copy) -> None:
    path = copy("classifier")
    edit(path / "config.json", model_type="my_own", auto_map={"AutoModel": "modeling.MyModel"})
    (path / "modeling.py").write_text("raise SystemExit('this must never run')")
    assert "Python of its own" in refusal(path, "text-classification", "transformers")


def test_tasks_without_a_pipeline_and_broken_weights_are_refused(copy) -> None:
    path = copy("classifier")
    assert "handler.py" in refusal(path, "summarization", "transformers")
    assert "handler.py" in refusal(path, "image-text-to-text", "transformers")
    (path / "model.safetensors").write_bytes(b"broken")
    assert "cannot load the model" in refusal(path, "text-classification", "transformers")


@pytest.mark.parametrize(
    ("name", "task", "body"),
    [
        ("classifier", "text-classification", {"inputs": ["good movie", "bad"]}),
        (
            "nli",
            "zero-shot-classification",
            {"inputs": "good", "parameters": {"candidate_labels": "sports,politics"}},
        ),
        ("tagger", "token-classification", {"inputs": "sarah jones lives in paris"}),
        ("masked", "fill-mask", {"inputs": ["the [MASK] was good", "walk the [MASK] now"]}),
        ("encoder", "feature-extraction", {"inputs": ["good", "the dog walks"]}),
        (
            "sentence",
            "sentence-similarity",
            {"inputs": {"source_sentence": "good", "sentences": ["bad", "a dog"]}},
        ),
    ],
)
def test_both_runtimes_answer_alike(tiny_model: TinyModel, name: str, task: str, body: Any) -> None:
    answers = []
    for runtime in ("onnx", "transformers"):
        model = load_model(
            Config(task=task, runtime=runtime, model_path=tiny_model(name), options=Options(threads=1))
        )
        model.warm_up()
        (answer,) = model.run([model.parse(Request(json.dumps(body).encode()))])
        answers.append(json.loads(render_json(answer)))
    assert_alike(*answers)


def assert_alike(one: Any, other: Any) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_alike(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for item, counterpart in zip(one, other, strict=True):
            assert_alike(item, counterpart)
    elif isinstance(one, float):
        assert one == pytest.approx(other, abs=1e-4)
    else:
        assert one == other


def test_the_limit_of_length_is_the_least_that_the_files_state(tmp_path: Path) -> None:
    def limit(config: dict[str, Any], tokenizer: dict[str, Any]) -> int:
        (tmp_path / "config.json").write_text(json.dumps(config))
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(tokenizer))
        return resolve_max_length(Repository(tmp_path))

    assert limit({"max_position_embeddings": 512}, {"model_max_length": 256}) == 256
    assert limit({"max_position_embeddings": 512}, {"model_max_length": 1e30}) == 512
    assert limit({"max_position_embeddings": 514, "model_type": "roberta", "pad_token_id": 1}, {}) == 512
    assert limit({}, {}) == 8192
    (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": 128}')
    assert limit({"max_position_embeddings": 512}, {}) == 128


def test_texts_of_like_length_share_a_pass_and_none_is_lost() -> None:
    lengths = [3, 500, 4, 512, 60, 5, 510, 61]
    groups = list(plan_groups(lengths, max_rows=3, max_tokens=1100))
    assert sorted(index for group in groups for index in group) == list(range(8))
    assert [[lengths[index] for index in group] for group in groups] == [
        [3, 4, 5],
        [60, 61],
        [500, 510],
        [512],
    ]
