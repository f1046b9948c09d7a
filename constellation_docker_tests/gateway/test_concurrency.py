"""200 calls at the same time, to two gateways before one real webserver: as many runs as there should be."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from constellation_docker.cards import ModelCard
from constellation_docker.gateway.dagster_client import Run
from constellation_docker_tests.cards.conftest import make_publication
from constellation_docker_tests.fixtures.gateway import QueuedDagster, RunningGateway, running_gateway

pytestmark = pytest.mark.slow

CALLERS = 200
PATIENCE_SECONDS = 300


@pytest.fixture(scope="module")
def gateways(gateway: RunningGateway, queued: QueuedDagster) -> Iterator[tuple[RunningGateway, ...]]:
    """Two gateways that know nothing of each other."""
    with running_gateway(queued.settings) as second:
        yield gateway, second


def publish(gateway: RunningGateway, count: int) -> list[str]:
    """The ids of so many models that are packaged."""
    mark = uuid.uuid4().hex[:8]
    with gateway.store() as store:
        made = []
        for number in range(count):
            card = ModelCard.from_registration(
                {
                    "model_name": f"many/{mark}-{number}",
                    "model_version": "1.0.0",
                    "repo_url": "https://git.example/acme/sentiment",
                    "branch": "main",
                    "model_card": {"description": "A classifier.", "data_used": "", "dependencies": []},
                }
            )
            row = store.add(card)
            store.publish(row.model_id, make_publication(row.model_id))
            made.append(row.model_id)
        return made


def deploy_all(gateways: tuple[RunningGateway, ...], model_ids: list[str]) -> list[str]:
    """Deploy all at the same time, each caller by one of the gateways; the runs that the answers name.

    A caller who is told to come back does so, as `Retry-After` says.
    """

    def deploy(number: int) -> str:
        gateway = gateways[number % len(gateways)]
        until = time.monotonic() + PATIENCE_SECONDS
        with httpx.Client(
            base_url=gateway.url, headers=gateway.headers(), timeout=90, trust_env=False
        ) as http:
            while True:
                answer = http.post(f"/docker/models/{model_ids[number]}/deploy/", json={"environment": "dev"})
                if answer.status_code != 503 or time.monotonic() > until:
                    assert answer.status_code == 202, answer.text
                    return str(answer.json()["run"]["run_id"])
                time.sleep(float(answer.headers["Retry-After"]))

    with ThreadPoolExecutor(len(model_ids)) as callers:
        return list(callers.map(deploy, range(len(model_ids))))


def runs_of(queued: QueuedDagster, tags: dict[str, str]) -> list[Run]:
    found: list[Run] = []
    while page := queued.client.runs(tags, limit=500, cursor=found[-1].run_id if found else None):
        found += page
    return found


def test_the_same_deployment_asked_for_200_times_at_once_is_one_run(
    gateways: tuple[RunningGateway, ...], queued: QueuedDagster
) -> None:
    (model_id,) = publish(gateways[0], 1)
    answered = deploy_all(gateways, [model_id] * CALLERS)
    runs = runs_of(queued, {"constellation/model_id": model_id})
    assert [run.run_id for run in runs] == [answered[0]]
    assert set(answered) == {answered[0]}


def test_200_deployments_asked_for_at_once_are_200_runs(
    gateways: tuple[RunningGateway, ...], queued: QueuedDagster
) -> None:
    model_ids = publish(gateways[0], CALLERS)
    answered = deploy_all(gateways, model_ids)
    wanted = set(model_ids)
    runs = [
        run
        for run in runs_of(queued, {"constellation/action": "deploy"})
        if run.tags["constellation/model_id"] in wanted
    ]
    assert Counter(run.tags["constellation/model_id"] for run in runs) == Counter(model_ids)
    assert {run.run_id for run in runs} == set(answered)


def test_twenty_models_asked_for_ten_times_each_at_once_are_twenty_runs(
    gateways: tuple[RunningGateway, ...], queued: QueuedDagster
) -> None:
    model_ids = publish(gateways[0], 20)
    answered = deploy_all(gateways, [model_id for model_id in model_ids for _ in range(10)])
    runs = [
        run
        for run in runs_of(queued, {"constellation/action": "deploy"})
        if run.tags["constellation/model_id"] in set(model_ids)
    ]
    assert Counter(run.tags["constellation/model_id"] for run in runs) == Counter(model_ids)
    assert set(answered) == {run.run_id for run in runs}
