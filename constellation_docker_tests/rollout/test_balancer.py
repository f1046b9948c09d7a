"""What a real HAProxy does for clients and operators: limits, slow start, bad replicas, log, metrics, status page."""

from __future__ import annotations

import csv
import json
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import httpx
import pytest

from constellation_docker.cards.serving_options import RateLimit
from constellation_docker.packaging.base_image import BaseImageUnavailable, ensure_base_image
from constellation_docker.rollout import (
    HaproxyBalancer,
    Kind,
    observe,
    plan_environment,
    private_authority,
    renew_certificate,
)
from constellation_docker.rollout.balancer import Member, Route
from constellation_docker.rollout.haproxy import pack_files
from constellation_docker.rollout.haproxy_config import CONFIG_PATH, plan_layout, render_files
from constellation_docker.rollout.haproxy_runtime import RuntimeSocket
from constellation_docker.rollout.observed import balancer_name
from constellation_docker.settings import BaseImageSettings, EnvironmentSettings
from constellation_docker_tests.fixtures.browser import Browser
from constellation_docker_tests.fixtures.deadline import wait_for
from constellation_docker_tests.fixtures.debian import require_program
from constellation_docker_tests.fixtures.ports import free_port
from constellation_docker_tests.fixtures.tiny_service import PATIENT, Clients, Environment

pytestmark = pytest.mark.slow

LAYOUT_1 = Path(__file__).parent / "haproxy_layout_1.cfg"
HOSTILE_PATHS = ['/a"b\\c]', "/%22%7d%00;x?token=hunter2", "/" + '"' * 3000, "/{}'`$(id)", "/\x01\x7f"]


@pytest.fixture
def environment(environment: Environment) -> Environment:
    """An environment whose replicas may take their time to come up."""
    environment.deploy = PATIENT
    return environment


def balancer_of(environment: Environment) -> HaproxyBalancer:
    return HaproxyBalancer(
        environment.engine, balancer_name(environment.project), environment.file.balancer_options
    )


def servers(environment: Environment) -> list[dict[str, str]]:
    """HAProxy's statistics of the members of routes."""
    socket_ = RuntimeSocket(environment.engine, balancer_name(environment.project))
    shown = socket_.ask("show stat -1 4 -1").strip().removeprefix("# ").splitlines()
    rows = list(csv.DictReader(shown))
    return [
        row for row in rows if row["pxname"].startswith("pool-") and not row["status"].startswith("MAINT")
    ]


def log_lines(environment: Environment) -> Iterator[dict[str, object]]:
    """The access log, every line of which must be JSON."""
    for line in environment.engine.logs(balancer_name(environment.project), tail=500).splitlines():
        if line.startswith("{"):
            yield json.loads(line)


