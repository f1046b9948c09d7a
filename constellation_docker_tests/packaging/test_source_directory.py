"""Plain directories, and git repositories, of this machine."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from constellation_docker.packaging.source import Source, fetch_source
from constellation_docker.packaging.source_errors import (
    LargeFileMissing,
    RepositoryNotFound,
    RevisionNotFound,
    SourceRefused,
    SourceTooLarge,
    SourceUnsafe,
)
from constellation_docker.settings import SourceSettings
from constellation_docker_tests.fixtures.git_server import WorkRepository, lfs_pointer


def fetch(url: str, branch: str | None, store: Path, **settings: Any) -> Source:
    return fetch_source(
        url,
        branch,
        settings=SourceSettings(**{"allowed_schemes": ("file",), **settings}),
        ca_bundle=None,
        store=store,
        model="sentiment@1",
        on_line=lambda line: None,
    )


@pytest.fixture
def model(tmp_path: Path) -> Path:
    place = tmp_path / "model"
    (place / "onnx").mkdir(parents=True)
    (place / "README.md").write_bytes(b"\xef\xbb\xbf---\nlicense: mit\n---\n")
    (place / "onnx/model.onnx").write_bytes(b"onnx")
    return place


def test_a_directory_is_pinned_by_its_content(model: Path, tmp_path: Path) -> None:
    source = fetch(f"file://{model}", None, tmp_path / "store")
    assert (source.kind, source.commit) == ("directory", source.digest)
    assert [file.path for file in source.files] == ["README.md", "onnx/model.onnx"]
    assert source.readme == "---\nlicense: mit\n---\n"

    (model / "onnx/model.onnx").write_bytes(b"other")
    changed = fetch(str(model), None, tmp_path / "store")
    assert changed.digest != source.digest
    assert (source.path / "onnx/model.onnx").read_bytes() == b"onnx"
    assert fetch(f"file://{model}", source.commit, tmp_path / "store").path == source.path


def test_a_directory_has_no_branches(model: Path, tmp_path: Path) -> None:
    for revision in ("main", "sha256:" + "0" * 64):
        with pytest.raises(RevisionNotFound, match="plain directory"):
            fetch(f"file://{model}", revision, tmp_path / "store")


def test_the_executable_bit_counts_and_the_rest_of_the_mode_does_not(model: Path, tmp_path: Path) -> None:
    first = fetch(f"file://{model}", None, tmp_path / "store")
    (model / "README.md").chmod(0o600)
    os.utime(model / "README.md", (1, 1))
    assert fetch(f"file://{model}", None, tmp_path / "store").digest == first.digest
    (model / "README.md").chmod(0o755)
    assert fetch(f"file://{model}", None, tmp_path / "store").digest != first.digest


def test_what_python_leaves_behind_is_not_part_of_it(model: Path, tmp_path: Path) -> None:
    first = fetch(f"file://{model}", None, tmp_path / "store")
    (model / "__pycache__").mkdir()
    (model / "__pycache__/x.pyc").write_bytes(b"x")
    assert fetch(f"file://{model}", None, tmp_path / "store").digest == first.digest


@pytest.mark.parametrize("target", ["/etc/passwd", "../../secret", "onnx/../../secret"])
def test_a_link_that_leads_outside_is_refused(model: Path, tmp_path: Path, target: str) -> None:
    (model / "evil").symlink_to(target)
    with pytest.raises(SourceUnsafe, match="'evil'"):
        fetch(f"file://{model}", None, tmp_path / "store")


def test_a_linked_directory_is_kept_as_a_link(model: Path, tmp_path: Path) -> None:
    (model / "weights").symlink_to("onnx")
    source = fetch(f"file://{model}", None, tmp_path / "store")
    assert {file.path: file.mode for file in source.files}["weights"] == "link"
    assert (source.path / "weights/model.onnx").read_bytes() == b"onnx"


def test_pipes_sockets_and_devices_are_refused(model: Path, tmp_path: Path) -> None:
    os.mkfifo(model / "pipe")
    with pytest.raises(SourceUnsafe, match="'pipe'"):
        fetch(f"file://{model}", None, tmp_path / "store")
    (model / "pipe").unlink()

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(model / "socket"))
        with pytest.raises(SourceUnsafe, match="'socket'"):
            fetch(f"file://{model}", None, tmp_path / "store")
    (model / "socket").unlink()

    if os.geteuid() == 0:
        os.mknod(model / "device", 0o600 | 0o020000, os.makedev(1, 5))
        with pytest.raises(SourceUnsafe, match="'device'"):
            fetch(f"file://{model}", None, tmp_path / "store")


def test_limits_name_the_file(model: Path, tmp_path: Path) -> None:
    for limit in ({"max_file_bytes": 10}, {"max_repository_bytes": 10}, {"max_files": 1}):
        with pytest.raises(SourceTooLarge) as caught:
            fetch(f"file://{model}", None, tmp_path / "store", **limit)
        assert caught.value.details["path"] in {"README.md", "onnx/model.onnx"}


def test_a_name_that_is_not_utf8_is_refused(model: Path, tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(model) + b"/\xff")).write_bytes(b"x")
    with pytest.raises(SourceUnsafe, match="UTF-8"):
        fetch(f"file://{model}", None, tmp_path / "store")


def test_a_git_lfs_pointer_in_a_directory_is_refused(model: Path, tmp_path: Path) -> None:
    (model / "model.safetensors").write_bytes(lfs_pointer(b"weights"))
    with pytest.raises(LargeFileMissing, match=r"'model\.safetensors'"):
        fetch(f"file://{model}", None, tmp_path / "store")


def test_only_allowed_directories_are_read_links_followed(model: Path, tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    (allowed / "way-out").symlink_to(model)
    for url in (model, allowed / "way-out", allowed / ".." / "model"):
        with pytest.raises(SourceRefused, match="allowed_directories"):
            fetch(f"file://{url}", None, tmp_path / "store", allowed_directories=(allowed,))
    assert fetch(f"file://{model}", None, tmp_path / "store", allowed_directories=(tmp_path,)).files


def test_a_directory_that_is_not_there_or_empty_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(RepositoryNotFound, match="absent"):
        fetch(f"file://{tmp_path}/absent", None, tmp_path / "store")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceRefused, match="no files"):
        fetch(f"file://{tmp_path}/empty", None, tmp_path / "store")


def test_bare_and_working_git_repositories_are_read_as_git(
    work_repository: WorkRepository, tmp_path: Path
) -> None:
    commit = work_repository.commit({"a.txt": "1"})
    (work_repository.path / "uncommitted.txt").write_text("2")
    bare = tmp_path / "bare with space.git"
    work_repository.git("clone", "--quiet", "--bare", ".", str(bare))
    for place in (work_repository.path, bare):
        source = fetch(f"file://{place}", None, tmp_path / "store")
        assert (source.kind, source.commit) == ("git", commit)
        assert [file.path for file in source.files] == ["a.txt"]


def test_a_full_disk_is_said_so(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from constellation_docker.packaging import directory
    from constellation_docker.packaging.source_errors import SourceStoreFull

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(directory.shutil, "copyfileobj", full)
    with pytest.raises(SourceStoreFull, match=r"sentiment@1.*full"):
        fetch(f"file://{model}", None, tmp_path / "store")
    assert list((tmp_path / "store/sources/scratch").iterdir()) == []
