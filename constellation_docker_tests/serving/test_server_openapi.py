"""The server does what its own OpenAPI document says, for requests that fit it and for those that do not."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import BaseSchema, Case, GenerationMode

from constellation_docker_tests.fixtures.inference_server import InferenceServer


@pytest.fixture(scope="module")
def api(echo_server: InferenceServer) -> BaseSchema:
    return schemathesis.openapi.from_url(echo_server.url + "/openapi.json")


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_every_operation_does_what_the_document_says(api: BaseSchema, mode: GenerationMode) -> None:
    labels = []
    for result in api.get_all_operations():
        operation = result.ok()
        if mode is GenerationMode.NEGATIVE and operation.method.upper() == "GET":
            continue  # there is nothing to get wrong
        labels.append(operation.label)

        @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode))
        def check(case: Case) -> None:
            case.call_and_validate()

        check()
    assert "POST /" in labels


def test_the_document_is_valid_openapi(api: BaseSchema) -> None:
    api.validate()
    raw: Any = api.raw_schema
    identifiers = [o["operationId"] for p in raw["paths"].values() for o in p.values() if "operationId" in o]
    assert len(set(identifiers)) == len(identifiers)
