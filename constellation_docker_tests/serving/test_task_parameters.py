"""What a task does not take is refused by name, in one sentence, and nothing else changes for anyone."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from constellation_docker.serving.config import Config, Options
from constellation_docker.serving.loading import load_model
from constellation_docker.serving.model import Model, Request, ServingError
from constellation_docker.serving.strict_json import render_json
from constellation_docker_tests.fixtures.model_server import ServedModel, ServeModel

TinyModel = Callable[[str], Path]
TASKS = {
    "text-classification": "classifier",
    "zero-shot-classification": "nli",
    "token-classification": "tagger",
    "fill-mask": "masked",
    "feature-extraction": "encoder",
    "sentence-similarity": "sentence",
}


@pytest.fixture(scope="module")
def classifier(serve_model: ServeModel, tiny_model: TinyModel) -> ServedModel:
    return serve_model(tiny_model("classifier"), task="text-classification", runtime="onnx")


@pytest.fixture(scope="module")
def load(tiny_model: TinyModel) -> Callable[[str], Model]:
    loaded: dict[str, Model] = {}

    def find(task: str) -> Model:
        if task not in loaded:
            path = tiny_model(TASKS[task])
            loaded[task] = load_model(
                Config(task=task, runtime="onnx", model_path=path, options=Options(threads=1))
            )
        return loaded[task]

    return find


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"inputs": "good", "parameters": {"topk": 2}}, 422, "'topk'"),
        ({"inputs": "good", "parameters": {"top_k": "two"}}, 422, "`top_k` must be a whole number"),
        ({"inputs": "good", "parameters": {"top_k": True}}, 422, "`top_k`"),
        ({"inputs": "good", "parameters": {"top_k": 0}}, 422, "at least 1"),
        (
            {"inputs": "good", "parameters": {"function_to_apply": "relu"}},
            422,
            "'sigmoid', 'softmax', 'none'",
        ),
        ({"inputs": "good", "parameters": [1]}, 422, "`parameters` must be an object"),
        ({"inputs": 3}, 422, "`inputs` must be a string"),
        ({"inputs": ["good", None]}, 422, "`inputs` must be a string"),
        ({"inputs": []}, 422, "empty list"),
        ({"inputs": {"text": "a", "pair": "b"}}, 422, "text_pair"),
        ({"text": "good"}, 422, "'text'"),
        ({"parameters": {}}, 422, "`inputs` is missing"),
        (["good"], 422, "must be a JSON object"),
        ({"inputs": ["good"] * 3000}, 422, "2048"),
    ],
)
def test_wrong_requests_are_refused_by_name(
    classifier: ServedModel, body: Any, status: int, says: str
) -> None:
    answer = classifier.post(body)
    assert answer.status_code == status
    assert says in answer.json()["error"]
    assert answer.json()["error_type"] == "validation"


def test_a_content_type_that_is_not_json_is_refused(classifier: ServedModel) -> None:
    answer = classifier.post(content=b"<xml/>", headers={"content-type": "application/xml"})
    assert answer.status_code == 415
    assert "application/xml" in answer.json()["error"]


@pytest.mark.parametrize(
    "content_type",
    [None, "application/json; charset=utf-8", "application/x-www-form-urlencoded", "text/plain"],
)
def test_json_is_taken_however_clients_label_it(classifier: ServedModel, content_type: str | None) -> None:
    body = b"good movie" if content_type == "text/plain" else b'{"inputs": "good movie"}'
    headers = {"content-type": content_type} if content_type else {}
    assert classifier.post(content=body, headers=headers).json()[0][0]["label"]


def test_a_parameter_of_null_counts_as_absent(classifier: ServedModel) -> None:
    body = {
        "inputs": "good",
        "parameters": {"top_k": None, "function_to_apply": None},
        "options": {"use_cache": False},
    }
    assert len(classifier.post(body).json()[0]) == 3


def test_neighbours_of_a_bad_call_in_the_same_batch_get_their_answers(classifier: ServedModel) -> None:
    expected = classifier.post({"inputs": "good movie"}).json()
    bodies = [
        {"inputs": "good movie"},
        {"inputs": ["bad", 1]},
        {"inputs": "good movie"},
        {"inputs": "x" * 5000},
    ] * 20
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(classifier.post, bodies))
    assert [answer.status_code for answer in answers] == [200, 422, 200, 200] * 20
    for answer in answers[::4]:
        scores = [item["score"] for item in answer.json()[0]]
        assert scores == pytest.approx([item["score"] for item in expected[0]], abs=1e-6)


def values() -> st.SearchStrategy[Any]:
    scalars = (
        st.none()
        | st.booleans()
        | st.integers(-(2**40), 2**40)
        | st.floats(allow_nan=False)
        | st.text(max_size=40)
    )
    return st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
        max_leaves=8,
    )


def bodies() -> st.SearchStrategy[Any]:
    names = [
        "top_k",
        "candidate_labels",
        "multi_label",
        "hypothesis_template",
        "aggregation_strategy",
        "stride",
    ]
    texts = st.text(max_size=60) | st.just("the [MASK] was good") | st.lists(st.text(max_size=20), max_size=3)
    comparison = st.fixed_dictionaries(
        {"source_sentence": st.text(max_size=20), "sentences": st.lists(st.text(max_size=9))}
    )
    labels = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=3)
    parameters = st.dictionaries(st.sampled_from(names), values(), max_size=2) | st.fixed_dictionaries(
        {"candidate_labels": labels}
    )
    return (
        st.fixed_dictionaries(
            {"inputs": texts | comparison | values()},
            optional={"parameters": parameters, "normalize": values(), "dimensions": values()},
        )
        | values()
    )


@pytest.mark.parametrize("task", list(TASKS))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_comes_the_answer_is_json_or_the_clients_fault(load, task: str, data: st.DataObject) -> None:
    model = load(task)
    body = json.dumps(data.draw(bodies())).encode()
    try:
        answer = model.run([model.parse(Request(body))])[0]
    except ServingError as problem:
        answer = problem
    if isinstance(answer, ServingError):
        assert 400 <= answer.status < 500, answer.message
    else:
        json.loads(render_json(answer))
