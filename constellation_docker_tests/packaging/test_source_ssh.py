"""Git repositories over ssh."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from constellation_docker.packaging.source import Source, fetch_source
from constellation_docker.packaging.source_errors import (
    RepositoryNotFound,
    SourceDenied,
    SourceRefused,
    SourceUnreachable,
    SourceUntrusted,
)
from constellation_docker.settings import SourceSettings
from constellation_docker_tests.fixtures.git_server import WorkRepository
from constellation_docker_tests.fixtures.ssh_server import SshServer


def fetch(url: str, store: Path, **settings: Any) -> Source:
    return fetch_source(
        url,
        None,
        settings=SourceSettings(**settings),
        ca_bundle=None,
        store=store,
        model="sentiment@1",
        on_line=lambda line: None,
    )


def test_a_repository_is_fetched_with_the_key_that_the_settings_name(
    ssh_server: SshServer, tmp_path: Path
) -> None:
    commit = WorkRepository.create(ssh_server.root / "model").commit({"a.txt": "1"})
    source = fetch(
        f"{ssh_server.url}/model",
        tmp_path,
        ssh_key=f"file:{ssh_server.key}",
        ssh_known_hosts=ssh_server.known_hosts,
    )
    assert (source.commit, [file.path for file in source.files]) == (commit, ["a.txt"])


def test_a_key_that_the_server_does_not_know_is_denied(ssh_server: SshServer, tmp_path: Path) -> None:
    WorkRepository.create(ssh_server.root / "model").commit({"a.txt": "1"})
    with pytest.raises(SourceDenied, match=r"source\.ssh_key"):
        fetch(
            f"{ssh_server.url}/model",
            tmp_path,
            ssh_key=f"file:{ssh_server.other_key}",
            ssh_known_hosts=ssh_server.known_hosts,
        )


def test_a_host_key_that_is_not_known_is_not_trusted(ssh_server: SshServer, tmp_path: Path) -> None:
    nobody = tmp_path / "nobody"
    nobody.write_text("")
    with pytest.raises(SourceUntrusted, match=r"source\.ssh_known_hosts"):
        fetch(f"{ssh_server.url}/model", tmp_path, ssh_key=f"file:{ssh_server.key}", ssh_known_hosts=nobody)


def test_a_repository_that_is_not_there_is_no_passing_failure(ssh_server: SshServer, tmp_path: Path) -> None:
    with pytest.raises(RepositoryNotFound):
        fetch(
            f"{ssh_server.url}/absent",
            tmp_path,
            ssh_key=f"file:{ssh_server.key}",
            ssh_known_hosts=ssh_server.known_hosts,
        )


def test_a_server_that_is_down_is_a_passing_failure(ssh_server: SshServer, tmp_path: Path) -> None:
    with pytest.raises(SourceUnreachable):
        fetch("ssh://git@127.0.0.1:9/model", tmp_path, ssh_known_hosts=ssh_server.known_hosts)


def test_a_key_that_is_not_a_file_is_refused(ssh_server: SshServer, tmp_path: Path) -> None:
    for reference in ("env:HOME", "file:/nonexistent"):
        with pytest.raises(SourceRefused, match=r"source\.ssh_key"):
            fetch(f"{ssh_server.url}/model", tmp_path, ssh_key=reference)
