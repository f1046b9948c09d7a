"""Every task does what its own OpenAPI document says, whatever is sent, and its server stays up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from constellation_docker_tests.fixtures.model_server import ServedModel, ServeModel

TinyModel = Callable[[str], Path]
MODELS = [
    ("text-classification", "classifier", "onnx"),
    ("token-classification", "tagger", "onnx"),
    ("zero-shot-classification", "nli", "onnx"),
    ("feature-extraction", "encoder", "onnx"),
    ("sentence-similarity", "sentence", "onnx"),
    ("fill-mask", "masked", "onnx"),
    ("image-classification", "vit", "onnx"),
    ("tabular-classification", "table-classifier", "onnx"),
    ("tabular-regression", "table-regressor", "onnx"),
]
SLOW_MODELS = [
    ("text-generation", "gpt2", "transformers"),
    ("object-detection", "detector", "transformers"),
    ("automatic-speech-recognition", "speech", "transformers"),
]
# Not whether a request that fits its schema is accepted: a text without a mask fits, and cannot be answered.
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@pytest.fixture(
    params=[
        *(pytest.param(model, id=model[0]) for model in MODELS),
        *(pytest.param(model, id=model[0], marks=pytest.mark.slow) for model in SLOW_MODELS),
    ]
)
def server(request: pytest.FixtureRequest, serve_model: ServeModel, tiny_model: TinyModel) -> ServedModel:
    task, name, runtime = request.param
    return serve_model(tiny_model(name), task=task, runtime=runtime)


def quick(examples: int) -> settings:
    return settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))


def test_every_route_of_a_task_does_what_the_document_says(server: ServedModel) -> None:
    document = server.get("/openapi.json").json()
    for operations in document["paths"].values():
        operations.pop("get", None)  # the same for every task, and tested without one
    document["paths"] = {
        path: item for path, item in document["paths"].items() if item and path != "/predict"
    }
    api = schemathesis.openapi.from_dict(document)
    api.config.update(base_url=server.url, request_timeout=120)
    labels = []
    for result in api.get_all_operations():
        operation = result.ok()
        labels.append(operation.label)
        for mode in GenerationMode:

            @quick(12)
            @given(case=operation.as_strategy(generation_mode=mode))
            def check(case: Case) -> None:
                case.call_and_validate(checks=CHECKS)

            check()
    assert "POST /" in labels
    assert server.get("/ready").status_code == 200


def test_any_bytes_under_any_content_type_are_the_clients_fault(server: ServedModel) -> None:
    types = st.sampled_from(
        [None, "application/json", "image/png", "audio/wav", "application/octet-stream", "text/plain", "a/b"]
    )

    beginnings = st.sampled_from(
        [b"", b'{"inputs": "', b"\x89PNG\r\n\x1a\n", b"RIFF\x24\x00\x00\x00WAVEfmt ", b"\xff\xd8\xff\xe0"]
    )

    @quick(25)
    @given(content=st.binary(max_size=200), beginning=beginnings, content_type=types)
    def check(content: bytes, beginning: bytes, content_type: str | None) -> None:
        headers = {"content-type": content_type} if content_type else {}
        answer = server.post(content=beginning + content, headers=headers)
        assert answer.status_code == 200 or 400 <= answer.status_code < 500, answer.text
        if answer.status_code != 200:
            assert set(answer.json()) == {"error", "error_type"}

    check()
    assert server.get("/ready").status_code == 200
