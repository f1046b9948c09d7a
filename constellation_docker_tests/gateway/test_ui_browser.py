"""People in a browser: they log in, see Dagster's pages, and start what they may."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from selenium.webdriver.common.by import By

from constellation_docker_tests.fixtures.browser import Browser
from constellation_docker_tests.fixtures.deadline import wait_for
from constellation_docker_tests.fixtures.gateway import (
    QueuedDagster,
    RunningGateway,
    queued_dagster,
    running_gateway,
)

KEY = "browser@1"
MUTATION = "mutation { reloadWorkspace { __typename } }"
SEND = """
const [query, done] = arguments;
const headers = {"Content-Type": "application/json"};
fetch("/ui/graphql", {method: "POST", headers, body: JSON.stringify({query})}).then(answer => done(answer.status));
"""
PAGE = "/ui/assets/model_card?view=partitions"


@pytest.fixture(scope="module")
def queued(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QueuedDagster]:
    """A webserver without other tests' partitions: the page shows only so many of them."""
    with queued_dagster(tmp_path_factory.mktemp("browsed")) as dagster:
        yield dagster


@pytest.fixture(scope="module")
def gateway(queued: QueuedDagster) -> Iterator[RunningGateway]:
    """The gateway before that webserver."""
    with running_gateway(queued.settings) as served:
        yield served


@pytest.fixture
def visitor(browser: Browser, gateway: RunningGateway) -> Iterator[Browser]:
    """A browser that nobody is logged in with."""
    browser.open(f"{gateway.url}/health")
    browser.driver.delete_all_cookies()
    yield browser
    browser.driver.delete_all_cookies()


def log_in(browser: Browser, gateway: RunningGateway, role: str) -> None:
    """Open a page of the UI, be sent to the login, and come back from it."""
    browser.open(f"{gateway.url}{PAGE}")
    assert "/login?" in browser.driver.current_url
    browser.wait_for("//input[@name='key']").send_keys(gateway.keys[role])
    browser.click("//button")
    browser.wait_for(f"//*[normalize-space(text())='{KEY}']")
    assert browser.driver.current_url == f"{gateway.url}{PAGE}"


def click_launch(browser: Browser) -> None:
    """Materialize one partition."""
    browser.click("//button[contains(., 'Materialize')]")
    browser.click("//*[contains(text(), 'Select a partition')]")
    browser.click(f"//*[contains(@class, 'opover')]//*[normalize-space(text())='{KEY}']")
    browser.click("//button[contains(., 'Launch 1 run')]")


@pytest.mark.slow
def test_an_operator_logs_in_and_starts_a_run_with_a_click(
    visitor: Browser, gateway: RunningGateway, queued: QueuedDagster
) -> None:
    queued.client.add_partition("model_versions", KEY)
    log_in(visitor, gateway, "operator")
    click_launch(visitor)
    (run,) = wait_for(
        lambda: queued.client.runs({"dagster/partition": KEY}), seconds=60, what="the run of the click"
    )
    assert run.tags["constellation/requested_by"] == "operator"
    visitor.open(f"{gateway.url}/ui/runs/{run.run_id}")
    visitor.wait_for("//*[contains(text(), 'Run queued')]")


@pytest.mark.slow
def test_a_viewer_sees_the_pages_and_can_start_nothing(
    visitor: Browser, gateway: RunningGateway, queued: QueuedDagster
) -> None:
    queued.client.add_partition("model_versions", KEY)
    before = {run.run_id for run in queued.client.runs({}, limit=1000)}
    log_in(visitor, gateway, "viewer")
    grey = "//button[contains(., 'Materialize') and @disabled]"
    wait_for(lambda: visitor.driver.find_elements(By.XPATH, grey), seconds=60, what="the grey button")
    # Whatever a page's script sends for them is refused, too.
    status = visitor.driver.execute_async_script(SEND, MUTATION)
    assert status == 403
    assert {run.run_id for run in queued.client.runs({}, limit=1000)} == before
