"""Dagster's UI behind the gateway: a real webserver, reached with keys of every role, over HTTP and websockets."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import AsyncExitStack, suppress
from typing import Any

import httpx
import pytest
import websockets
from websockets.asyncio.client import connect

from constellation_docker_tests.fixtures.gateway import QueuedDagster, RunningGateway, running_gateway

LAUNCH = """
mutation LaunchPipelineExecution($executionParams: ExecutionParams!) {
  launchPipelineExecution(executionParams: $executionParams) {
    __typename
    ... on LaunchRunSuccess { run { id } }
    ... on PythonError { message }
  }
}"""
TERMINATE = "mutation Terminate($id: String!) { terminateRun(runId: $id) { __typename } }"
VERSION = "query Version { version }"


def launch(job: str, partition: str | None = None, **selector: Any) -> dict[str, Any]:
    """A launch as the UI sends it, with a requester that is not the caller."""
    tags = [{"key": "constellation/requested_by", "value": "somebody else"}]
    if partition:
        tags.append({"key": "dagster/partition", "value": partition})
    return {
        "query": LAUNCH,
        "operationName": "LaunchPipelineExecution",
        "variables": {
            "executionParams": {
                "selector": {
                    "repositoryLocationName": "constellation_docker",
                    "repositoryName": "__repository__",
                    "pipelineName": job,
                    **selector,
                },
                "mode": "default",
                "runConfigData": {},
                "executionMetadata": {"tags": tags},
            }
        },
    }


def ask(gateway: RunningGateway, body: Any, role: str = "operator", **headers: str) -> httpx.Response:
    with gateway.client(role) as client:
        return client.post("/ui/graphql", json=body, headers=headers)


def runs_of(queued: QueuedDagster) -> set[str]:
    return {run.run_id for run in queued.client.runs({}, limit=1000)}


def audit_lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, str]]:
    return [json.loads(item.getMessage()) for item in caplog.records if item.name == "constellation.audit"]


@pytest.mark.parametrize(
    "path", ["/ui/", "/ui/assets", "/ui/runs/x?tab=1", "/ui/favicon.ico", "/ui/server_info"]
)
@pytest.mark.parametrize("role", ["viewer", "operator", "admin"])
def test_everybody_with_a_key_sees_pages_and_files(gateway: RunningGateway, role: str, path: str) -> None:
    with gateway.client(role) as client:
        assert client.get(path).status_code == 200


def test_the_pages_links_and_files_lie_below_the_same_path(gateway: RunningGateway) -> None:
    with gateway.client("viewer") as client:
        page = client.get("/ui/").text
        script = page.split('src="/ui/_next/')[1].split('"')[0]
        answer = client.get(f"/ui/_next/{script}")
        assert answer.status_code == 200
        assert "javascript" in answer.headers["content-type"]
        unchanged = client.get(f"/ui/_next/{script}", headers={"If-None-Match": answer.headers["etag"]})
        assert unchanged.status_code == 304
        assert client.head("/ui/assets").status_code == 200


def test_nobody_unknown_sees_anything(gateway: RunningGateway) -> None:
    for headers in ({}, {"Authorization": "Bearer constellation_000000000000_00"}):
        with httpx.Client(base_url=gateway.url, headers=headers, trust_env=False) as client:
            for path in ("/ui", "/ui/", "/ui/assets", "/ui/graphql?query={version}", "/ui/server_info"):
                assert client.get(path).status_code == 401, path
            assert client.post("/ui/graphql", json={"query": VERSION}).status_code == 401


def test_a_browser_that_is_not_logged_in_is_sent_to_the_login(gateway: RunningGateway) -> None:
    headers = {"Accept": "text/html,*/*", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    answer = httpx.get(f"{gateway.url}/ui/runs/x?tab=1", headers=headers, trust_env=False)
    assert answer.status_code == 303
    assert answer.headers["location"] == "/login?next=%2Fui%2Fruns%2Fx%3Ftab%3D1"


def test_the_webserver_sees_no_key_and_the_browser_none_of_its_own_headers(gateway: RunningGateway) -> None:
    with gateway.client("viewer") as client:
        answer = client.get("/ui/server_info")
    assert not {"x-dagster-call-counts", "connection"} & set(answer.headers)
    assert len(answer.headers.get_list("server")) <= 1
    assert len(answer.headers.get_list("date")) == 1


@pytest.mark.parametrize("role", ["viewer", "operator", "admin"])
def test_questions_pass(gateway: RunningGateway, role: str) -> None:
    assert ask(gateway, {"query": VERSION}, role).json()["data"]["version"] == "1.13.27"
    with gateway.client(role) as client:
        asked = client.get("/ui/graphql", params={"query": "{ version }"})
    assert asked.json() == {"data": {"version": "1.13.27"}}


def test_an_error_inside_a_question_is_passed_on_as_graphql_tells_it(gateway: RunningGateway) -> None:
    answer = ask(gateway, {"query": "{ nonsense }"})
    assert answer.status_code == 400
    assert "Cannot query field 'nonsense'" in answer.json()["errors"][0]["message"]


def test_a_viewer_starts_nothing(
    gateway: RunningGateway, queued: QueuedDagster, caplog: pytest.LogCaptureFixture
) -> None:
    before = runs_of(queued)
    with caplog.at_level(logging.INFO, "constellation.audit"):
        for body in (
            launch("package_model", "a@1"),
            {"query": "query Q { version } " + LAUNCH, "operationName": "Q", "variables": {}},
            {"query": "mutation { ...F } fragment F on Mutation { reloadWorkspace { __typename } }"},
        ):
            answer = ask(gateway, body, "viewer")
            assert answer.status_code == 403, answer.text
            assert answer.json()["error"]["code"] == "forbidden"
            assert "viewer" in answer.json()["errors"][0]["message"]
    assert runs_of(queued) == before
    lines = audit_lines(caplog)
    assert [(line["outcome"], line["who"]) for line in lines] == [("denied", "viewer")] * 3


def test_an_operator_starts_and_ends_runs_in_their_own_name(
    gateway: RunningGateway, queued: QueuedDagster, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "constellation.audit"):
        answer = ask(gateway, launch("package_model", "a@1"))
        run_id = answer.json()["data"]["launchPipelineExecution"]["run"]["id"]
    run = queued.client.run(run_id)
    assert run is not None
    assert run.tags["constellation/requested_by"] == "operator"
    assert run.tags["dagster/partition"] == "a@1"
    lines = audit_lines(caplog)
    assert [line["outcome"] for line in lines] == ["allowed", "done"]
    assert lines[1]["run_id"] == run_id
    assert lines[1]["subject"] == "LaunchPipelineExecution: launchPipelineExecution"
    ended = ask(gateway, {"query": TERMINATE, "variables": {"id": run_id}})
    assert ended.json()["data"]["terminateRun"]["__typename"] == "TerminateRunSuccess"


def test_an_operator_deploys_where_they_may_and_nowhere_else(
    gateway: RunningGateway, queued: QueuedDagster
) -> None:
    assert ask(gateway, launch("deploy_model", "dev|a")).status_code == 200
    before = runs_of(queued)
    assert ask(gateway, launch("deploy_model", "production|a")).status_code == 403
    assert ask(gateway, launch("delete_model")).status_code == 403
    assert ask(gateway, {"query": 'mutation { deleteRun(runId: "x") { __typename } }'}).status_code == 403
    assert runs_of(queued) == before


def test_an_operator_does_not_end_a_run_of_a_protected_environment(
    gateway: RunningGateway, queued: QueuedDagster
) -> None:
    answer = ask(gateway, launch("deploy_model", "production|a"), "admin")
    run_id = answer.json()["data"]["launchPipelineExecution"]["run"]["id"]
    ending = {"query": TERMINATE, "variables": {"id": run_id}}
    assert ask(gateway, ending).status_code == 403
    repeating = (
        "mutation($p: ReexecutionParams) { launchRunReexecution(reexecutionParams: $p) { __typename } }"
    )
    again = {"query": repeating, "variables": {"p": {"parentRunId": run_id, "strategy": "ALL_STEPS"}}}
    assert ask(gateway, again).status_code == 403
    assert ask(gateway, ending, "admin").status_code == 200


@pytest.mark.parametrize("role", ["viewer", "operator", "admin"])
def test_nobody_changes_anything_over_get(gateway: RunningGateway, queued: QueuedDagster, role: str) -> None:
    before = runs_of(queued)
    body = launch("package_model", "a@1")
    parameters = {"query": body["query"], "variables": json.dumps(body["variables"])}
    with gateway.client(role) as client:
        assert client.get("/ui/graphql", params=parameters).status_code == 405
        assert client.get("/ui//graphql", params=parameters).json is not None
        # The page for trying queries is shown, and what stands in its address is not carried out.
        page = client.get("/ui/graphql", params=parameters, headers={"Accept": "text/html"})
        assert "GraphiQL" in page.text
        assert client.head("/ui/graphql", params=parameters).status_code == 405
    assert runs_of(queued) == before


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("application/graphql", LAUNCH),
        ("text/plain", LAUNCH),
        ("text/plain; application/json", json.dumps(launch("package_model", "a@1"))),
        ("application/x-www-form-urlencoded", "query=mutation{launchRun{__typename}}"),
        ("multipart/form-data; boundary=x", '--x\r\nContent-Disposition: form-data; name="operations"\r\n\r\n{}\r\n--x--'),
        ("", json.dumps(launch("package_model", "a@1"))),
        ("application/json", json.dumps([launch("package_model", "a@1")])),
        ("application/json", '{"query": "{ version }", "query": ["mutation"]}'),
        ("application/json", "not json"),
        ("application/json", json.dumps({"extensions": {"persistedQuery": {"version": 1, "sha256Hash": "0"}}})),
    ],
)  # fmt: skip
def test_only_one_plain_operation_in_json_is_passed_on(
    gateway: RunningGateway, queued: QueuedDagster, kind: str, content: str
) -> None:
    before = runs_of(queued)
    # The webserver would read the address of a POST that is not JSON.
    body = launch("package_model", "a@1")
    parameters = {"query": body["query"], "variables": json.dumps(body["variables"])}
    with gateway.client("admin") as client:
        answer = client.post(
            "/ui/graphql", params=parameters, content=content, headers={"Content-Type": kind}
        )
    assert answer.status_code in {400, 415}, answer.text
    assert runs_of(queued) == before


def test_a_body_that_is_too_long_is_refused(gateway: RunningGateway) -> None:
    with gateway.client() as client:
        longest = gateway.settings.gateway.max_body_bytes
        answer = client.post("/ui/graphql", json={"query": "{ version }", "variables": {"a": "x" * longest}})
    assert answer.status_code == 413


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    "path",
    [
        "/ui/report_asset_materialization/model_card",
        "/ui/%72eport_asset_check/model_card",
        "/ui/report_asset_observation/model_card",
        "/ui//report_asset_materialization/model_card",
        "/ui/graphql/../report_asset_materialization/model_card",
        "/ui/graphql/",
        "/ui/assets",
    ],
)
def test_nothing_else_that_changes_something_is_passed_on(
    gateway: RunningGateway, method: str, path: str
) -> None:
    with gateway.client("admin") as client:
        answer = client.request(method, path, params={"partition": "a@1"})
    assert answer.status_code in {404, 405}, answer.text


@pytest.mark.parametrize(
    "path",
    [
        "/ui/logs/..%2f..%2fdagster.yaml",
        "/ui/logs/%2e%2e/%2e%2e/dagster.yaml",
        "/ui/a%5cb",
        "/ui/a%00",
        "/ui/notebook?path=/x.ipynb",
    ],
)
def test_no_path_leads_out(gateway: RunningGateway, path: str) -> None:
    with gateway.client("admin") as client:
        assert client.get(path).status_code == 404


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
    ],
)
def test_what_another_sites_page_sends_is_refused(
    gateway: RunningGateway, queued: QueuedDagster, headers: dict[str, str]
) -> None:
    before = runs_of(queued)
    answer = ask(gateway, launch("package_model", "a@1"), "admin", **headers)
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "cross_site"
    assert runs_of(queued) == before
    assert ask(gateway, {"query": VERSION}, "admin", Origin=gateway.url).status_code == 200


def test_a_link_on_another_site_may_lead_to_a_page_and_an_image_may_not(gateway: RunningGateway) -> None:
    navigation = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    with gateway.client("viewer") as client:
        assert client.get("/ui/assets", headers=navigation).status_code == 200
        image = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
        assert client.get("/ui/assets", headers=image).status_code == 403
        framed = navigation | {"Sec-Fetch-Dest": "iframe"}
        assert client.get("/ui/assets", headers=framed).status_code == 403


class Conversation:
    """The UI's websocket, as its client speaks."""

    def __init__(self, gateway: RunningGateway, role: str, **headers: str) -> None:
        self._connecting = connect(
            gateway.url.replace("http", "ws") + "/ui/graphql",
            additional_headers={**(gateway.headers(role) if role else {}), **headers},
            subprotocols=[websockets.Subprotocol("graphql-ws")],
            proxy=None,
        )

    async def say(self, *messages: dict[str, Any], until: str) -> dict[str, Any]:
        """Send messages, and give the first answer of a kind."""
        async with self._connecting as socket:
            for message in messages:
                await socket.send(json.dumps(message))
            while True:
                answer = json.loads(await asyncio.wait_for(socket.recv(), 30))
                if answer["type"] == until:
                    return dict(answer)


