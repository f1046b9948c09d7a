"""The arrows between rooms point one way, as docs/architecture.md says."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "constellation_docker"

ALLOWED = {
    "engine": set(),
    "serving": set(),
    "cards": set(),
    "packaging": {"cards", "engine", "serving"},
    "compose": {"cards"},
    "rollout": {"cards", "compose", "engine"},
    "gateway": {"cards", "compose", "engine"},
    "defs": {"cards", "packaging", "compose", "rollout", "engine", "gateway"},
}
EVERYWHERE = {"errors", "run_tags", "settings"}


def imports_of(path: Path) -> set[str]:
    """Every module that a file imports, also inside functions, as dotted names."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def files_of(room: str) -> list[Path]:
    return sorted((PACKAGE / room).rglob("*.py"))


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_imports_only_the_rooms_that_its_arrows_point_to(room: str) -> None:
    for path in files_of(room):
        for module in imports_of(path):
            parts = module.split(".")
            if parts[0] == "constellation_docker" and len(parts) > 1 and parts[1] not in {room, *EVERYWHERE}:
                assert parts[1] in ALLOWED[room], f"{path.relative_to(PACKAGE)} imports {module}"


@pytest.mark.parametrize("room", sorted(set(ALLOWED) - {"defs"}))
def test_domain_rooms_know_no_dagster(room: str) -> None:
    for path in files_of(room):
        assert not {module for module in imports_of(path) if module.split(".")[0].startswith("dagster")}, path


@pytest.mark.parametrize("room", sorted(set(ALLOWED) - {"engine"}))
def test_only_the_engine_room_knows_docker_py(room: str) -> None:
    for path in files_of(room):
        assert not {module for module in imports_of(path) if module.split(".")[0] == "docker"}, path


def test_the_server_imports_nothing_from_the_rest() -> None:
    for path in files_of("serving"):
        assert not {module for module in imports_of(path) if module.startswith("constellation_docker")}, path
