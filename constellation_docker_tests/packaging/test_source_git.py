"""Git repositories, from real servers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from constellation_docker.packaging.source import Source, fetch_source
from constellation_docker.settings import SourceSettings
from constellation_docker_tests.fixtures.git_server import GitServer

MODEL = "sentiment@1.0"


def fetch(
    url: str, branch: str | None, store: Path, ca_bundle: Path | None = None, **settings: Any
) -> Source:
    return fetch_source(
        url,
        branch,
        settings=SourceSettings(**settings),
        ca_bundle=ca_bundle,
        store=store,
        model=MODEL,
        on_line=lambda line: None,
    )


def test_the_default_branch_is_fetched_and_pinned(git_server: GitServer, tmp_path: Path) -> None:
    repository = git_server.repository("sentiment")
    commit = repository.commit({"README.md": "# Sentiment\n", "code/predict.py": "print(1)\n"})

    source = fetch(f"{git_server.url}/sentiment", None, tmp_path, git_server.ca_bundle)

    assert (source.kind, source.commit, source.requested_revision) == ("git", commit, None)
    assert [file.path for file in source.files] == ["README.md", "code/predict.py"]
    assert (source.path / "code/predict.py").read_text() == "print(1)\n"
    assert source.readme == "# Sentiment\n"
    assert source.size_bytes == sum(file.size_bytes for file in source.files)