LOGS = "subscription Logs($id: ID!) { pipelineRunLogs(runId: $id) { __typename ... on PipelineRunLogsSubscriptionSuccess { messages { __typename } } } }"


def start(query: str, **variables: Any) -> dict[str, Any]:
    return {"id": "1", "type": "start", "payload": {"query": query, "variables": variables}}


def test_a_viewer_follows_a_runs_log_over_the_websocket(
    gateway: RunningGateway, queued: QueuedDagster
) -> None:
    run_id = queued.client.package("followed@1")
    talk = Conversation(gateway, "viewer", Origin=gateway.url)
    answer = asyncio.run(talk.say({"type": "connection_init"}, start(LOGS, id=run_id), until="data"))
    messages = answer["payload"]["data"]["pipelineRunLogs"]["messages"]
    assert {"__typename": "RunEnqueuedEvent"} in messages


@pytest.mark.parametrize("role", ["viewer", "operator", "admin"])
def test_nobody_changes_anything_over_the_websocket(
    gateway: RunningGateway, queued: QueuedDagster, role: str
) -> None:
    before = runs_of(queued)
    body = launch("package_model", "a@1")
    message = start(str(body["query"]), **body["variables"])
    answer = asyncio.run(Conversation(gateway, role).say(message, until="error"))
    assert "Mutations are not taken" in answer["payload"]["message"]
    assert runs_of(queued) == before