def send_raw(environment: Environment, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", environment.settings.port), 10) as connection:
        connection.sendall(request)
        connection.settimeout(10)
        return connection.recv(65536)


def test_limits_answer_by_themselves_and_change_without_touching_a_replica(environment: Environment) -> None:
    limit = RateLimit(requests=3, per="1m", by="key")
    environment.want(rate_limit=limit, max_body_bytes=1000)
    environment.roll_out()
    url, me = environment.url(), {"X-API-Key": "mine"}
    assert [httpx.post(url, headers=me).status_code for _ in range(5)] == [200, 200, 200, 429, 429]
    refused = httpx.post(url, headers=me)
    assert refused.json()["code"] == "rate_limited"
    assert refused.headers["Retry-After"] == "60"
    assert httpx.post(url, headers={"Authorization": "Bearer other"}).status_code == 200
    assert httpx.post(url).status_code == 200, "whoever sends no key is counted by address"
    too_large = httpx.post(url, content=b"x" * 1001, headers={"X-API-Key": "another"})
    assert (too_large.status_code, too_large.json()["code"]) == (413, "too_large")
    # A length that nobody gives cannot be compared: such a body is the server's to count.
    chunked = httpx.post(url, content=iter([b"x" * 1001]), headers={"X-API-Key": "another"})
    assert chunked.status_code == 200

    before = environment.containers()
    environment.want(rate_limit=RateLimit(requests=1, per="1h"), max_body_bytes=None)
    with Clients(environment.url("none"), count=1):
        assert [step.kind for step in environment.roll_out().steps] == ["register"]
    assert environment.containers() == before
    assert [httpx.post(url).status_code for _ in range(2)] == [200, 429]
    assert plan_environment(observe(environment.engine, environment.project), environment.file).is_empty
    assert balancer_of(environment).settle() is False
    environment.want(rate_limit=None)
    environment.roll_out()
    assert {httpx.post(url).status_code for _ in range(5)} == {200}
    key = RuntimeSocket(environment.engine, balancer_name(environment.project)).ask("show table rate-60")
    assert "mine" not in key


def test_the_access_log_is_json_for_hostile_requests_and_holds_no_query(environment: Environment) -> None:
    environment.want()
    environment.roll_out()
    for number, path in enumerate(HOSTILE_PATHS):
        head = f'POST {path} HTTP/1.1\r\nHost: x\r\nX-Request-ID: a"b\\{number}\r\nContent-Length: 0\r\n\r\n'
        send_raw(environment, head.encode("latin-1"))
    send_raw(environment, b"\x16\x03\x01 no HTTP at all\r\n\r\n")
    known = "0af7651916cd43dd8448eb211c80319c"
    answer = httpx.post(environment.url() + "predict?token=hunter2", headers={"X-Request-ID": known})
    assert answer.headers["X-Request-ID"] == known
    made = httpx.post(environment.url(), headers={"X-Request-ID": "x" * 200}).headers["X-Request-ID"]
    assert made and len(made) < 64
    wait_for(lambda: any(line["request_id"] == made for line in log_lines(environment)), what="the log")
    lines = list(log_lines(environment))
    assert any(line["request_id"] == known and line["model"] == "tiny" for line in lines)
    assert len(lines) >= len(HOSTILE_PATHS) + 3
    assert "hunter2" not in environment.engine.logs(balancer_name(environment.project), tail=500)
    facts = environment.engine.container(balancer_name(environment.project)) or {}
    assert facts["HostConfig"]["LogConfig"]["Config"] == {"max-size": "10m", "max-file": "3"}


def test_a_replica_that_joins_others_begins_with_a_small_share(environment: Environment) -> None:
    environment.settings = environment.settings.model_copy(update={"slow_start_seconds": 120})
    environment.want()
    environment.roll_out()
    environment.want(replicas=2)
    with Clients(environment.url(), count=4) as clients:
        environment.roll_out()
        shares = {row["svname"]: row["throttle"] for row in servers(environment)}
    assert clients.failures == []
    assert int(shares["p1s2"].rstrip("%")) < 60
    members = balancer_of(environment).read_members("tiny")
    assert [(member.state, member.check, member.failures) for member in members] == [("ready", "up", 0)] * 2
    assert plan_environment(observe(environment.engine, environment.project), environment.file).is_empty


def test_bad_answers_in_a_row_count_like_a_failed_check_and_leave_the_last_replica_serving(
    environment: Environment,
) -> None:
    environment.want()
    environment.roll_out()
    with httpx.Client() as client:
        for _ in range(150):
            assert client.post(environment.url(), headers={"X-Status": "500"}).status_code in {500, 503}
    assert int(servers(environment)[0]["hanafail"]) >= 1
    wait_for(lambda: httpx.post(environment.url()).status_code == 200, seconds=10, what="the last replica")


def test_metrics_and_a_status_page_are_where_the_operator_wants_them(
    environment: Environment, browser: Browser, tmp_path: Path
) -> None:
    port = free_port()
    environment.settings = environment.settings.model_copy(update={"metrics_port": port})
    environment.want("tiny", replicas=2, model_version="1.0+cpu")
    environment.roll_out()
    root = f"http://127.0.0.1:{port}"
    assert "haproxy_server_status" in httpx.get(f"{root}/metrics").text
    assert httpx.get(f"{root}/names/pool-1").text.strip() == "tiny"
    assert httpx.get(f"{root}/names/p1s1").text.strip() == "1.tiny@1.0+cpu"
    assert httpx.get(f"{root}/other").status_code == 404
    refused = httpx.post(f"{root}/stats", data={"s": "p1s1", "action": "drain", "b": "pool-1"})
    assert refused.headers["Location"].endswith("st=DENY"), "the page is for looking only"
    browser.open(root)
    browser.wait_for("//td[text()='1.0+cpu']")
    browser.wait_for("//span[text()='serving']")
    browser.wait_for("//td[text()='good']")
    browser.picture(tmp_path / "status.png")
    cells = browser.driver.find_elements("xpath", "//tbody/tr")
    assert ["1.tiny" in row.text or "2.tiny" in row.text for row in cells] == [True, True]
    assert "1 model, 2 of 2 replicas serving" in browser.driver.find_element("id", "summary").text
    assert environment.url() == f"http://127.0.0.1:{environment.settings.port}/tiny/"


def test_the_configuration_of_a_former_release_is_replaced_by_one_reload(environment: Environment) -> None:
    environment.want()
    environment.roll_out()
    # Put the first release's files in force, as an environment has them that it deployed.
    name = balancer_name(environment.project)
    member = balancer_of(environment).read_members("tiny")[0]
    files = render_files(plan_layout([Route("tiny", 300, None, (member,))]))
    former = {path: text for path, text in files.items() if not path.endswith(("rates.map", "names.map"))}
    # A reloaded HAProxy inherits the variables of the one before.
    text = LAYOUT_1.read_text().replace("global\n", "global\n    unsetenv CONSTELLATION_LAYOUT\n", 1)
    environment.engine.put_archive(name, "/", pack_files({**former, CONFIG_PATH: text}))
    environment.engine.execute(name, ["rm", "/etc/constellation/rates.map", "/etc/constellation/names.map"])
    environment.engine.kill(name, "SIGUSR2")
    wait_for(lambda: _layout(environment) == "", what="the former configuration")
    wait_for(lambda: httpx.post(environment.url()).status_code == 200, what="the endpoint")

    environment.want(rate_limit=RateLimit(requests=100_000))
    before = environment.containers()
    steps = [step.kind for step in environment.roll_out().steps]
    assert "reload balancer" in steps
    assert [member.version for member in balancer_of(environment).read_members("tiny")] == ["1"]
    assert environment.containers() == before
    assert httpx.post(environment.url()).status_code == 200
    assert plan_environment(observe(environment.engine, environment.project), environment.file).is_empty
    assert balancer_of(environment).settle() is False


def test_services_that_join_side_by_side_while_the_balancer_makes_room_are_all_there(
    environment: Environment,
) -> None:
    environment.want()
    environment.roll_out()
    slugs = [f"service-{number}" for number in range(48)]

    def join(slug: str) -> None:
        balancer_of(environment).register(Route(slug, 60), [Member("1.tiny", 8080, "/ready")])

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(join, slugs))
    routes = balancer_of(environment).read().routes
    assert {slug: [member.host for member in route.members] for slug, route in routes.items()} == {
        slug: ["1.tiny"] for slug in ["tiny", *slugs]
    }
    assert balancer_of(environment).settle() is False


