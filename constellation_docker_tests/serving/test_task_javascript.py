"""The same server, asked by the JavaScript client @huggingface/inference, task by task."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from constellation_docker_tests.fixtures.javascript import Ask
from constellation_docker_tests.fixtures.model_server import ServedModel, ServeModel
from constellation_docker_tests.serving.test_task_image import picture
from constellation_docker_tests.serving.test_task_sound import encode_wav, tone

TinyModel = Callable[[str], Path]
TEXT = "my name is sarah jones and i love this movie"


@pytest.fixture(scope="module")
def serve(serve_model: ServeModel, tiny_model: TinyModel) -> Callable[..., ServedModel]:
    return lambda name, task, runtime="onnx": serve_model(tiny_model(name), task=task, runtime=runtime)


def blob(content: bytes, kind: str) -> dict[str, str]:
    return {"$base64": base64.b64encode(content).decode(), "type": kind}


def test_text_classification(serve, ask_in_javascript: Ask) -> None:
    server = serve("classifier", "text-classification")
    assert (
        ask_in_javascript(server.url, "textClassification", {"inputs": TEXT})
        == server.post({"inputs": TEXT}).json()[0]
    )


def test_token_classification(serve, ask_in_javascript: Ask) -> None:
    given = ask_in_javascript(
        serve("tagger", "token-classification").url, "tokenClassification", {"inputs": TEXT}
    )
    assert all({"entity_group", "score", "word", "start", "end"} <= item.keys() for item in given)


def test_zero_shot_classification(serve, ask_in_javascript: Ask) -> None:
    args = {"inputs": TEXT, "parameters": {"candidate_labels": ["sports", "politics"], "multi_label": True}}
    given = ask_in_javascript(serve("nli", "zero-shot-classification").url, "zeroShotClassification", args)
    assert {item["label"] for item in given} == {"sports", "politics"}


def test_fill_mask(serve, ask_in_javascript: Ask) -> None:
    given = ask_in_javascript(
        serve("masked", "fill-mask").url, "fillMask", {"inputs": "the movie was [MASK]."}
    )
    assert len(given) == 5


def test_feature_extraction_and_sentence_similarity(serve, ask_in_javascript: Ask) -> None:
    url = serve("sentence", "sentence-similarity").url
    assert len(ask_in_javascript(url, "featureExtraction", {"inputs": TEXT})) == 32
    inputs = {"source_sentence": TEXT, "sentences": ["a good movie", "walk"]}
    assert len(ask_in_javascript(url, "sentenceSimilarity", {"inputs": inputs})) == 2


def test_image_classification_sends_a_blob(serve, ask_in_javascript: Ask) -> None:
    server = serve("vit", "image-classification")
    given = ask_in_javascript(server.url, "imageClassification", {"data": blob(picture(), "image/png")})
    assert given == server.post(content=picture()).json()


@pytest.mark.slow
def test_object_detection(serve, ask_in_javascript: Ask) -> None:
    server = serve("detector", "object-detection", "transformers")
    given = ask_in_javascript(server.url, "objectDetection", {"data": blob(picture(), "image/png")})
    assert given == server.post(content=picture()).json()


def test_speech_recognition(serve, ask_in_javascript: Ask) -> None:
    server = serve("speech", "automatic-speech-recognition", "transformers")
    sound = encode_wav(tone(), 16_000)
    given = ask_in_javascript(server.url, "automaticSpeechRecognition", {"data": blob(sound, "audio/wav")})
    assert given == server.post(content=sound, headers={"content-type": "audio/wav"}).json()


@pytest.mark.parametrize(
    ("model", "method", "expected"),
    [
        ("table-classifier", "tabularClassification", ["setosa"]),
        ("table-regressor", "tabularRegression", [3.5]),
    ],
)
def test_tables(serve, ask_in_javascript: Ask, model: str, method: str, expected: list[Any]) -> None:
    task = "tabular-classification" if "classifier" in model else "tabular-regression"
    args = {"inputs": {"data": {"length": ["2"], "width": ["1"], "height": ["1"]}}}
    if method == "tabularClassification":
        # The client only lets numbers through, which a classifier's labels seldom are.
        assert serve(model, task).post({"inputs": args["inputs"]}).json() == expected
    else:
        assert ask_in_javascript(serve(model, task).url, method, args) == pytest.approx(expected)


def test_text_generation_and_its_stream(serve, ask_in_javascript: Ask) -> None:
    url = serve("gpt2", "text-generation", "transformers").url
    args = {"inputs": "the quick", "parameters": {"max_new_tokens": 8}}
    whole = ask_in_javascript(url, "textGeneration", args)["generated_text"]
    pieces = ask_in_javascript(url, "textGenerationStream", args)
    assert whole and "".join(piece["choices"][0]["text"] for piece in pieces) == whole


def test_chat_and_its_stream(serve, ask_in_javascript: Ask) -> None:
    url = serve("gpt2", "text-generation", "transformers").url
    args = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 8}
    whole = ask_in_javascript(url, "chatCompletion", args)["choices"][0]["message"]["content"]
    pieces = ask_in_javascript(url, "chatCompletionStream", args)
    assert whole and "".join(piece["choices"][0]["delta"]["content"] for piece in pieces) == whole
