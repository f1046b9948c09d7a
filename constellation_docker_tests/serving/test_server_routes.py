"""Every route as a client sees it."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha256

import httpx
import pytest

from constellation_docker_tests.fixtures.deadline import wait_for
from constellation_docker_tests.fixtures.inference_server import InferenceServer, StartServer


@pytest.fixture(scope="module")
def client(echo_server: InferenceServer) -> Iterator[httpx.Client]:
    with echo_server.client() as client:
        yield client


@pytest.mark.parametrize("path", ["/", "/predict", "/?trace=1"])
def test_the_model_answers_at_the_root_and_at_predict(client: httpx.Client, path: str) -> None:
    response = client.post(path, json={"inputs": "hello"})
    assert response.status_code == 200
    assert response.json()["echo"] == "hello"


@pytest.mark.parametrize("content_type", [None, "application/json; charset=utf-8", "text/plain"])
def test_the_content_type_is_left_to_the_model(client: httpx.Client, content_type: str | None) -> None:
    headers = {"content-type": content_type} if content_type else {}
    assert client.post("/", content=b'{"inputs": 1}', headers=headers).json()["echo"] == 1


@pytest.mark.parametrize("path", ["/live", "/health", "/ready"])
def test_health_routes_answer_200_when_the_model_is_ready(client: httpx.Client, path: str) -> None:
    response = client.get(path)
    assert (response.status_code, response.json()["status"]) == (200, "ready")
    assert client.head(path).content == b""


def test_the_root_is_json_for_programs_and_a_page_for_people(client: httpx.Client) -> None:
    assert client.get("/").json() == {"status": "ready", "model": "echo"}
    page = client.get("/", headers={"accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert page.headers["content-type"].startswith("text/html")
    assert "<textarea" in page.text


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_pages_policy_allows_its_own_script_and_style_and_nothing_else(
    client: httpx.Client, path: str
) -> None:
    page = client.get(path, headers={"accept": "text/html"})
    policy = page.headers["content-security-policy"]
    for tag in ("script", "style"):
        content = re.search(rf"<{tag}>(.*?)</{tag}>", page.text, re.DOTALL)
        assert content is not None
        assert b64encode(sha256(content[1].encode()).digest()).decode() in policy
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page.text), "the page loads something elsewhere"


def test_info_names_the_model_and_its_limits(client: httpx.Client) -> None:
    info = client.get("/info").json()
    expected = {"model_name": "echo", "model_version": "1.0", "task": "text-classification", "device": "cpu"}
    assert expected.items() <= info.items()
    assert info["limits"]["max_body_bytes"] == 16 * 1024 * 1024
    assert info["threads"] >= 1


def test_the_openapi_document_holds_the_models_schema_and_the_cards_examples(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    content = document["paths"]["/"]["post"]["requestBody"]["content"]["application/json"]
    assert content["schema"]["required"] == ["inputs"]
    assert content["examples"]["A greeting"] == {"value": {"inputs": "hello"}}
    assert content["examples"]["example 2"] == {"value": {"inputs": "again"}}
    assert "/v1/embeddings" not in document["paths"]


@pytest.mark.parametrize(
    ("method", "path", "status", "error_type"),
    [
        ("GET", "/nope", 404, "not_found"),
        ("POST", "/v1/chat/completions", 404, "not_found"),
        ("POST", "/v1/embeddings", 404, "not_found"),
        ("POST", "/live", 405, "method_not_allowed"),
        ("GET", "/predict", 405, "method_not_allowed"),
        ("DELETE", "/", 405, "method_not_allowed"),
        ("OPTIONS", "/", 405, "method_not_allowed"),
    ],
)
def test_what_is_not_there_is_a_json_error(
    client: httpx.Client, method: str, path: str, status: int, error_type: str
) -> None:
    response = client.request(method, path)
    assert (response.status_code, response.json()["error_type"]) == (status, error_type)
    assert ("allow" in response.headers) == (status == 405)


@pytest.mark.parametrize(
    "path",
    [
        "/../etc/passwd",
        "//",
        "//predict",
        "/predict/",
        "/%2e%2e/",
        "/docs/..%2f..",
        "/pages/page.html",
        "/%00",
        "/\\",
    ],
)
def test_path_tricks_find_nothing(echo_server: InferenceServer, path: str) -> None:
    answer = echo_server.send_raw(b"GET %b HTTP/1.1\r\nhost: x\r\n\r\n" % path.encode())
    assert answer.split(b" ")[1] in (b"400", b"404")
    assert b"error_type" in answer


def test_an_absolute_target_is_taken_for_its_path(echo_server: InferenceServer) -> None:
    answer = echo_server.send_raw(b"GET http://elsewhere.example/live HTTP/1.1\r\nhost: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200")


def test_a_sane_request_id_is_kept_and_stands_in_the_log(
    client: httpx.Client, echo_server: InferenceServer
) -> None:
    response = client.post("/", json={"inputs": "x"}, headers={"x-request-id": "trace-1.a:b"})
    assert response.headers["x-request-id"] == "trace-1.a:b"
    line = echo_server.wait_for_request("trace-1.a:b")
    assert line["status"] == 200
    assert {"ms", "queue_ms", "batch", "bytes_in", "bytes_out", "method", "path"} <= line.keys()


@pytest.mark.parametrize("given", ["x" * 129, "a b", 'quote"', "{json}", "ünïcode", "back\\slash", ""])
def test_a_request_id_that_is_not_sane_is_replaced(echo_server: InferenceServer, given: str) -> None:
    head = b"GET /live HTTP/1.1\r\nhost: x\r\nx-request-id: %b\r\n\r\n" % given.encode()
    answer = echo_server.send_raw(head)
    made = re.search(rb"x-request-id: ([^\r]*)", answer)
    assert made is not None
    assert re.fullmatch(rb"[0-9a-f]{12}-\d+", made[1])


def test_hostile_values_cannot_break_a_line_of_the_log(echo_server: InferenceServer) -> None:
    before = len(echo_server.lines)
    for target in (b'/"\x7f{', b"/%0a%7b%22event%22%3a1%7d", b"/\xff\xfe", b'/\\n"},{'):
        echo_server.send_raw(b'GET %b HTTP/1.1\r\nhost: \xff\xfe\r\nuser-agent: \x1b[31m"}\r\n\r\n' % target)
    wait_for(lambda: len(echo_server.lines) >= before + 4, what="four lines")
    lines = echo_server.lines[before:]
    assert all(json.loads(line)["event"] == "request" for line in lines)


def test_metrics_count_requests_by_outcome(client: httpx.Client) -> None:
    client.post("/", json={"inputs": "x"})
    client.post("/", content=b"{")
    text = client.get("/metrics").text
    assert re.search(r'constellation_requests_total\{path="/",status="200",outcome="ok"\} [1-9]', text)
    assert 'constellation_requests_total{path="/",status="400",outcome="bad_request"}' in text
    assert "constellation_queue_depth 0" in text
    assert re.search(r"process_resident_memory_bytes [1-9]\d{6}", text)
    for line in text.splitlines():
        assert re.fullmatch(
            r'(# (HELP|TYPE) .+|[a-z_]+(\{([a-z_]+="[^"]*",?)*\})? [-+0-9.e]+(inf)?)', line
        ), line


def test_an_answer_streams_as_server_sent_events(client: httpx.Client) -> None:
    body = {"inputs": "x", "stream": True, "parameters": {"pieces": 3}}
    with client.stream("POST", "/", json=body) as response:
        assert response.headers["content-type"] == "text/event-stream"
        events = [line for line in response.iter_lines() if line]
    assert [json.loads(event.removeprefix("data: "))["token"]["id"] for event in events[:3]] == [0, 1, 2]
    assert events[3] == "data: [DONE]"


def test_a_model_that_cannot_stream_says_so(client: httpx.Client) -> None:
    response = client.post("/", json={"inputs": "x", "stream": True})
    assert (response.status_code, response.json()["error_type"]) == (422, "validation")


def test_a_stream_that_fails_at_once_is_an_ordinary_error(client: httpx.Client) -> None:
    response = client.post(
        "/", json={"inputs": "x", "stream": True, "parameters": {"pieces": 3, "fail_at": 0}}
    )
    assert response.status_code == 500
    assert "secret" not in response.text


def test_a_stream_that_fails_later_ends_with_an_error_event(client: httpx.Client) -> None:
    response = client.post(
        "/", json={"inputs": "x", "stream": True, "parameters": {"pieces": 3, "fail_at": 2}}
    )
    events = [line for line in response.text.splitlines() if line]
    assert response.status_code == 200
    assert json.loads(events[-1].removeprefix("data: "))["error_type"] == "generation"
    assert "secret" not in response.text


def test_payloads_are_logged_only_when_the_operator_says_so(
    start_server: StartServer, echo_server: InferenceServer
) -> None:
    for server, is_logged in ((echo_server, False), (start_server(log_payloads=1), True)):
        with server.client() as client:
            client.post("/", json={"inputs": "a-very-private-word"}, headers={"x-request-id": "private"})
        server.wait_for_request("private")
        text = b"".join(server.lines)
        assert (b"a-very-private-word" in text) == is_logged
