"""The text tasks on the onnx runtime, asked by the real InferenceClient and held against transformers' pipelines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

from constellation_docker_tests.fixtures.model_server import ServedModel, ServeModel

TinyModel = Callable[[str], Path]
TEXT = "i love this movie! my name is sarah jones and i am in london, walking the brown dogs."


@pytest.fixture(scope="module")
def serve(serve_model: ServeModel, tiny_model: TinyModel) -> Callable[..., ServedModel]:
    return lambda name, task, **options: serve_model(tiny_model(name), task=task, runtime="onnx", **options)


@pytest.fixture(scope="module")
def pipeline(tiny_model: TinyModel) -> Callable[[str, str], Any]:
    from transformers import pipeline

    return lambda name, task: pipeline(task, model=str(tiny_model(name)))


def ask(server: ServedModel) -> InferenceClient:
    return InferenceClient(server.url, token="hf_not_a_token")


def test_text_classification_answers_every_label_as_the_pipeline_scores_it(serve, pipeline) -> None:
    given = ask(serve("classifier", "text-classification")).text_classification(TEXT)
    expected = pipeline("classifier", "text-classification")(TEXT, top_k=None)
    assert [item.label for item in given] == [item["label"] for item in expected]
    assert [item.score for item in given] == pytest.approx([item["score"] for item in expected], abs=1e-5)


@pytest.mark.parametrize("function", ["sigmoid", "softmax", "none"])
def test_text_classification_takes_top_k_and_the_function_to_apply(serve, pipeline, function: str) -> None:
    client = ask(serve("classifier", "text-classification"))
    given = client.text_classification(TEXT, top_k=2, function_to_apply=function)
    expected = pipeline("classifier", "text-classification")(TEXT, top_k=2, function_to_apply=function)
    assert [(i.label, pytest.approx(i.score, abs=1e-4)) for i in given] == [
        (i["label"], i["score"]) for i in expected
    ]


def test_text_classification_of_a_list_and_of_pairs_answers_one_list_each(serve, pipeline) -> None:
    server = serve("classifier", "text-classification")
    pair = {"text": "the movie was good", "text_pair": "i hate it"}
    inputs = [TEXT, pair, "bad"]
    given = server.post({"inputs": inputs}).json()
    reference = pipeline("classifier", "text-classification")
    for answer, one in zip(given, inputs, strict=True):
        expected = reference(one, top_k=None)
        assert [i["label"] for i in answer] == [i["label"] for i in expected]
        assert [i["score"] for i in answer] == pytest.approx([i["score"] for i in expected], abs=1e-5)


@pytest.mark.parametrize("strategy", ["none", "simple", "first", "average", "max"])
def test_token_classification_finds_the_same_entities_at_the_same_places(
    serve, pipeline, strategy: str
) -> None:
    client = ask(serve("tagger", "token-classification"))
    given = client.token_classification(TEXT, aggregation_strategy=strategy, ignore_labels=["I-PER"])
    expected = pipeline("tagger", "token-classification")(
        TEXT, aggregation_strategy=strategy, ignore_labels=["I-PER"]
    )
    assert given and len(given) == len(expected)
    for one, other in zip(given, expected, strict=True):
        assert (one.get("entity_group") or one.get("entity")) == (
            other.get("entity_group") or other["entity"]
        )
        assert (one.word, one.start, one.end) == (other["word"], other["start"], other["end"])
        assert one.score == pytest.approx(float(other["score"]), abs=1e-5)


def test_token_classification_groups_entities_unless_told_otherwise(serve) -> None:
    given = ask(serve("tagger", "token-classification")).token_classification(TEXT)
    assert all(item.entity_group and TEXT[item.start : item.end] for item in given)


def test_token_classification_reads_a_long_text_in_windows_with_a_stride(serve, pipeline) -> None:
    text = " ".join(["sarah jones lives in paris, i love this film."] * 20)
    options = {"aggregation_strategy": "simple", "stride": 8}
    given = ask(serve("tagger", "token-classification")).token_classification(text, **options)
    expected = pipeline("tagger", "token-classification")(text, **options)
    assert [(i.start, i.end, i.word) for i in given] == [(i["start"], i["end"], i["word"]) for i in expected]
    assert given[-1].end > 600


@pytest.mark.parametrize("is_multi", [False, True])
def test_zero_shot_classification_answers_a_list_of_labels(serve, pipeline, is_multi: bool) -> None:
    labels = ["sports", "politics", "good film"]
    template = "this is about {}."
    given = ask(serve("nli", "zero-shot-classification")).zero_shot_classification(
        TEXT, labels, multi_label=is_multi, hypothesis_template=template
    )
    expected = pipeline("nli", "zero-shot-classification")(
        TEXT, labels, multi_label=is_multi, hypothesis_template=template
    )
    assert [i.label for i in given] == expected["labels"]
    assert [i.score for i in given] == pytest.approx(expected["scores"], abs=1e-5)


def test_zero_shot_cuts_a_long_text_and_never_the_label(serve, pipeline) -> None:
    given = ask(serve("nli", "zero-shot-classification")).zero_shot_classification(
        "the dog walks. " * 500, ["sports", "politics"]
    )
    expected = pipeline("nli", "zero-shot-classification")("the dog walks. " * 500, ["sports", "politics"])
    assert [i.label for i in given] == expected["labels"]
    assert [i.score for i in given] == pytest.approx(expected["scores"], abs=1e-5)


def test_fill_mask_answers_the_likeliest_words(serve, pipeline) -> None:
    text = "the movie was [MASK]."
    given = ask(serve("masked", "fill-mask")).fill_mask(text, top_k=3)
    expected = pipeline("masked", "fill-mask")(text, top_k=3)
    assert [(i.token, i.token_str, i.sequence) for i in given] == [
        (i["token"], i["token_str"], i["sequence"]) for i in expected
    ]
    assert [i.score for i in given] == pytest.approx([i["score"] for i in expected], abs=1e-5)


def test_fill_mask_scores_only_the_targets(serve, pipeline) -> None:
    text = "the movie was [MASK]."
    given = ask(serve("masked", "fill-mask")).fill_mask(text, targets=["good", "bad"])
    expected = pipeline("masked", "fill-mask")(text, targets=["good", "bad"])
    assert [(i.token_str, pytest.approx(i.score, abs=1e-5)) for i in given] == [
        (i["token_str"], i["score"]) for i in expected
    ]


def test_fill_mask_answers_a_list_for_each_of_several_masks(serve, pipeline) -> None:
    text = "the [MASK] was [MASK]."
    given = serve("masked", "fill-mask").post({"inputs": text}).json()
    expected = pipeline("masked", "fill-mask")(text)
    assert [[i["sequence"] for i in mask] for mask in given] == [[i["sequence"] for i in m] for m in expected]


def test_feature_extraction_without_a_pooling_answers_a_vector_a_token(serve, pipeline) -> None:
    given = ask(serve("encoder", "feature-extraction")).feature_extraction(TEXT)
    expected = np.array(pipeline("encoder", "feature-extraction")(TEXT))[0]
    assert given.dtype == np.float32
    np.testing.assert_allclose(given, expected, atol=1e-4)


def mean_pooled(pipeline: Any, text: str) -> Any:
    tokens = np.array(pipeline("sentence", "feature-extraction")(text))[0]
    mean = tokens.mean(axis=0)
    return mean / np.linalg.norm(mean)


def test_feature_extraction_of_a_sentence_model_answers_its_pooled_and_scaled_vector(serve, pipeline) -> None:
    server = serve("sentence", "feature-extraction")
    given = ask(server).feature_extraction(TEXT)
    np.testing.assert_allclose(given, mean_pooled(pipeline, TEXT), atol=1e-5)
    both = server.post({"inputs": [TEXT, "bad"], "normalize": True, "truncate": True}).json()
    np.testing.assert_allclose(both, [mean_pooled(pipeline, TEXT), mean_pooled(pipeline, "bad")], atol=1e-5)


def test_feature_extraction_takes_its_parameters_at_the_root(serve, pipeline) -> None:
    client = ask(serve("sentence", "feature-extraction"))
    prompted = client.feature_extraction("bad", prompt_name="query")
    np.testing.assert_allclose(prompted, mean_pooled(pipeline, "query : bad"), atol=1e-5)
    short = client.feature_extraction("bad", dimensions=8, normalize=True)
    whole = mean_pooled(pipeline, "bad")[:8]
    np.testing.assert_allclose(short, whole / np.linalg.norm(whole), atol=1e-5)
    left = client.feature_extraction("bad " + "good " * 100, truncate=True, truncation_direction="left")
    np.testing.assert_allclose(left, mean_pooled(pipeline, "good " * 62), atol=1e-5)
    with pytest.raises(HfHubHTTPError, match="64 tokens"):
        client.feature_extraction("good " * 100, truncate=False)
    with pytest.raises(HfHubHTTPError, match="query"):
        client.feature_extraction("good", prompt_name="passage")


def test_sentence_similarity_answers_cosines(serve, pipeline) -> None:
    server = serve("sentence", "sentence-similarity")
    others = ["a good movie", "walk the dog"]
    given = ask(server).sentence_similarity(TEXT, other_sentences=others)
    source = mean_pooled(pipeline, TEXT)
    assert given == pytest.approx([float(source @ mean_pooled(pipeline, o)) for o in others], abs=1e-5)
    assert ask(server).feature_extraction("bad").shape == (32,)


def test_a_text_longer_than_the_model_is_cut_and_a_million_characters_are_no_trouble(serve) -> None:
    server = serve("classifier", "text-classification")
    head = server.post({"inputs": "good movie " * 31}).json()
    assert server.post({"inputs": "good movie " * 100_000}).json() == head


def test_a_text_longer_than_the_model_is_refused_where_the_card_says_so(serve) -> None:
    server = serve("classifier", "text-classification", long_input="refuse")
    assert server.post({"inputs": "good movie"}).status_code == 200
    answer = server.post({"inputs": "good movie " * 100_000})
    assert answer.status_code == 422
    assert "64 tokens" in answer.json()["error"]


def test_the_onnx_runtime_loads_neither_torch_nor_transformers(serve) -> None:
    server = serve("classifier", "text-classification")
    assert server.post({"inputs": "good"}).status_code == 200
    maps = Path(f"/proc/{server.pid}/maps").read_text()
    assert "onnxruntime" in maps
    assert "libtorch" not in maps


def test_openapi_holds_the_tasks_own_schema(serve) -> None:
    document = serve("nli", "zero-shot-classification").get("/openapi.json").json()
    assert "candidate_labels" in str(document["paths"]["/"]["post"])
