"""Every documented call with made-up and broken input, by schemathesis: answered as documented, and never 500."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case
from schemathesis.checks import positive_data_acceptance
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.schemas import APIOperation, BaseSchema

from constellation_docker_tests.fixtures.gateway import QueuedDagster, RunningGateway, running_gateway

EXAMPLES = 12
NOT_FUZZED = r"^/ready$|/(logs|events)/$"
"""Without a daemon nothing is ready; streams never end by themselves, and their own tests read them."""

# A model that nobody registered is 404, a second deployment of it 409: right input is not always accepted.
NOT_CHECKED = [positive_data_acceptance]


@pytest.fixture(scope="module")
def fuzzed(queued: QueuedDagster) -> Iterator[RunningGateway]:
    """A gateway that waits for no deletion: no daemon carries one out."""
    known = queued.settings.gateway.model_copy(update={"delete_wait_seconds": 0})
    with running_gateway(queued.settings.model_copy(update={"gateway": known})) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def documented(fuzzed: RunningGateway) -> BaseSchema:
    """The OpenAPI document, as the gateway serves it."""
    schema = schemathesis.openapi.from_url(f"{fuzzed.url}/openapi.json", headers=fuzzed.headers("viewer"))
    schema.config.update(base_url=fuzzed.url)
    return schema


def fuzz(operation: APIOperation, headers: dict[str, str]) -> None:
    """Send made-up calls of one operation, and hold each answer against the document."""

    @given(case=operation.as_strategy())
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def send(case: Case) -> None:
        case.call_and_validate(headers=headers, excluded_checks=NOT_CHECKED, timeout=60)

    send()


def test_every_call_is_answered_as_documented(documented: BaseSchema, fuzzed: RunningGateway) -> None:
    operations = [result.ok() for result in documented.exclude(path_regex=NOT_FUZZED).get_all_operations()]
    assert len(operations) >= 14
    problems = []
    for operation in operations:
        try:
            fuzz(operation, fuzzed.headers("admin"))
        except FailureGroup as failures:
            problems += [f"{operation.label}: {problem}" for problem in failures.exceptions]
        except Failure as problem:
            problems.append(f"{operation.label}: {problem}")
    assert not problems, "\n".join(problems)
