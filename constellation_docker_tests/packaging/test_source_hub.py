"""Models on a Hugging Face Hub, through the real huggingface_hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from constellation_docker.packaging.source import Source, fetch_source
from constellation_docker.packaging.source_errors import (
    RepositoryNotFound,
    RevisionNotFound,
    SourceRefused,
    SourceTooLarge,
    SourceUnreachable,
)
from constellation_docker.settings import SourceSettings
from constellation_docker_tests.fixtures.hub import LARGE, LocalHub

WEIGHTS = bytes(range(256)) * (LARGE // 100)


def fetch(url: str, branch: str | None, store: Path, **settings: Any) -> Source:
    return fetch_source(
        url,
        branch,
        settings=SourceSettings(**settings),
        ca_bundle=None,
        store=store,
        model="minilm@1",
        on_line=lambda line: None,
    )


@pytest.mark.parametrize("form", ["hf:org/minilm", "hf://org/minilm", "org/minilm", "{url}/org/minilm"])
def test_every_form_of_a_hub_id_is_fetched_at_its_commit(hub: LocalHub, tmp_path: Path, form: str) -> None:
    commit = hub.add_model(
        "org/minilm", {"README.md": "# MiniLM", "model.safetensors": WEIGHTS, "a/b.txt": "b"}
    )

    source = fetch(form.format(url=hub.url), None, tmp_path)

    assert (source.kind, source.commit) == ("hub", commit)
    assert [file.path for file in source.files] == ["README.md", "a/b.txt", "model.safetensors"]
    assert (source.path / "model.safetensors").read_bytes() == WEIGHTS
    assert source.url == f"{hub.url}/org/minilm"


def test_a_tag_and_a_page_of_a_revision_name_a_commit(hub: LocalHub, tmp_path: Path) -> None:
    first = hub.add_model("org/minilm", {"README.md": "one"})
    hub.add_tag("org/minilm", "v1")
    hub.add_model("org/minilm", {"README.md": "two"})

    assert fetch("hf:org/minilm", "v1", tmp_path).commit == first
    page = fetch(f"{hub.url}/org/minilm/tree/v1", None, tmp_path)
    assert (page.commit, page.requested_revision) == (first, "v1")


def test_a_pinned_commit_that_is_in_the_store_is_not_asked_for(hub: LocalHub, tmp_path: Path) -> None:
    commit = hub.add_model("org/minilm", {"README.md": "one"})
    first = fetch("hf:org/minilm", None, tmp_path)
    hub.requests.clear()

    again = fetch("hf:org/minilm", commit, tmp_path)

    assert hub.requests == []
    assert (again.digest, again.path) == (first.digest, first.path)


def test_a_branch_that_has_not_moved_is_not_downloaded_again(hub: LocalHub, tmp_path: Path) -> None:
    hub.add_model("org/minilm", {"README.md": "one"})
    fetch("hf:org/minilm", None, tmp_path)
    hub.requests.clear()

    fetch("hf:org/minilm", None, tmp_path)

    assert not [path for _, path, _ in hub.requests if "/resolve/" in path]


def test_the_same_files_from_git_and_hub_have_one_digest(hub: LocalHub, tmp_path: Path) -> None:
    hub.add_model("org/minilm", {"README.md": "one", "model.bin": b"\0\1"})
    repository = hub.model("org/minilm")
    assert repository is not None

    of_hub = fetch("hf:org/minilm", None, tmp_path)
    of_git = fetch(f"file://{repository.path}", None, tmp_path, allowed_schemes=("file",))

    assert of_git.commit == of_hub.commit
    assert of_git.digest == of_hub.digest


def test_a_private_model_needs_the_token_that_the_settings_refer_to(
    hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add_model("org/private", {"README.md": "one"}, token="hf_right")
    monkeypatch.setenv("HF_TOKEN", "hf_ambient")
    monkeypatch.setenv("MODEL_TOKEN", "hf_right")

    with pytest.raises(RepositoryNotFound, match=r"minilm@1.*source\.hub_token"):
        fetch("hf:org/private", None, tmp_path)
    assert {header for _, _, header in hub.requests} == {None}

    assert fetch("hf:org/private", None, tmp_path, hub_token="env:MODEL_TOKEN").files


def test_a_wrong_token_is_in_no_message(
    hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add_model("org/private", {"README.md": "one"}, token="hf_right")
    monkeypatch.setenv("MODEL_TOKEN", "hf_wrong_secret")

    with pytest.raises(Exception, match="org/private") as caught:
        fetch("hf:org/private", None, tmp_path, hub_token="env:MODEL_TOKEN")
    assert "hf_wrong_secret" not in str(caught.value) + repr(vars(caught.value))


def test_a_model_or_revision_that_is_not_there_is_named(hub: LocalHub, tmp_path: Path) -> None:
    hub.add_model("org/minilm", {"README.md": "one"})
    with pytest.raises(RepositoryNotFound, match="org/absent"):
        fetch("hf:org/absent", None, tmp_path)
    with pytest.raises(RevisionNotFound, match="org/minilm"):
        fetch("hf:org/minilm", "absent", tmp_path)


def test_a_file_over_the_limit_is_refused_before_anything_is_downloaded(
    hub: LocalHub, tmp_path: Path
) -> None:
    hub.add_model("org/minilm", {"README.md": "one", "model.bin": WEIGHTS})

    with pytest.raises(SourceTooLarge, match=r"'model\.bin'") as caught:
        fetch("hf:org/minilm", None, tmp_path, max_file_bytes=1000)
    assert caught.value.details["path"] == "model.bin"
    assert not [path for _, path, _ in hub.requests if "/resolve/" in path]


def test_a_hub_that_sends_more_than_it_listed_is_stopped_by_the_limit(hub: LocalHub, tmp_path: Path) -> None:
    hub.add_model("org/minilm", {"model.bin": b"x" * 5000})
    hub.listed_sizes["model.bin"] = 10

    with pytest.raises((SourceTooLarge, SourceUnreachable)):
        fetch("hf:org/minilm", None, tmp_path, max_file_bytes=1000)


def test_a_hub_that_is_down_is_a_passing_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(SourceUnreachable) as caught:
        fetch("hf:org/minilm", None, tmp_path)
    assert caught.value.is_transient


def test_a_hub_that_may_not_be_used_is_not_asked(hub: LocalHub, tmp_path: Path) -> None:
    with pytest.raises(SourceRefused, match="hf"):
        fetch("hf:org/minilm", None, tmp_path, allowed_schemes=("https",))
    with pytest.raises(SourceRefused, match=r"127\.0\.0\.1"):
        fetch("hf:org/minilm", None, tmp_path, allowed_hosts=("huggingface.co",))
    assert hub.requests == []


def test_local_files_of_huggingface_hub_are_not_part_of_the_source(hub: LocalHub, tmp_path: Path) -> None:
    hub.add_model("org/minilm", {"README.md": "one", ".gitattributes": "*.bin filter=lfs\n"})
    source = fetch("hf:org/minilm", None, tmp_path)
    assert [file.path for file in source.files] == [".gitattributes", "README.md"]
