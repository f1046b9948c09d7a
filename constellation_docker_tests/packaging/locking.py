"""Locking a model's packages as packaging does, against the index of a test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from constellation_docker.cards import ModelCard
from constellation_docker.packaging.lock import (
    DependencyLock,
    ServerRequirements,
    resolve_lock,
)
from constellation_docker.packaging.runtime import Runtime, RuntimeChoice
from constellation_docker.packaging.source import fetch_source
from constellation_docker.settings import IndexSettings, SourceSettings
from constellation_docker_tests.fixtures.package_index import PackageIndex

CUSTOM = RuntimeChoice(runtime=Runtime.CUSTOM, reason="", task=None)
NOTHING = ServerRequirements()


@dataclass(frozen=True)
class Target:
    python_version: str | None = "3.11"
    libc: str = "manylinux_2_36"
    architecture: str = "amd64"


Locking = Callable[..., DependencyLock]


@pytest.fixture
def lock(tmp_path: Path, package_index: PackageIndex) -> Locking:
    """Lock a repository of some files with a card, against the index of the test."""

    def lock(
        files: Mapping[str, str | bytes] | None = None,
        dependencies: tuple[str, ...] = (),
        *,
        base: Any = Target(),
        settings: Mapping[str, Any] | None = None,
        server: ServerRequirements | None = NOTHING,
        choice: RuntimeChoice = CUSTOM,
        lines: list[str] | None = None,
        serving_python: str | None = None,
        **options: Any,
    ) -> DependencyLock:
        directory = tmp_path / "model"
        directory.mkdir(exist_ok=True)
        for name, content in {"README.md": "# Model", **(files or {})}.items():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        source = fetch_source(
            f"file://{directory}", None, settings=SourceSettings(allowed_schemes=("file",)), ca_bundle=None,
            store=tmp_path / "store", model="m@1", on_line=lambda line: None,
        )  # fmt: skip
        card = ModelCard(
            model_name="sentiment",
            model_version="1",
            repo_url=f"file://{directory}",
            dependencies=dependencies,
            constellation={"python": serving_python},
        )
        return resolve_lock(
            source,
            card,
            choice,
            base=base,
            settings=IndexSettings(**{"url": package_index.url, "wheelhouse": None, **(settings or {})}),
            store=tmp_path / "store",
            on_line=(lines if lines is not None else []).append,
            server=server,
            **options,
        )

    return lock


def names(locked: DependencyLock) -> dict[str, str]:
    return {package.name: package.version for package in locked.packages}