def _layout(environment: Environment) -> str:
    seen = observe(environment.engine, environment.project).balancer
    return seen.layout if seen and seen.is_ours else "not yet"


def test_a_newer_haproxy_does_all_of_it_too(environment: Environment, tmp_path: Path) -> None:
    wanted = BaseImageSettings(origin="debian", debian_suite="trixie")
    try:
        image = ensure_base_image(environment.engine, "balancer", wanted, environment.lines.append)
    except BaseImageUnavailable as error:
        pytest.skip(f"HAProxy 3 of Debian's next release cannot be had: {error}")
    environment.balancer_image = image.reference
    facts = environment.settings.model_dump() | {
        "tls": {"folder": tmp_path / "tls"},
        "metrics_port": 0,
        "slow_start_seconds": 60,
    }
    environment.settings = EnvironmentSettings.model_validate(facts)
    limits: dict[str, Any] = {"rate_limit": RateLimit(requests=1_000_000, per="10s"), "max_body_bytes": 1000}
    environment.want(**limits)
    environment.roll_out()
    name = balancer_name(environment.project)
    said = environment.engine.execute(name, ["haproxy", "-v"]).stdout.decode()
    assert said.startswith("HAProxy version 3.")
    authority = private_authority(environment.name, environment.settings).certificate(datetime.now(UTC))
    # The client stops sending and reads the refusal; HAProxy 2.6 takes that for a broken stream.
    assert refuse_over_http_2(environment, authority, tmp_path) == "2 413"
    with Clients(environment.url(), count=4, authority=authority) as clients:
        environment.want(replicas=2, **limits)
        environment.roll_out()
        assert renew_certificate(
            environment.file, engine=environment.engine, settings=environment.settings, is_renewed=True
        )
        environment.want(model_version="2", **limits)
        environment.roll_out()
    assert clients.failures == []
    assert set(clients.versions) == {"1", "2"}
    assert balancer_of(environment).settle() is False
    assert plan_environment(observe(environment.engine, environment.project), environment.file).is_empty
    assert any(line["model"] == "tiny" for line in log_lines(environment))


