"""Git repositories, from real servers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from constellation_docker.packaging.source_errors import (
    RepositoryNotFound,
    RevisionNotFound,
    SourceDenied,
    SourceRefused,
    SourceTimedOut,
    SourceUnreachable,
    SourceUntrusted,
)
from constellation_docker_tests.fixtures.git_server import GitServer, WorkRepository
from constellation_docker_tests.packaging.sources import FILE, fetch, leftovers


def test_the_default_branch_is_fetched_and_pinned(git_server: GitServer, tmp_path: Path) -> None:
    repository = git_server.repository("sentiment")
    repository.commit({"old.txt": "old"})
    commit = repository.commit({"README.md": "# Sentiment\n", "code/predict.py": "print(1)\n"})

    source = fetch(f"{git_server.url}/sentiment", None, tmp_path, git_server.ca_bundle)

    assert (source.kind, source.commit, source.requested_revision) == ("git", commit, None)
    assert [file.path for file in source.files] == ["README.md", "code/predict.py", "old.txt"]
    assert (source.path / "code/predict.py").read_text() == "print(1)\n"
    assert source.readme == "# Sentiment\n"
    assert source.size_bytes == sum(file.size_bytes for file in source.files)
    assert leftovers(tmp_path) == []


def test_branch_tag_full_and_short_commit_name_a_commit(git_server: GitServer, tmp_path: Path) -> None:
    repository = git_server.repository("sentiment")
    first = repository.commit({"a.txt": "1"})
    repository.git("tag", "light")
    repository.git("tag", "--annotate", "v1", "--message", "One")
    repository.git("branch", "feature/x")
    second = repository.commit({"a.txt": "2"})
    url, bundle = f"{git_server.url}/sentiment", git_server.ca_bundle

    for name in ("light", "v1", "feature/x", first, first[:10]):
        assert fetch(url, name, tmp_path, bundle).commit == first, name
    assert fetch(url, "main", tmp_path, bundle).commit == second


def test_only_the_one_commit_is_fetched(git_server: GitServer, tmp_path: Path) -> None:
    repository = git_server.repository("sentiment")
    repository.commit({"big.bin": os.urandom(3_000_000)})
    repository.git("rm", "--quiet", "big.bin")
    repository.commit({"a.txt": "small"})

    source = fetch(f"{git_server.url}/sentiment", None, tmp_path, git_server.ca_bundle)

    assert source.size_bytes == 5
    assert git_server.sent_bytes < 10_000


def test_an_old_commit_of_a_server_that_gives_branches_only_is_found(
    git_server: GitServer, tmp_path: Path
) -> None:
    git_server.refuses_single_commits = True
    repository = git_server.repository("sentiment")
    first = repository.commit({"a.txt": "1"})
    repository.commit({"a.txt": "2"})
    lines: list[str] = []

    source = fetch(f"{git_server.url}/sentiment", first, tmp_path, git_server.ca_bundle, lines)

    assert (source.path / "a.txt").read_text() == "1"
    assert any("all branches and tags" in line for line in lines)


def test_a_second_fetch_of_a_commit_needs_no_server(git_server: GitServer, tmp_path: Path) -> None:
    repository = git_server.repository("sentiment")
    commit = repository.commit({"a.txt": "1"})
    url = f"{git_server.url}/sentiment"
    first = fetch(url, None, tmp_path, git_server.ca_bundle)
    git_server.requests.clear()

    again = fetch(url, commit, tmp_path, git_server.ca_bundle)

    assert git_server.requests == []
    assert again.model_copy(update={"seconds": 0, "requested_revision": None}) == first.model_copy(
        update={"seconds": 0}
    )


def test_a_branch_that_moved_is_fetched_anew(git_server: GitServer, tmp_path: Path) -> None:
    repository = git_server.repository("sentiment")
    repository.commit({"a.txt": "1"})
    url = f"{git_server.url}/sentiment"
    first = fetch(url, "main", tmp_path, git_server.ca_bundle)
    repository.commit({"a.txt": "2"})

    second = fetch(url, "main", tmp_path, git_server.ca_bundle)

    assert (first.path / "a.txt").read_text() == "1"
    assert (second.path / "a.txt").read_text() == "2"


def test_a_branch_that_is_gone_is_named_with_those_that_are_there(
    git_server: GitServer, tmp_path: Path
) -> None:
    git_server.repository("sentiment").commit({"a.txt": "1"})
    with pytest.raises(RevisionNotFound, match=r"sentiment@1\.0: .* 'release'.*branches: main\.") as caught:
        fetch(f"{git_server.url}/sentiment", "release", tmp_path, git_server.ca_bundle)
    assert caught.value.details["branches"] == ["main"]
    for absent in ("0" * 40, "0123abcd"):
        with pytest.raises(RevisionNotFound, match=absent):
            fetch(f"{git_server.url}/sentiment", absent, tmp_path, git_server.ca_bundle)
    assert leftovers(tmp_path) == []


def test_a_repository_without_commits_says_so(git_server: GitServer, tmp_path: Path) -> None:
    git_server.repository("empty")
    with pytest.raises(RevisionNotFound, match="no commit"):
        fetch(f"{git_server.url}/empty", None, tmp_path, git_server.ca_bundle)


def test_a_repository_that_does_not_exist_is_no_passing_failure(
    git_server: GitServer, tmp_path: Path
) -> None:
    with pytest.raises(RepositoryNotFound, match="absent") as caught:
        fetch(f"{git_server.url}/absent", None, tmp_path, git_server.ca_bundle)
    assert not caught.value.is_transient


def test_a_server_that_is_down_or_answers_503_is_a_passing_failure(
    git_server: GitServer, tmp_path: Path
) -> None:
    git_server.repository("sentiment").commit({"a.txt": "1"})
    git_server.failures = [503]
    with pytest.raises(SourceUnreachable) as caught:
        fetch(f"{git_server.url}/sentiment", None, tmp_path, git_server.ca_bundle)
    assert caught.value.is_transient
    with pytest.raises(SourceUnreachable):
        fetch("https://localhost:9/sentiment", None, tmp_path)


def test_a_server_that_breaks_off_in_the_middle_leaves_nothing_half_made(
    git_server: GitServer, tmp_path: Path
) -> None:
    git_server.repository("sentiment").commit({"a.bin": os.urandom(200_000)})
    url = f"{git_server.url}/sentiment"
    git_server.cuts_packs = True
    with pytest.raises(SourceUnreachable):
        fetch(url, None, tmp_path, git_server.ca_bundle)
    assert leftovers(tmp_path) == []
    git_server.cuts_packs = False
    assert fetch(url, None, tmp_path, git_server.ca_bundle).size_bytes == 200_000


def test_a_server_that_never_answers_is_given_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/never_ends"
        with pytest.raises(SourceTimedOut, match=r"source\.timeout_seconds") as caught:
            fetch(url, None, tmp_path, allowed_schemes=("http",), timeout_seconds=0.5)
    assert caught.value.is_transient
    assert leftovers(tmp_path) == []


def test_a_certificate_that_is_not_trusted_is_refused(git_server: GitServer, tmp_path: Path) -> None:
    git_server.repository("sentiment").commit({"a.txt": "1"})
    with pytest.raises(SourceUntrusted, match=r"certificate.*index\.ca_bundle"):
        fetch(f"{git_server.url}/sentiment", None, tmp_path)


def test_credentials_reach_the_server_by_reference_and_nothing_else(
    git_server: GitServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git_server.repository("private").commit({"a.txt": "1"})
    git_server.password = "p4$$ 'w\"rd\\"
    monkeypatch.setenv("GIT_LOGIN", f"reader:{git_server.password}")
    url = f"{git_server.url}/private"
    place = git_server.url.removeprefix("https://")

    with pytest.raises(SourceDenied, match=r"source\.git_credentials"):
        fetch(url, None, tmp_path, git_server.ca_bundle)
    source = fetch(url, None, tmp_path, git_server.ca_bundle, git_credentials={place: "env:GIT_LOGIN"})

    assert (source.path / "a.txt").read_text() == "1"
    held = b"".join(
        path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and "served" not in path.parts
    )
    assert git_server.password.encode() not in held


def test_a_refused_password_is_in_no_message(
    git_server: GitServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git_server.repository("private").commit({"a.txt": "1"})
    git_server.password = "right"
    monkeypatch.setenv("GIT_LOGIN", "reader:wrong-secret")
    with pytest.raises(SourceDenied) as caught:
        fetch(
            f"{git_server.url}/private",
            None,
            tmp_path,
            git_server.ca_bundle,
            git_credentials={"localhost": "env:GIT_LOGIN"},
        )
    assert "wrong-secret" not in str(caught.value) + repr(vars(caught.value))


def test_credentials_of_one_host_do_not_follow_a_redirect_to_another(
    git_server: GitServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git_server.repository("new").commit({"a.txt": "1"})
    git_server.redirects["/old"] = git_server.url.replace("localhost", "127.0.0.1") + "/new"
    monkeypatch.setenv("GIT_LOGIN", "reader:secret")
    place = git_server.url.removeprefix("https://")
    with pytest.raises((SourceUntrusted, SourceUnreachable)):  # the certificate is for localhost only
        fetch(
            f"{git_server.url}/old",
            None,
            tmp_path,
            git_server.ca_bundle,
            git_credentials={place: "env:GIT_LOGIN"},
        )
    assert all(header is None for _, path, header in git_server.requests if path.startswith("/new"))


def test_a_redirect_is_followed_to_allowed_hosts_only(git_server: GitServer, tmp_path: Path) -> None:
    commit = git_server.repository("new").commit({"a.txt": "1"})
    git_server.redirects["/old"] = git_server.url + "/new"
    url = f"{git_server.url}/old"

    source = fetch(url, None, tmp_path, git_server.ca_bundle, allowed_hosts=("localhost",))
    assert (source.commit, source.url) == (commit, url)

    for target in ("https://evil.example/new", "http://localhost:9/new", "file:///etc", "ext::sh -c id"):
        git_server.redirects["/old"] = target
        with pytest.raises(SourceRefused, match="redirects"):
            fetch(url, None, tmp_path / "other", git_server.ca_bundle, allowed_hosts=("localhost",))


def test_configuration_of_the_machine_and_its_user_is_not_read(
    work_repository: WorkRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work_repository.commit({"a.txt": "1"})
    configuration = tmp_path / "gitconfig"
    configuration.write_text('[url "https://evil.example/"]\n\tinsteadOf = "file://"\n')
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(configuration))
    monkeypatch.setenv("GIT_DIR", "/nonexistent")
    assert fetch(f"file://{work_repository.path}", None, tmp_path, **FILE).files


def test_fetches_at_the_same_time_do_not_disturb_each_other(
    work_repository: WorkRepository, tmp_path: Path
) -> None:
    work_repository.commit({f"{number}.txt": str(number) for number in range(50)})
    with ThreadPoolExecutor(4) as pool:
        sources = list(
            pool.map(lambda _: fetch(f"file://{work_repository.path}", None, tmp_path, **FILE), range(4))
        )
    assert len({(source.path, source.digest) for source in sources}) == 1
    assert leftovers(tmp_path) == []


def test_a_tree_that_lost_a_file_is_fetched_again(work_repository: WorkRepository, tmp_path: Path) -> None:
    work_repository.commit({"a.txt": "1", "b.txt": "2"})
    source = fetch(f"file://{work_repository.path}", None, tmp_path, **FILE)
    source.path.chmod(0o755)
    (source.path / "a.txt").unlink()
    again = fetch(f"file://{work_repository.path}", None, tmp_path, **FILE)
    assert (again.path / "a.txt").read_text() == "1"


_KILLED = """
import os, signal, sys
from pathlib import Path
from constellation_docker.packaging import git, source, source_store
from constellation_docker.settings import SourceSettings
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
{hook}
source.fetch_source(sys.argv[1], None, settings=SourceSettings(allowed_schemes=("file",)), ca_bundle=None,
                    store=Path(sys.argv[2]), model="m@1", on_line=lambda line: None)
"""


@pytest.mark.parametrize(
    "hook",
    [
        "git.GitRepository._write = die",
        "source.seal_tree = die",
        "source_store._rename_once = die",
        "source_store._write_json = die",
    ],
)
def test_a_killed_fetch_leaves_nothing_that_breaks_the_next(
    work_repository: WorkRepository, tmp_path: Path, hook: str
) -> None:
    work_repository.commit({"a.txt": "1"})
    url = f"file://{work_repository.path}"
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED.format(hook=hook), url, str(tmp_path)], check=False, timeout=60
    )
    assert killed.returncode == -9
    assert leftovers(tmp_path)

    source = fetch(url, None, tmp_path, **FILE)

    assert (source.path / "a.txt").read_text() == "1"
    assert leftovers(tmp_path) == []
