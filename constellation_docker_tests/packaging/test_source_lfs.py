"""Files that a repository keeps in Git LFS."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from constellation_docker.packaging.source_errors import (
    GitMissing,
    LargeFileMissing,
    SourceRefused,
    SourceTooLarge,
)
from constellation_docker_tests.fixtures.git_server import GitServer, lfs_pointer
from constellation_docker_tests.packaging.sources import fetch


def test_git_lfs_files_are_fetched_in_place_of_their_pointers(git_server: GitServer, tmp_path: Path) -> None:
    weights = os.urandom(50_000)
    git_server.large_files[hashlib.sha256(weights).hexdigest()] = weights
    repository = git_server.repository("large")
    repository.commit(
        {"model.safetensors": lfs_pointer(weights), "copy.bin": lfs_pointer(weights), "a.txt": "1"}
    )

    source = fetch(f"{git_server.url}/large", None, tmp_path, git_server.ca_bundle)

    assert (source.path / "model.safetensors").read_bytes() == weights
    assert (source.path / "copy.bin").read_bytes() == weights
    assert {file.path: file.sha256 for file in source.files}["copy.bin"] == hashlib.sha256(
        weights
    ).hexdigest()


def test_git_lfs_files_of_a_private_repository_are_fetched_with_its_credentials(
    git_server: GitServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = os.urandom(5_000)
    git_server.large_files[hashlib.sha256(weights).hexdigest()] = weights
    git_server.password = "right"
    monkeypatch.setenv("GIT_LOGIN", "reader:right")
    git_server.repository("large").commit({"model.bin": lfs_pointer(weights)})

    place = git_server.url.removeprefix("https://")
    source = fetch(
        f"{git_server.url}/large",
        None,
        tmp_path,
        git_server.ca_bundle,
        git_credentials={place: "env:GIT_LOGIN"},
    )

    assert (source.path / "model.bin").read_bytes() == weights


def test_a_git_lfs_file_that_the_server_lacks_is_named(git_server: GitServer, tmp_path: Path) -> None:
    git_server.repository("large").commit({"model.bin": lfs_pointer(b"never pushed")})
    with pytest.raises(LargeFileMissing, match=r"'model\.bin'.*git lfs push"):
        fetch(f"{git_server.url}/large", None, tmp_path, git_server.ca_bundle)


def test_a_git_lfs_file_over_the_limit_is_refused_before_it_is_fetched(
    git_server: GitServer, tmp_path: Path
) -> None:
    git_server.repository("large").commit({"model.bin": lfs_pointer(b"x" * 5000)})
    with pytest.raises(SourceTooLarge, match=r"'model\.bin'"):
        fetch(f"{git_server.url}/large", None, tmp_path, git_server.ca_bundle, max_file_bytes=1000)
    assert not [path for _, path, _ in git_server.requests if "lfs" in path]


def test_without_git_lfs_the_error_says_what_to_install(
    git_server: GitServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("git", "sh", "ssh"):
        found = shutil.which(name)
        assert found
        (programs / name).symlink_to(found)
    monkeypatch.setenv("PATH", str(programs))
    git_server.repository("large").commit({"model.bin": lfs_pointer(b"x")})
    with pytest.raises(GitMissing, match=r"'model\.bin'.*git-lfs"):
        fetch(f"{git_server.url}/large", None, tmp_path, git_server.ca_bundle)


def test_an_lfs_server_that_the_repository_names_must_be_allowed(
    git_server: GitServer, tmp_path: Path
) -> None:
    repository = git_server.repository("large")
    for url in ("https://evil.example/lfs", "file:///etc"):
        repository.commit({"model.bin": lfs_pointer(b"x"), ".lfsconfig": f"[lfs]\n\turl = {url}\n"})
        with pytest.raises(SourceRefused):
            fetch(
                f"{git_server.url}/large", None, tmp_path, git_server.ca_bundle,
                allowed_hosts=("localhost",), allowed_schemes=("https", "file"),
            )  # fmt: skip