@pytest.mark.parametrize(
    ("role", "headers", "status"),
    [
        ("", {}, 401),
        ("", {"Authorization": "Bearer constellation_000000000000_00"}, 401),
        ("admin", {"Origin": "https://evil.example"}, 403),
        ("admin", {"Sec-Fetch-Site": "cross-site"}, 403),
    ],
)
def test_a_websocket_of_nobody_or_of_another_site_is_not_opened(
    gateway: RunningGateway, role: str, headers: dict[str, str], status: int
) -> None:
    with pytest.raises(websockets.InvalidStatus) as refused:
        asyncio.run(Conversation(gateway, role, **headers).say(start(LOGS), until="data"))
    assert refused.value.response.status_code == status


def test_no_more_websockets_are_open_than_one_caller_and_all_together_may_have(queued: QueuedDagster) -> None:
    most = {"max_websockets": 3, "max_websockets_per_caller": 2}
    known = queued.settings.gateway.model_copy(update=most)
    settings = queued.settings.model_copy(update={"gateway": known})

    async def refused(gateway: RunningGateway, role: str) -> tuple[int, str]:
        with pytest.raises(websockets.InvalidStatus) as error:
            await Conversation(gateway, role).say(until="data")
        answer = error.value.response
        assert answer.headers["Retry-After"]
        return answer.status_code, json.loads(answer.body)["error"]["message"].partition(" open")[0]

    async def talk(gateway: RunningGateway) -> None:
        url = gateway.url.replace("http", "ws") + "/ui/graphql"

        def opened(role: str) -> connect:
            return connect(url, additional_headers=gateway.headers(role), proxy=None)

        async with AsyncExitStack() as held:
            first = await held.enter_async_context(opened("viewer"))
            await held.enter_async_context(opened("viewer"))
            assert await refused(gateway, "viewer") == (429, "You have 2 websockets")
            await held.enter_async_context(opened("admin"))
            assert await refused(gateway, "operator") == (503, "Too many websockets are")
            await first.close()
            while True:  # the gateway hears of the end a moment later
                with suppress(websockets.InvalidStatus):
                    await held.enter_async_context(opened("operator"))
                    break

    with running_gateway(settings) as gateway:
        asyncio.run(asyncio.wait_for(talk(gateway), 60))


@pytest.mark.parametrize(
    "text", ["not json", json.dumps(start("{ version")), json.dumps({"id": 1, "type": "start"})]
)
def test_a_message_that_cannot_be_read_ends_the_conversation(gateway: RunningGateway, text: str) -> None:
    async def talk() -> int | None:
        url = gateway.url.replace("http", "ws") + "/ui/graphql"
        async with connect(url, additional_headers=gateway.headers("admin"), proxy=None) as socket:
            await socket.send(text)
            await asyncio.wait_for(socket.wait_closed(), 30)
            return socket.close_code

    assert asyncio.run(talk()) == 1008
