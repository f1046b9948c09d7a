"""Loads every module of `fixtures/`, so that a fixture is there for all rooms as soon as its file is."""

from pathlib import Path

import pytest

pytest_plugins = [
    f"constellation_docker_tests.fixtures.{path.stem}"
    for path in sorted((Path(__file__).parent / "fixtures").glob("[a-z]*.py"))
]

# What takes long to set up or to wait for: a Dagster of its own, engines and networks of its own, a browser, rollouts.
LONG_FIXTURES = frozenset(
    {"browser", "deployer", "gateway", "location", "make_environment", "packager", "queued", "second_engine"}
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest: one that begins last is waited for by two idle processes."""
    long_files = {
        item.path for item in items if LONG_FIXTURES.intersection(getattr(item, "fixturenames", ()))
    }
    items.sort(key=lambda item: item.path not in long_files)