def test_a_connection_that_idles_across_a_reload_has_its_next_request_answered_by_a_replica_of_then(
    environment: Environment,
) -> None:
    environment.want()
    environment.roll_out()
    with socket.create_connection(("127.0.0.1", environment.settings.port), 10) as idle:
        assert ask_over(idle) == ("keep-alive", "1")
        environment.settings = environment.settings.model_copy(update={"slow_start_seconds": 5})
        environment.want()
        assert [step.kind for step in environment.roll_out().steps] == ["reload balancer"]
        environment.want(model_version="2")
        with ThreadPoolExecutor(1) as pool:
            moving = pool.submit(environment.roll_out)
            wait_for(lambda: any(Kind.WAIT_DRAINED in line for line in environment.lines), what="the switch")
            assert httpx.post(environment.url()).json()["version"] == "2"
            assert ask_over(idle) == ("close", "1")
            assert idle.recv(1) == b""
            assert moving.result().outcome == "successful"
    assert not balancer_of(environment).has_former_process()


def refuse_over_http_2(environment: Environment, authority: str, folder: Path) -> str:
    """Version and status of the answer to a body of 4 MB; curl fails where its stream is broken off."""
    (folder / "authority.pem").write_text(authority)
    (folder / "body").write_bytes(b"x" * 4_000_000)
    words = ["--http2", "--data-binary", f"@{folder}/body", "-H", "Expect:", "-o", folder / "answer"]
    words += ["--cacert", folder / "authority.pem", "-w", "%{http_version} %{http_code}"]
    curl = [require_program("curl", "curl"), "-sS", "--max-time", "60", *words, environment.url()]
    done = subprocess.run(curl, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads((folder / "answer").read_text())["code"] == "too_large"
    return done.stdout


def ask_over(connection: socket.socket) -> tuple[str, str]:
    """One request over a connection that is kept: what becomes of that, and which version answered."""
    connection.sendall(b"POST /tiny/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
    answer = HTTPResponse(connection)
    answer.begin()
    said = json.loads(answer.read())
    assert answer.status == 200, said
    return answer.headers.get("Connection", "keep-alive"), said["version"]
