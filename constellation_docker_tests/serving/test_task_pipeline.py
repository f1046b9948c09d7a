"""Tasks that transformers' own pipelines compute: Whisper's long sounds, and what no adapter of ours knows."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from constellation_docker.serving.config import Config, Options
from constellation_docker.serving.loading import load_model
from constellation_docker.serving.model import Model, Request, ServingError
from constellation_docker.serving.tasks.sound import encode_wav
from constellation_docker_tests.serving.test_task_image import picture
from constellation_docker_tests.serving.test_task_sound import tone

TinyModel = Callable[[str], Path]


@pytest.fixture(scope="module")
def load(tiny_model: TinyModel) -> Callable[[str, str], Model]:
    loaded: dict[str, Model] = {}

    def find(name: str, task: str) -> Model:
        if name not in loaded:
            config = Config(
                task=task, runtime="transformers", model_path=tiny_model(name), options=Options(threads=2)
            )
            loaded[name] = load_model(config)
            loaded[name].warm_up()
        return loaded[name]

    return find


def ask(model: Model, content: bytes, parameters: dict[str, Any] | None = None) -> Any:
    body = content
    if parameters is not None:
        body = json.dumps({"inputs": base64.b64encode(content).decode(), "parameters": parameters}).encode()
    try:
        (answer,) = model.run([model.parse(Request(body))])
    except ServingError as problem:
        return problem
    return answer


def test_whisper_hears_sounds_longer_than_its_window(load) -> None:
    model = load("whisper", "automatic-speech-recognition")
    long = encode_wav(np.tile(tone(seconds=1.0), 33), 16_000)
    answer = ask(model, long)
    assert set(answer) == {"text"}
    timed = ask(model, long, {"return_timestamps": True})
    assert timed["text"] == answer["text"]
    assert timed["chunks"] and {"timestamp", "text"} <= timed["chunks"][0].keys()


def test_whisper_takes_language_and_task(load) -> None:
    model = load("whisper", "automatic-speech-recognition")
    short = encode_wav(tone(), 16_000)
    assert "text" in ask(model, short, {"generate_kwargs": {"task": "translate", "max_new_tokens": 5}})
    refused = ask(model, short, {"generate_kwargs": {"language": "klingon"}})
    assert isinstance(refused, ServingError) and refused.status == 422
    assert "klingon" in refused.message


def test_sounds_are_classified_at_any_rate(load) -> None:
    model = load("sound-classifier", "audio-classification")
    one = ask(model, encode_wav(tone(), 16_000))
    other = ask(model, encode_wav(tone(48_000), 48_000), {"top_k": 2})
    assert [item["label"] for item in one] == [item["label"] for item in other]
    assert one[0]["score"] == pytest.approx(other[0]["score"], abs=0.02)


def test_images_are_classified_by_labels_of_the_request(load) -> None:
    model = load("clip", "zero-shot-image-classification")
    answer = ask(model, picture(), {"candidate_labels": ["cat", "dog", "bird"]})
    assert {item["label"] for item in answer} == {"cat", "dog", "bird"}
    assert sum(item["score"] for item in answer) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "task", "content", "parameters", "says"),
    [
        ("clip", "zero-shot-image-classification", picture(), None, "`candidate_labels` is missing"),
        (
            "clip",
            "zero-shot-image-classification",
            picture(),
            {"candidate_labels": ["a"], "timeout": 1},
            "'timeout'",
        ),
        (
            "clip",
            "zero-shot-image-classification",
            b"/etc/passwd",
            {"candidate_labels": ["a"]},
            "not an image",
        ),
        ("sound-classifier", "audio-classification", b"/etc/passwd", {}, "not a sound"),
        ("sound-classifier", "audio-classification", encode_wav(tone(), 16_000), {"top_k": 0}, "`top_k`"),
    ],
)
def test_what_would_reach_a_file_or_the_network_or_is_wrong_is_refused(
    load, name: str, task: str, content: bytes, parameters: dict[str, Any] | None, says: str
) -> None:
    refused = ask(load(name, task), content, parameters)
    assert isinstance(refused, ServingError)
    assert 400 <= refused.status < 500
    assert says in refused.message
