"""10,000 model versions in the store and 100,000 runs in Dagster's storage: list and status read what they show."""

from __future__ import annotations

import json
import sqlite3
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine, event

from constellation_docker.cards import CardStore, ModelCard
from constellation_docker_tests.cards.conftest import make_publication
from constellation_docker_tests.fixtures.gateway import (
    QueuedDagster,
    RunningGateway,
    queued_dagster,
    running_gateway,
)

pytestmark = pytest.mark.slow

NAMES, VERSIONS, RUNS = 100, 100, 10
PAGE = 50
MOST_STATEMENTS = 12
MOST_QUERIES = 2
MOST_BYTES_FOR_EACH_ROW = 16_000


@dataclass
class Traffic:
    """What a call cost.

    Attributes:
        statements: SQL sent to the card store.
        queries: GraphQL documents sent to the webserver.
        answered_bytes: What came back.
    """

    statements: list[str] = field(default_factory=list)
    queries: list[str] = field(default_factory=list)
    answered_bytes: int = 0


@dataclass
class Crowd:
    """A gateway before a full store and a full Dagster.

    Attributes:
        gateway: The gateway.
        model_ids: All versions in the store.
        traffic: What is counted now.
    """

    gateway: RunningGateway
    model_ids: list[str]
    traffic: Traffic

    def cost_of(self, path: str) -> tuple[dict[str, object], Traffic]:
        """A call's answer, and what it cost."""
        self.traffic.statements.clear()
        self.traffic.queries.clear()
        self.traffic.answered_bytes = 0
        with self.gateway.client("viewer") as client:
            answer = client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json(), self.traffic


