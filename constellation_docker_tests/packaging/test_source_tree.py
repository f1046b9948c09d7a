"""What a fetched tree may hold: links, names, sizes, and nothing that runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from constellation_docker.packaging.source_errors import (
    SourceRefused,
    SourceTooLarge,
    SourceUnsafe,
)
from constellation_docker_tests.fixtures.git_server import WorkRepository
from constellation_docker_tests.packaging.sources import FILE, fetch, leftovers


def test_links_inside_the_repository_are_kept(work_repository: WorkRepository, tmp_path: Path) -> None:
    work_repository.commit({"data/a.txt": "1"})
    (work_repository.path / "latest.txt").symlink_to("data/a.txt")
    work_repository.commit({})
    source = fetch(f"file://{work_repository.path}", None, tmp_path, **FILE)
    assert (source.path / "latest.txt").read_text() == "1"
    assert {file.path: file.mode for file in source.files}["latest.txt"] == "link"


@pytest.mark.parametrize("target", ["/etc/passwd", "../../outside", "data/../../outside", "..", ""])
def test_a_link_that_leads_outside_is_refused(
    work_repository: WorkRepository, tmp_path: Path, target: str
) -> None:
    work_repository.commit_tree([("100644", "a.txt", b"1"), ("120000", "evil", target.encode())])
    with pytest.raises(SourceUnsafe, match="'evil'") as caught:
        fetch(f"file://{work_repository.path}", None, tmp_path, **FILE)
    assert caught.value.details["path"] == "evil"
    assert leftovers(tmp_path) == []


def test_links_that_lead_outside_only_together_are_refused(
    work_repository: WorkRepository, tmp_path: Path
) -> None:
    work_repository.commit({"deep/er/a.txt": "1", "b/c.txt": "1"})
    (work_repository.path / "deep/er/top").symlink_to("../..")
    (work_repository.path / "b/out").symlink_to("../deep/er/top/../outside")
    work_repository.commit({})
    with pytest.raises(SourceUnsafe, match="'b/out'"):
        fetch(f"file://{work_repository.path}", None, tmp_path, **FILE)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("new\nline", "control"),
        ("\udcff\udcfe", "UTF-8"),
        ("back\\slash", "elsewhere"),
        ("..", "elsewhere"),
        (".git", "git directory"),
        (".GIT", "git directory"),
        ("n" * 300, "too long"),
    ],
)
def test_a_file_under_a_dangerous_name_is_refused(
    work_repository: WorkRepository, tmp_path: Path, name: str, what: str
) -> None:
    work_repository.commit_tree([("100644", "a.txt", b"1"), ("100644", name, b"2")])
    with pytest.raises(SourceUnsafe, match=what):
        fetch(f"file://{work_repository.path}", None, tmp_path, **FILE)


def test_a_file_below_a_link_is_refused(work_repository: WorkRepository, tmp_path: Path) -> None:
    blob = work_repository.git("hash-object", "-w", "--stdin", stdin=b"1")
    inner = work_repository.git("mktree", stdin=f"100644 blob {blob}\tb\n".encode())
    link = work_repository.git("hash-object", "-w", "--stdin", stdin=b".")
    # git refuses to make such a tree, so its bytes are written by hand.
    raw = b"120000 a\0" + bytes.fromhex(link) + b"40000 a\0" + bytes.fromhex(inner)
    tree = work_repository.git("hash-object", "-w", "-t", "tree", "--literally", "--stdin", stdin=raw)
    work_repository.git("update-ref", "refs/heads/main", work_repository.git("commit-tree", tree, "-m", "x"))
    with pytest.raises(SourceUnsafe, match="'a/b'"):
        fetch(f"file://{work_repository.path}", None, tmp_path, **FILE)


def test_a_submodule_is_refused_with_its_path(work_repository: WorkRepository, tmp_path: Path) -> None:
    work_repository.commit_tree([("100644", "a.txt", b"1"), ("160000", "vendored", b"1" * 40)])
    with pytest.raises(SourceRefused, match="'vendored' is a git submodule"):
        fetch(f"file://{work_repository.path}", None, tmp_path, **FILE)


def test_limits_name_the_file_that_passes_them(work_repository: WorkRepository, tmp_path: Path) -> None:
    work_repository.commit({"a.bin": b"a" * 600, "b.bin": b"b" * 600})
    url = f"file://{work_repository.path}"
    for limit in ({"max_file_bytes": 500}, {"max_repository_bytes": 1000}, {"max_files": 1}):
        with pytest.raises(SourceTooLarge, match=r"'[ab]\.bin'"):
            fetch(url, None, tmp_path, **FILE, **limit)
    assert leftovers(tmp_path) == []


def test_configuration_attributes_and_hooks_of_a_repository_run_nothing(
    work_repository: WorkRepository, tmp_path: Path
) -> None:
    proof = tmp_path / "proof"
    work_repository.commit(
        {
            ".gitattributes": "*.txt filter=evil text eol=crlf ident export-subst\n",
            ".gitconfig": f'[filter "evil"]\n\tsmudge = touch {proof}\n',
            "a.txt": "$Id$ $Format:%H$\n",
        }
    )
    for name in (
        "post-checkout",
        "pre-receive",
        "post-upload-pack",
        "reference-transaction",
        "fsmonitor-watchman",
    ):
        hook = work_repository.path / ".git/hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\ntouch {proof}\n")
        hook.chmod(0o755)
    work_repository.git("config", "core.fsmonitor", f"touch {proof}")
    work_repository.git("config", "uploadpack.packObjectsHook", f"touch {proof}")

    source = fetch(f"file://{work_repository.path}", None, tmp_path, **FILE)

    assert (source.path / "a.txt").read_text() == "$Id$ $Format:%H$\n"
    assert not proof.exists()


def test_the_tree_is_read_only_and_undated(work_repository: WorkRepository, tmp_path: Path) -> None:
    work_repository.commit({"run.sh": "#!/bin/sh\n", "a/b.txt": "1"})
    (work_repository.path / "run.sh").chmod(0o755)
    work_repository.commit({})
    source = fetch(f"file://{work_repository.path}", None, tmp_path, **FILE)
    modes = {path.name: path.stat().st_mode & 0o777 for path in source.path.rglob("*")}
    assert modes == {"run.sh": 0o555, "a": 0o555, "b.txt": 0o444}
    assert len({path.stat().st_mtime for path in [source.path, *source.path.rglob("*")]}) == 1
