"""Which runtime serves what a repository holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from constellation_docker.cards import ModelCard
from constellation_docker.packaging.runtime import (
    ONNX_TASKS,
    Runtime,
    RuntimeChoice,
    RuntimeMismatch,
    TaskUnknown,
    WeightsMissing,
    choose_runtime,
)
from constellation_docker.packaging.source import fetch_source
from constellation_docker.serving.runtimes import onnx_loading
from constellation_docker.settings import SourceSettings

CLASSIFIER = json.dumps({"architectures": ["BertForSequenceClassification"]})
ONNX = {"onnx/model.onnx": "graph", "tokenizer.json": "{}"}
TORCH = {"config.json": CLASSIFIER, "model.safetensors": "weights", "tokenizer.json": "{}"}


def choose(
    tmp_path: Path, files: Mapping[str, str], task: str | None = None, **serving: Any
) -> RuntimeChoice:
    directory = tmp_path / "model"
    for name, content in {"README.md": "x", **files}.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(content)
    source = fetch_source(
        f"file://{directory}", None, settings=SourceSettings(allowed_schemes=("file",)), ca_bundle=None,
        store=tmp_path / "store", model="m@1", on_line=lambda line: None,
    )  # fmt: skip
    card = ModelCard(
        model_name="sentiment",
        model_version="1",
        repo_url=f"file://{directory}",
        pipeline_tag=task,
        constellation=serving,
    )
    return choose_runtime(source, card)


def test_a_handler_wins_over_weights(tmp_path: Path) -> None:
    choice = choose(tmp_path, {**TORCH, **ONNX, "handler.py": "class EndpointHandler: ..."})
    assert (choice.runtime, choice.handler) == (Runtime.CUSTOM, "handler.py")
    assert choice.weights == ("model.safetensors", "onnx/model.onnx")


def test_the_card_may_ask_for_weights_instead_of_the_handler(tmp_path: Path) -> None:
    choice = choose(tmp_path, {**TORCH, "handler.py": ""}, "text-classification", runtime="transformers")
    assert choice.runtime is Runtime.TRANSFORMERS


@pytest.mark.parametrize(
    "graph", ["onnx/model.onnx", "model.onnx", "onnx/model_quantized.onnx", "onnx/other.onnx"]
)
def test_an_onnx_graph_with_a_tokenizer_is_served_by_onnx(tmp_path: Path, graph: str) -> None:
    choice = choose(tmp_path, {**TORCH, graph: "graph"}, "text-classification")
    assert (choice.runtime, choice.weights) == (Runtime.ONNX, (graph,))


def test_the_exact_graph_is_preferred_to_a_quantised_one(tmp_path: Path) -> None:
    files = {**TORCH, "onnx/model_quantized.onnx": "q", "onnx/model.onnx": "x"}
    assert choose(tmp_path, files, "fill-mask").weights == ("onnx/model.onnx",)


def test_transformers_serves_what_onnx_does_not(tmp_path: Path) -> None:
    choice = choose(tmp_path, {**TORCH, **ONNX}, "text-generation")
    assert (choice.runtime, choice.weights) == (Runtime.TRANSFORMERS, ("model.safetensors",))
    assert "onnx does not serve text-generation" in choice.reason


def test_without_a_tokenizer_file_onnx_gives_way_to_transformers(tmp_path: Path) -> None:
    files = {"config.json": CLASSIFIER, "model.safetensors": "w", "model.onnx": "g", "vocab.txt": "a"}
    choice = choose(tmp_path, files)
    assert choice.runtime is Runtime.TRANSFORMERS
    assert "tokenizer.json" in choice.reason


def test_image_tasks_need_a_preprocessor_and_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(RuntimeMismatch, match=r"preprocessor_config\.json"):
        choose(tmp_path, {"model.onnx": "g"}, "image-classification")
    choice = choose(tmp_path, {"model.onnx": "g", "preprocessor_config.json": "{}"}, "image-classification")
    assert choice.runtime is Runtime.ONNX


def test_tables_need_nothing_beside_the_graph(tmp_path: Path) -> None:
    assert choose(tmp_path, {"model.onnx": "g"}, "tabular-regression").runtime is Runtime.ONNX


def test_sharded_weights_are_all_named(tmp_path: Path) -> None:
    shards = {f"model-0000{n}-of-00002.safetensors": "w" for n in (1, 2)}
    choice = choose(tmp_path, {"config.json": CLASSIFIER, **shards, "optimizer.bin": "o"})
    assert choice.weights == tuple(shards)


def test_pickled_weights_are_taken_with_a_warning(tmp_path: Path) -> None:
    choice = choose(tmp_path, {"config.json": CLASSIFIER, "pytorch_model.bin": "w", "training_args.bin": "t"})
    assert (choice.runtime, choice.weights) == (Runtime.TRANSFORMERS, ("pytorch_model.bin",))
    assert "safetensors" in choice.notes[0]


@pytest.mark.parametrize(
    ("architecture", "task"),
    [
        ("BertForSequenceClassification", "text-classification"),
        ("RobertaForTokenClassification", "token-classification"),
        ("DistilBertForMaskedLM", "fill-mask"),
        ("LlamaForCausalLM", "text-generation"),
        ("GPT2LMHeadModel", "text-generation"),
        ("ViTForImageClassification", "image-classification"),
        ("DetrForObjectDetection", "object-detection"),
        ("WhisperForConditionalGeneration", "automatic-speech-recognition"),
        ("Wav2Vec2ForCTC", "automatic-speech-recognition"),
        ("BertModel", "feature-extraction"),
        ("DistilBertModel", "feature-extraction"),
    ],
)
def test_the_task_is_told_by_the_architecture_where_the_card_is_silent(
    tmp_path: Path, architecture: str, task: str
) -> None:
    config = json.dumps({"architectures": [architecture]})
    assert choose(tmp_path, {"config.json": config, "model.safetensors": "w"}).task == task


def test_a_sentence_transformers_repository_is_for_similarity(tmp_path: Path) -> None:
    files = {**TORCH, "config.json": '{"architectures": ["BertModel"]}', "modules.json": "[]"}
    assert choose(tmp_path, files).task == "sentence-similarity"


@pytest.mark.parametrize("config", ["{}", '{"architectures": ["NewThing"]}', '{"architectures": 3}', "[]"])
def test_a_task_that_nothing_tells_is_asked_for(tmp_path: Path, config: str) -> None:
    with pytest.raises(TaskUnknown, match=r"sentiment@1.*pipeline_tag"):
        choose(tmp_path, {"config.json": config, "model.safetensors": "w"})


def test_missing_weights_say_what_was_looked_for_and_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match=r"sentiment@1 has none of handler\.py, .*train\.py") as caught:
        choose(tmp_path, {"train.py": "print()", "config.json": CLASSIFIER})
    assert "model.safetensors" in caught.value.details["looked_for"]
    with pytest.raises(WeightsMissing, match=r"onnx/model\.onnx"):
        choose(tmp_path, {}, "fill-mask", runtime="onnx")


def test_a_dockerfile_is_used_only_when_the_card_says_so_with_port_and_health_path(tmp_path: Path) -> None:
    files = {"Dockerfile": "FROM scratch", **TORCH}
    assert choose(tmp_path, files).runtime is Runtime.TRANSFORMERS
    with pytest.raises(RuntimeMismatch, match=r"constellation\.port"):
        choose(tmp_path, files, runtime="dockerfile")
    choice = choose(tmp_path, files, runtime="dockerfile", port=9000, health_path="/up")
    assert choice.runtime is Runtime.DOCKERFILE
    with pytest.raises(RuntimeMismatch, match=r"serve/Dockerfile, which is not there"):
        choose(
            tmp_path, files, runtime="dockerfile", port=9000, health_path="/up", dockerfile="serve/Dockerfile"
        )


def test_a_ready_made_image_needs_no_repository() -> None:
    card = ModelCard(
        model_name="m",
        model_version="1",
        repo_url="hf:o/m",
        constellation={"runtime": "image", "image": "registry.example/m:1", "port": 80, "health_path": "/"},
    )
    assert choose_runtime(None, card).runtime is Runtime.IMAGE


def test_a_runtime_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RuntimeMismatch, match=r"no handler\.py"):
        choose(tmp_path, TORCH, runtime="custom")
    with pytest.raises(RuntimeMismatch, match="onnx runtime does not serve"):
        choose(tmp_path, {**TORCH, **ONNX}, "text-generation", runtime="onnx")
    with pytest.raises(RuntimeMismatch, match=r"no config\.json"):
        choose(tmp_path / "b", {"model.safetensors": "w"}, "fill-mask")
    with pytest.raises(RuntimeMismatch, match=r"config\.json in the repository is not JSON"):
        choose(tmp_path / "c", {**TORCH, "config.json": "{"})


def test_the_onnx_tasks_are_those_that_the_server_serves() -> None:
    assert set(onnx_loading.TASKS) == ONNX_TASKS