@contextmanager
def counting_proxy(target: str, traffic: Traffic) -> Iterator[str]:
    """A server that passes GraphQL on and counts it; its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            traffic.queries.append(json.loads(body)["query"])
            answer = httpx.post(target + "/graphql", content=body, headers={"Content-Type": "application/json"}, timeout=60, trust_env=False)  # fmt: skip
            traffic.answered_bytes += len(answer.content)
            self.send_response(answer.status_code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/ui"
    finally:
        server.shutdown()
        server.server_close()


def fill_store(queued: QueuedDagster) -> list[tuple[str, str, str]]:
    """Name, version and id of 10,000 published versions: a hundred registered, each copied a hundredfold by SQL."""
    made: list[tuple[str, str, str]] = []
    with CardStore.open(queued.settings.store_url) as store:
        for number in range(NAMES):
            card = ModelCard.from_registration(
                {
                    "model_name": f"crowd/model-{number:03}",
                    "model_version": "0",
                    "repo_url": "https://git.example/crowd/model",
                    "branch": "main",
                    "model_card": {"description": "A classifier.", "data_used": "", "dependencies": []},
                }
            )
            row = store.add(card)
            store.publish(row.model_id, make_publication(row.model_id))
            made.append((card.model_name, "0", row.model_id))
    copies = [
        (str(uuid.uuid4()), str(version), name) for name, _, _ in list(made) for version in range(1, VERSIONS)
    ]
    with closing(sqlite3.connect(queued.settings.home / "cards.db")) as database, database:
        database.executemany(
            """INSERT INTO model_cards (model_id, model_name, model_version, repo_url, branch, card, publication, published_at)
               SELECT ?1, model_name, ?2, repo_url, branch, card, json_set(publication, '$.model_id', ?1), published_at
               FROM model_cards WHERE model_name = ?3 AND model_version = '0'""",
            copies,
        )
    return made + [(name, version, model_id) for model_id, version, name in copies]


def fill_dagster(queued: QueuedDagster, models: list[tuple[str, str, str]], home: Path) -> None:
    """100,000 runs, each a copy of a real one with its own id, tags and times."""
    run_id = queued.client.package("crowd/template@1")
    with closing(sqlite3.connect(home / "dagster" / "history" / "runs.db", timeout=60)) as database, database:
        columns = "snapshot_id, pipeline_name, create_timestamp, update_timestamp, run_body"
        *fixed, text = database.execute(f"SELECT {columns} FROM runs WHERE run_id = ?", (run_id,)).fetchone()
        runs: list[tuple[object, ...]] = []
        tags: list[tuple[str, str, str]] = []
        for name, version, model_id in models:
            for _ in range(RUNS):
                own = str(uuid.uuid4())
                mine = {
                    "constellation/action": "package",
                    "constellation/model_id": model_id,
                    "constellation/model": name,
                    "constellation/version": version,
                    "dagster/partition": f"{name}@{version}",
                }
                body = json.loads(text.replace(run_id, own))
                body["tags"] = mine
                body["status"] = {"__enum__": "PipelineRunStatus.SUCCESS"}
                runs.append((own, *fixed, json.dumps(body), f"{name}@{version}"))
                tags += [(own, key, value) for key, value in mine.items()]
                tags.append((own, ".dagster/repository", "__repository__@constellation_docker"))
        database.executemany(
            f"INSERT INTO runs (run_id, {columns}, partition, status) VALUES (?, ?, ?, ?, ?, ?, ?, 'SUCCESS')",
            runs,
        )
        database.executemany('INSERT INTO run_tags (run_id, "key", value) VALUES (?, ?, ?)', tags)


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crowd]:
    """A gateway before all of that."""
    home = tmp_path_factory.mktemp("crowd")
    traffic = Traffic()
    with queued_dagster(home) as queued:
        models = fill_store(queued)
        fill_dagster(queued, models, home)
        with counting_proxy(queued.dagster.url, traffic) as address:
            known = queued.settings.gateway.model_copy(update={"webserver_url": address})
            with running_gateway(queued.settings.model_copy(update={"gateway": known})) as gateway:

                def count(_c: object, _cursor: object, statement: str, *_: object) -> None:
                    traffic.statements.append(statement)

                event.listen(Engine, "before_cursor_execute", count)
                try:
                    yield Crowd(gateway, [model_id for _, _, model_id in models], traffic)
                finally:
                    event.remove(Engine, "before_cursor_execute", count)


def check(traffic: Traffic, rows: int) -> None:
    print(
        len(traffic.statements),
        "statements",
        len(traffic.queries),
        "queries",
        traffic.answered_bytes,
        "bytes",
    )
    assert len(traffic.statements) <= MOST_STATEMENTS, traffic.statements
    assert len(traffic.queries) <= MOST_QUERIES, traffic.queries
    assert traffic.answered_bytes <= rows * MOST_BYTES_FOR_EACH_ROW
    assert not [query for query in traffic.queries if "assetPartitionStatuses" in query]


def test_a_page_costs_as_much_in_the_middle_of_10000_as_at_the_start(crowd: Crowd) -> None:
    crowd.cost_of("/docker/models/?limit=1")  # a key's first use is written down
    first, cost = crowd.cost_of(f"/docker/models/?limit={PAGE}")
    check(cost, PAGE)
    statements, queries = len(cost.statements), len(cost.queries)
    cursor = first["next_cursor"]
    for _ in range(5):
        page, cost = crowd.cost_of(f"/docker/models/?limit={PAGE}&cursor={cursor}")
        cursor = page["next_cursor"]
        assert len(page["models"]) == PAGE  # type: ignore[arg-type]
        assert (len(cost.statements), len(cost.queries)) == (statements, queries)
        check(cost, PAGE)


@pytest.mark.parametrize("selection", ["name=crowd/model-050", "search=model-050", "status=packaged"])
def test_a_selection_costs_no_more_than_a_page(crowd: Crowd, selection: str) -> None:
    found, cost = crowd.cost_of(f"/docker/models/?limit={PAGE}&{selection}")
    assert len(found["models"]) == PAGE  # type: ignore[arg-type]
    check(cost, PAGE)


def test_a_status_costs_a_few_statements_and_one_query(crowd: Crowd) -> None:
    found, cost = crowd.cost_of(f"/docker/models/{crowd.model_ids[5000]}/status/")
    assert found["status"] == "packaged"
    check(cost, 2 * RUNS)


def test_all_pages_together_hold_every_version_once(crowd: Crowd) -> None:
    seen: list[str] = []
    cursor = ""
    while True:
        page, _ = crowd.cost_of(f"/docker/models/?limit=200{cursor}")
        seen += [item["model_id"] for item in page["models"]]  # type: ignore[attr-defined]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert sorted(seen) == sorted(crowd.model_ids)
