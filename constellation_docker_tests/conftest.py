"""Loads every module of `fixtures/`, so that a fixture is there for all rooms as soon as its file is."""

from pathlib import Path

pytest_plugins = [
    f"constellation_docker_tests.fixtures.{path.stem}"
    for path in sorted((Path(__file__).parent / "fixtures").glob("[a-z]*.py"))
]
