"""The registration bodies beside the examples are accepted as they are and fit the repositories that they name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from constellation_docker.cards.model_card import ModelCard
from examples.make_version import SENTIMENT

CARDS = SENTIMENT.parent / "cards"


@pytest.mark.parametrize(
    ("name", "key", "task"),
    [
        ("sentiment.yaml", "sentiment@1.0.0", "text-classification"),
        ("support-topics.yaml", "support-topics@1.0.0", "token-classification"),
    ],
)
def test_a_registration_is_completed_by_the_card_of_the_repository_that_it_names(
    name: str, key: str, task: str
) -> None:
    card = ModelCard.from_file(CARDS / name)
    repository = Path(card.repo_url.removeprefix("file://"))
    assert repository.parent == SENTIMENT.parent
    completed = card.merged_with((repository / "README.md").read_text(encoding="utf-8"))
    assert completed.key == key and completed.task == task
    assert len(completed.widget) >= 3 and not completed.notes
    assert completed.description == card.description


def test_the_rest_body_is_a_registration() -> None:
    body = json.loads((CARDS / "sentiment-rest.json").read_text(encoding="utf-8"))
    card = ModelCard.from_registration(body)
    assert card.model_name == "acme/sentiment"
    assert card.serving.replicas == 2
    assert card.branch == "main"


def test_every_file_there_is_a_registration() -> None:
    for path in CARDS.iterdir():
        assert ModelCard.from_file(path).model_version == "1.0.0", path
