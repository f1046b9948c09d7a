"""Stores for the tests: every one of them once on SQLite and once on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine

from constellation_docker.cards import CardStore, ModelCard, Publication
from constellation_docker.cards.database import store_url

AnySql = Callable[..., Any]


def registration(**changes: Any) -> dict[str, Any]:
    """A REST body; fields of the card are given as `card={…}`."""
    card = changes.pop("card", {})
    return {
        "model_name": "acme/sentiment",
        "model_version": "1.0.0",
        "repo_url": "https://git.example/acme/sentiment",
        "branch": "main",
        "model_card": {
            "description": "Says how a sentence feels.",
            "data_used": "Reviews.",
            "dependencies": [],
            **card,
        },
        **changes,
    }


def make_card(**changes: Any) -> ModelCard:
    """A valid card; see `registration`."""
    return ModelCard.from_registration(registration(**changes))


def make_publication(
    model_id: str, image: str = "registry.example/acme-sentiment@sha256:" + "1" * 64
) -> Publication:
    """A publication of a model version."""
    return Publication(
        model_id=model_id,
        commit="c0ffee",
        source_digest="sha256:" + "2" * 64,
        lock_digest="sha256:" + "3" * 64,
        image=image,
        image_size_bytes=170_000_000,
        runtime="onnx",
        task="text-classification",
        published_at=datetime.now(UTC),
    )


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, of either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'deep' / 'cards.db'}"
    made: str = request.getfixturevalue("postgres_url")
    return made


@pytest.fixture
def store(url: str) -> Iterator[CardStore]:
    """An empty store."""
    with CardStore.open(url) as opened:
        yield opened


@pytest.fixture
def sql(store: CardStore, url: str) -> Iterator[AnySql]:
    """Runs one statement as a backend would, over a connection of its own; returns all rows."""
    engine = create_engine(store_url(url))

    def run(statement: str) -> list[Any]:
        with engine.begin() as connection:
            result = connection.exec_driver_sql(statement)
            return list(result) if result.returns_rows else []

    yield run
    engine.dispose()
