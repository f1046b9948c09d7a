"""Fetching a model's repository as packaging does, with settings that a test chooses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from constellation_docker.packaging.source import Source, fetch_source
from constellation_docker.settings import SourceSettings

MODEL = "sentiment@1.0"
FILE = {"allowed_schemes": ("file",)}


def fetch(
    url: str,
    branch: str | None,
    store: Path,
    ca_bundle: Path | None = None,
    lines: list[str] | None = None,
    **settings: Any,
) -> Source:
    return fetch_source(
        url,
        branch,
        settings=SourceSettings(**settings),
        ca_bundle=ca_bundle,
        store=store,
        model=MODEL,
        on_line=lines.append if lines is not None else lambda line: None,
    )


def leftovers(store: Path) -> list[Path]:
    return list((store / "sources" / "scratch").iterdir())
