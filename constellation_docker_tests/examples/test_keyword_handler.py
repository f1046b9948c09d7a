"""The example with code of its own: its handler finds a glossary's terms, and refuses what it cannot read."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard as HubCard
from packaging.requirements import Requirement

from examples.make_version import SENTIMENT

REPOSITORY = SENTIMENT.parent / "keyword-handler"


@pytest.fixture(scope="module")
def handler() -> Iterator[Any]:
    name = "keyword_handler_under_test"
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / "handler.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    yield module.EndpointHandler(str(REPOSITORY))
    del sys.modules[name]


def _terms(spans: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(span["entity_group"], span["term"]) for span in spans]


def test_every_widget_example_gives_the_output_that_the_card_shows(handler: Any) -> None:
    data = HubCard.load(REPOSITORY / "README.md").data
    assert data.pipeline_tag == "token-classification" and data.license == "apache-2.0"
    for entry in data.widget:
        request = {"inputs": entry["text"], "parameters": entry.get("parameters", {})}
        assert handler(request) == entry["output"]


def test_a_span_is_the_text_that_stands_between_its_ends(handler: Any) -> None:
    text = "Héllo 🙂 — mein Passwort, das Ladegerät und die Rückerstattung!"
    spans = handler({"inputs": text})
    assert _terms(spans) == [("ACCOUNT", "password"), ("PRODUCT", "charger"), ("BILLING", "refund")]
    assert all(text[span["start"] : span["end"]] == span["word"] for span in spans)


def test_slips_of_the_finger_and_missing_accents_are_forgiven(handler: Any) -> None:
    assert _terms(handler({"inputs": "my subscripton"})) == [("BILLING", "subscription")]
    assert _terms(handler({"inputs": "das Ladegerat"})) == [("PRODUCT", "charger")]


def test_short_words_must_match_exactly(handler: Any) -> None:
    assert handler({"inputs": "a ball and a pill, later"}) == []
    assert _terms(handler({"inputs": "the bill"})) == [("BILLING", "invoice")]


def test_the_longest_term_wins_where_terms_overlap(handler: Any) -> None:
    assert _terms(handler({"inputs": "delivery address"})) == [("DELIVERY", "shipping address")]


def test_hyphens_do_not_hide_a_term(handler: Any) -> None:
    assert _terms(handler({"inputs": "Two-factor authentication"})) == [
        ("ACCOUNT", "two-factor authentication")
    ]


def test_a_higher_threshold_finds_only_closer_spellings(handler: Any) -> None:
    request = {"inputs": "my subscripton", "parameters": {"threshold": 0.99}}
    assert handler(request) == []


def test_several_texts_are_answered_in_their_order(handler: Any) -> None:
    answers = handler({"inputs": ["", "the refund", "nothing of note"]})
    assert [len(answer) for answer in answers] == [0, 1, 0]


@pytest.mark.parametrize(
    ("request_body", "status"),
    [
        ({}, 422),
        ({"inputs": 3}, 422),
        ({"inputs": ["a", None]}, 422),
        ({"inputs": "a", "parameters": ["threshold"]}, 422),
        ({"inputs": "a", "parameters": {"threshold": "high"}}, 422),
        ({"inputs": "a", "parameters": {"threshold": True}}, 422),
        ({"inputs": "a", "parameters": {"threshold": 2}}, 422),
        ({"inputs": "a", "parameters": {"ignore_labels": "BILLING"}}, 422),
        ({"inputs": "a", "parameters": {"colour": 1}}, 422),
        ({"inputs": "a" * 20_001}, 413),
    ],
)
def test_what_cannot_be_read_is_the_clients_fault(
    handler: Any, request_body: dict[str, Any], status: int
) -> None:
    with pytest.raises(ValueError, match=r"\w+") as refused:
        handler(request_body)
    assert getattr(refused.value, "status_code", None) == status


def test_its_requirements_are_ranges_of_packages_that_it_imports() -> None:
    lines = (REPOSITORY / "requirements.txt").read_text(encoding="utf-8").split()
    requirements = [Requirement(line) for line in lines]
    code = (REPOSITORY / "handler.py").read_text(encoding="utf-8")
    assert all(requirement.specifier for requirement in requirements)
    assert all(f"from {requirement.name} import" in code for requirement in requirements)


def test_the_repository_holds_no_weights_and_no_leftovers() -> None:
    names = {path.name for path in Path(REPOSITORY).iterdir() if path.name != "__pycache__"}
    assert names == {"README.md", "handler.py", "requirements.txt", "terms.json"}
