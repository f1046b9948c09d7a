"""A repository at one commit: fetched once, kept by its content.

What is fetched lies read-only in a content-addressed store (see `source_store`), so a second fetch of the
same commit costs a look, and two models with the same files share them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict

from constellation_docker.packaging.address import DEFAULT_HUB, RepositoryAddress, resolve_address
from constellation_docker.packaging.directory import PlainDirectory, is_git_repository, resolve_path
from constellation_docker.packaging.git import GitRepository
from constellation_docker.packaging.hub import HubRepository
from constellation_docker.packaging.source_errors import SourceError, SourceRefused
from constellation_docker.packaging.source_store import SourceStore
from constellation_docker.packaging.tree import SealedTree, SourceFile, seal_tree
from constellation_docker.settings import SourceSettings

_MAX_README_BYTES = 1024 * 1024


class Source(BaseModel):
    """The files of a repository at one commit.

    Attributes:
        kind: `git`, `hub` (a Hugging Face Hub) or `directory`.
        url: The repository's address, without credentials.
        requested_revision: The branch, tag or commit that was asked for; None for the default branch.
        commit: The commit that it was, in full; for a directory, its digest.
        digest: `sha256:…` over every file's mode, SHA-256 and path.
        path: The files, read-only.
        size_bytes: The sum of their lengths.
        files: All of them, sorted by path.
        readme: The text of the README.md at the top, if there is one.
        seconds: How long fetching took this time.
    """

    model_config = ConfigDict(frozen=True)

    kind: Literal["git", "hub", "directory"]
    url: str
    requested_revision: str | None
    commit: str
    digest: str
    path: Path
    size_bytes: int
    files: tuple[SourceFile, ...]
    readme: str | None
    seconds: float


class _Repository(Protocol):
    @property
    def kind(self) -> str: ...
    def pins(self, revision: str | None) -> bool: ...
    def commit_of(self, revision: str | None) -> str: ...
    def unpack(self, commit: str, tree: Path) -> str: ...


def fetch_source(
    repo_url: str,
    branch: str | None,
    *,
    settings: SourceSettings,
    ca_bundle: Path | None,
    store: Path,
    model: str,
    on_line: Callable[[str], None],
) -> Source:
    """Fetch a repository at one commit, or find it in the store.

    Args:
        repo_url: Where it lies: git over https, ssh, http or file, a Hugging Face Hub id, or a directory.
        branch: A branch, a tag, a full or short commit; None for the default branch.
        settings: What may be fetched, from where, with which credentials, and how much.
        ca_bundle: Certificates to trust for https (None: the system's).
        store: Directory of the store; several runs may share it.
        model: The model's name and version, for messages.
        on_line: Gets a line for each thing that happens.

    Returns:
        The source. Its tree is complete, checked and read-only.

    Raises:
        SourceError: One of its kinds (`source_errors`); the message names the model and the path or address.
            Nothing half-fetched is left behind.
    """
    began = time.monotonic()
    deadline = began + settings.timeout_seconds
    place = SourceStore(store)
    try:
        address = resolve_address(
            repo_url, settings, hub_endpoint=os.environ.get("HF_ENDPOINT") or DEFAULT_HUB
        )
        revision = branch or address.revision
        with place.exclusive(address.url, settings.timeout_seconds), place.scratch() as scratch:
            repository = _repository(address, scratch, settings, ca_bundle, deadline, on_line)
            commit, sealed = _fetch(repository, address.url, revision, place, scratch, settings, on_line)
    except SourceError as error:
        raise error.about(model) from error
    return Source.model_validate(
        {
            "kind": repository.kind,
            "url": address.url,
            "requested_revision": revision,
            "commit": commit,
            "digest": sealed.digest,
            "path": place.tree(sealed.digest),
            "size_bytes": sealed.size_bytes,
            "files": sealed.files,
            "readme": _readme(place.tree(sealed.digest), sealed),
            "seconds": time.monotonic() - began,
        }
    )


def _repository(
    address: RepositoryAddress,
    scratch: Path,
    settings: SourceSettings,
    ca_bundle: Path | None,
    deadline: float,
    on_line: Callable[[str], None],
) -> _Repository:
    if address.kind == "path":
        path = resolve_path(str(address.path), settings)
        if not is_git_repository(path):
            return PlainDirectory(path, settings)
        address = address.model_copy(update={"path": str(path)})
    kind = HubRepository if address.kind == "hub" else GitRepository
    return kind(address, scratch, settings=settings, ca_bundle=ca_bundle, deadline=deadline, on_line=on_line)


def _fetch(
    repository: _Repository,
    url: str,
    revision: str | None,
    place: SourceStore,
    scratch: Path,
    settings: SourceSettings,
    on_line: Callable[[str], None],
) -> tuple[str, SealedTree]:
    if revision is not None and repository.pins(revision) and (found := place.find(url, revision)):
        on_line(f"{url} at {revision[:19]} is in the store.")
        return revision, found
    commit = repository.commit_of(revision)
    if found := place.find(url, commit):
        on_line(f"{url} at {commit[:19]} is in the store.")
        return commit, found
    on_line(f"Fetching {url} at {commit[:19]}.")
    tree = scratch / "tree"
    tree.mkdir()
    commit = repository.unpack(commit, tree)
    sealed = seal_tree(tree, settings)
    if not sealed.files:
        raise SourceRefused(
            f"{url} holds no files at {commit[:19]}.", remedy="Give the branch that holds the model."
        )
    if repository.kind == "directory":
        commit = sealed.digest  # of what was copied, should somebody have written meanwhile
    place.place(tree, sealed, url, commit)
    on_line(f"Fetched {len(sealed.files)} files, {sealed.size_bytes:,} bytes, {sealed.digest[:19]}.")
    return commit, sealed


def _readme(tree: Path, sealed: SealedTree) -> str | None:
    for file in sealed.files:
        if file.path.lower() == "readme.md" and file.mode != "link" and file.size_bytes <= _MAX_README_BYTES:
            return (tree / file.path).read_text(encoding="utf-8-sig", errors="replace")
    return None
