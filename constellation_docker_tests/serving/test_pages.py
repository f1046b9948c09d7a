"""The server's two pages in a real browser: a person tries the model, sees its answers and errors, reads its API.

Nothing may come from elsewhere: images run where there is no internet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from constellation_docker_tests.fixtures.browser import Browser
from constellation_docker_tests.fixtures.deadline import wait_for
from constellation_docker_tests.fixtures.inference_server import InferenceServer
from constellation_docker_tests.fixtures.model_server import ServedModel, ServeModel

SENTIMENT = Path(__file__).parents[2] / "examples" / "sentiment"
TinyModel = Callable[[str], Path]
EXAMPLES = [
    {"name": "Praise", "inputs": "I love this film."},
    {"name": "Blame <b>&", "inputs": "It's a terrible film, I hate it."},
]


@pytest.fixture(scope="module")
def sentiment(serve_model: ServeModel) -> ServedModel:
    return serve_model(SENTIMENT, task="text-classification", runtime="onnx", examples=EXAMPLES)


@pytest.fixture(autouse=True)
def clean_browser(browser: Browser) -> Iterator[None]:
    """Only what a test's own pages ask for and complain about counts, and all of it must be in order."""
    browser.open("about:blank")
    browser.read_complaints()
    browser.read_requests()
    yield
    assert not [line for line in browser.read_complaints() if "status of 4" not in line]
    asked = {urlsplit(url) for url in browser.read_requests()}
    assert {url.hostname for url in asked if url.scheme not in ("data", "about")} <= {"127.0.0.1"}


def outcome(browser: Browser) -> str:
    return browser.text("//*[@id='outcome']")


def send(browser: Browser) -> None:
    browser.click("//button[@id='send']")
    wait_for(lambda: "ms" in outcome(browser), what="an outcome")


def test_a_person_types_a_request_and_sees_the_answer(browser: Browser, sentiment: ServedModel) -> None:
    browser.open(sentiment.url + "/")
    wait_for(lambda: browser.text("//h1") == "sentiment", what="the model's name")
    assert "text-classification" in browser.text("//*[@id='facts']")
    browser.type("//textarea", '{"inputs": "What a wonderful day, I love it."}')
    send(browser)
    assert outcome(browser).startswith("200")
    assert browser.text("//*[@id='scores']//tr[1]").startswith("POSITIVE")
    assert '"label": "POSITIVE"' in browser.text("//pre[@id='answer']")


def test_an_example_of_the_card_is_one_click_away(browser: Browser, sentiment: ServedModel) -> None:
    browser.open(sentiment.url + "/")
    browser.click("//button[text()='Blame <b>&']")
    assert "terrible" in str(browser.wait_for("//textarea").get_property("value"))
    send(browser)
    assert browser.text("//*[@id='scores']//tr[1]").startswith("NEGATIVE")
    browser.click("//summary")
    assert "It'\\''s" in browser.text("//pre[@id='shell']")


@pytest.mark.parametrize(
    ("typed", "status", "says"),
    [("{", "400", "not valid JSON"), ('{"inputs": "x", "parameters": {"top_kk": 1}}', "422", "top_kk")],
)
def test_a_wrong_request_shows_the_servers_sentence(
    browser: Browser, sentiment: ServedModel, typed: str, status: str, says: str
) -> None:
    browser.open(sentiment.url + "/")
    browser.type("//textarea", typed)
    send(browser)
    assert outcome(browser).startswith(status)
    assert says in browser.text("//pre[@id='answer']")
    assert browser.text("//*[@id='scores']") == ""


def test_a_picture_is_chosen_and_sent(
    browser: Browser, serve_model: ServeModel, tiny_model: TinyModel, tmp_path: Path
) -> None:
    from PIL import Image

    Image.new("RGB", (40, 30), "red").save(tmp_path / "red.png")
    served = serve_model(tiny_model("vit"), task="image-classification", runtime="onnx")
    browser.open(served.url + "/")
    browser.wait_for("//input[@type='file']").send_keys(str(tmp_path / "red.png"))
    send(browser)
    assert outcome(browser).startswith("200")
    assert "red.png" in str(browser.driver.find_element("id", "shell").get_property("textContent"))


def test_a_server_that_is_gone_is_told_of(browser: Browser) -> None:
    server = InferenceServer().wait_until_ready()
    browser.open(server.url + "/")
    browser.wait_for("//button[text()='A greeting']")
    server.close()
    browser.click("//button[@id='send']")
    wait_for(lambda: "No answer" in browser.text("//pre[@id='answer']"), what="what went wrong")
    assert all("ERR_CONNECTION_REFUSED" in line for line in browser.read_complaints())


def test_the_page_of_a_model_that_still_loads_says_so(browser: Browser, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    server = InferenceServer(environ={"ECHO_LOAD": str(gate)})
    try:
        browser.open(server.url + "/")
        wait_for(lambda: "loading" in browser.text("//*[@id='facts']"), what="the state")
        gate.touch()
        wait_for(lambda: "ready" in browser.text("//*[@id='facts']"), what="the state once it is ready")
        browser.wait_for("//button[text()='A greeting']")
    finally:
        server.close()


def test_the_api_page_shows_every_operation_its_schema_and_the_examples(
    browser: Browser, sentiment: ServedModel
) -> None:
    browser.open(sentiment.url + "/docs")
    wait_for(lambda: "sentiment 1.0" in browser.text("//h1"), what="the title")
    headings = [element.text for element in browser.driver.find_elements("xpath", "//h2")]
    assert {"POST /", "POST /predict", "GET /ready", "GET /metrics"} <= set(headings)
    page = browser.text("//main")
    assert "function_to_apply" in page
    assert "I love this film." in page
    assert "429" in page
