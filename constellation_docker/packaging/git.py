"""A git repository: which commit a name means, and the files of that commit.

Exactly one commit is fetched where the server allows it (protocol v2 does), else more. The files are read
out of the object database and written here, never checked out by git, after their names, kinds and sizes
were checked against the tree's listing. Git LFS files are fetched by `git lfs` into its own store, whose
names are the SHA-256 that the pointers promise, and put in the pointers' place.

Submodules are refused: a model's files belong into its repository, where one commit pins all of them.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from constellation_docker.packaging.address import RepositoryAddress, check_revision, resolve_address
from constellation_docker.packaging.child_process import Finished, tail
from constellation_docker.packaging.git_client import GitClient
from constellation_docker.packaging.git_complaints import explain, resolve_redirect
from constellation_docker.packaging.source_errors import (
    GitMissing,
    RevisionNotFound,
    SourceError,
    SourceRefused,
    SourceUnsafe,
)
from constellation_docker.packaging.tree import (
    POINTER_MAX_BYTES,
    Budget,
    Pointer,
    check_link,
    check_name,
    lfs_pointer,
    unresolved_pointer,
)
from constellation_docker.settings import SourceSettings

_FULL_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_SHORT_COMMIT = re.compile(r"[0-9a-f]{4,39}")
_UNADVERTISED = re.compile(
    r"not our ref|unadvertised object|does not allow request|couldn't find remote ref|dumb http transport"
    r"|did not send all necessary objects|does not support shallow",
    re.IGNORECASE,
)
_REDIRECTED = re.compile(r"returned error: 30[12378]|unable to update url base from redirection")
_FOUND = "refs/constellation/source"
_LINK, _SUBMODULE, _EXECUTABLE = "120000", "160000", "100755"


class _Entry(NamedTuple):
    mode: str
    object_id: str
    size_bytes: int
    path: str


class GitRepository:
    """A remote git repository, or one on this machine.

    Args:
        address: Where it lies.
        scratch: An empty directory.
        settings: What is allowed.
        ca_bundle: Certificates to trust.
        deadline: `time.monotonic()` value at which everything ends.
        on_line: Gets a line for each thing that happens.
    """

    kind = "git"

    def __init__(
        self,
        address: RepositoryAddress,
        scratch: Path,
        *,
        settings: SourceSettings,
        ca_bundle: Path | None,
        deadline: float,
        on_line: Callable[[str], None],
    ) -> None:
        self._address = address
        self._server = address
        self._settings = settings
        self._ca_bundle = ca_bundle
        self._deadline = deadline
        self._scratch = scratch
        self._say = on_line
        self._git = self._client(address)
        self._refs: dict[str, str] = {}

    @staticmethod
    def pins(revision: str | None) -> bool:
        """Whether a revision names one commit for ever."""
        return revision is not None and _FULL_COMMIT.fullmatch(revision) is not None

    def commit_of(self, revision: str | None) -> str:
        """The commit that a branch, tag, full or short commit means now; None: the default branch.

        Raises:
            RevisionNotFound: There is none.
        """
        check_revision(revision)
        if revision is None:
            return self._advertised(("HEAD",), "its default branch has no commit")
        if self.pins(revision):
            return revision
        names = (f"refs/heads/{revision}", f"refs/tags/{revision}^{{}}", f"refs/tags/{revision}")
        try:
            return self._advertised((*names, revision) if revision.startswith("refs/") else names, "")
        except RevisionNotFound:
            if _SHORT_COMMIT.fullmatch(revision):
                return self._search(revision)
            raise

    def unpack(self, commit: str, tree: Path) -> str:
        """Fetch one commit and write its files into an empty directory.

        Returns:
            The commit that was fetched: the given one, or a newer one of a branch that moved meanwhile
            on a server that serves branches only.
        """
        fetched = self._fetch(commit)
        entries = self._listing(fetched)
        pointers = self._write(entries, tree)
        if pointers:
            self._resolve_pointers(fetched, pointers, tree)
        return fetched

    def _client(self, address: RepositoryAddress, name: str = "git") -> GitClient:
        directory = self._scratch / name
        shutil.rmtree(directory, ignore_errors=True)
        return GitClient(
            directory, address, settings=self._settings, ca_bundle=self._ca_bundle, deadline=self._deadline
        )

    def _remote(self, *arguments: str) -> Finished:
        """Run a git command that talks to the remote; a redirect is followed if its target is allowed."""
        finished = self._git.run(*arguments)
        if finished.exit_code and _REDIRECTED.search(finished.stderr):
            target = resolve_redirect(self._server, self._settings, self._ca_bundle)
            self._say(f"{self._address.url} redirects to {target.url}.")
            self._server = target
            self._git = self._client(target)
            finished = self._git.run(*arguments)
        return finished

    def _advertised(self, names: Sequence[str], why: str) -> str:
        finished = self._remote("ls-remote", "--quiet", "origin", *names)
        if finished.exit_code:
            raise explain(self._server, finished.stderr)
        found = {}
        for line in finished.stdout.decode(errors="replace").splitlines():
            commit, _, name = line.partition("\t")
            found[name] = commit
        for name in names:
            if name in found:
                self._refs[found[name]] = name.removesuffix("^{}")
                return found[name]
        raise self._not_found(names, why)

    def _not_found(self, names: Sequence[str], why: str) -> RevisionNotFound:
        branches = []
        finished = self._remote("ls-remote", "--quiet", "--heads", "origin")
        for line in finished.stdout.decode(errors="replace").splitlines():
            branches.append(line.partition("\trefs/heads/")[2])
        wanted = names[0].removeprefix("refs/heads/")
        return RevisionNotFound(
            f"{self._address.url} has no branch, tag or commit {wanted!r}{f': {why}' if why else ''}.",
            remedy=f"It has these branches: {', '.join(branches[:10]) or 'none'}.",
            revision=wanted,
            branches=branches[:50],
        )

    def _search(self, prefix: str) -> str:
        """The one commit whose id begins so; all commits are fetched, without files where the server can."""
        self._say(f"Looking for commit {prefix}… in all branches and tags.")
        finished = self._fetch_refs("--filter=tree:0")
        if finished.exit_code:
            raise explain(self._server, finished.stderr)
        found = self._git.run("rev-parse", "--verify", "--quiet", f"{prefix}^{{commit}}")
        if found.exit_code:
            raise RevisionNotFound(
                f"{self._address.url} has no branch, tag or commit {prefix!r}, or several commits that begin so.",
                remedy="Give the full commit.",
                revision=prefix,
            )
        commit = found.stdout.decode().strip()
        self._git = self._client(self._server)  # without its trees a commit cannot be listed
        return commit

    def _fetch_refs(self, *options: str) -> Finished:
        return self._remote(
            "fetch", "--quiet", "--no-tags", *options, "origin",
            "+refs/heads/*:refs/constellation/heads/*", "+refs/tags/*:refs/constellation/tags/*",
        )  # fmt: skip

    def _fetch(self, commit: str) -> str:
        wanted = [commit, *([self._refs[commit]] if commit in self._refs else [])]
        for name in wanted:
            finished = self._remote(
                "fetch", "--quiet", "--no-tags", "--depth=1", "origin", f"+{name}:{_FOUND}"
            )
            if finished.exit_code == 0:
                return self._git.run("rev-parse", "--verify", f"{_FOUND}^{{commit}}").stdout.decode().strip()
            if not _UNADVERTISED.search(finished.stderr):
                raise explain(self._server, finished.stderr)
        self._say(f"The server does not give {commit[:12]} alone; fetching all branches and tags.")
        finished = self._fetch_refs()
        if finished.exit_code:
            raise explain(self._server, finished.stderr)
        found = self._git.run("rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}")
        if found.exit_code:
            raise RevisionNotFound(
                f"{self._address.url} has no commit {commit}.",
                remedy="Push the commit, or give another branch, tag or commit.",
                revision=commit,
            )
        return found.stdout.decode().strip()

    def _listing(self, commit: str) -> list[_Entry]:
        """The files of a commit, all of them checked by name, kind and size."""
        finished = self._git.run("ls-tree", "-r", "-l", "-z", "--full-tree", commit)
        if finished.exit_code:
            raise explain(self._server, finished.stderr)
        budget = Budget(self._settings)
        entries = []
        for record in filter(None, finished.stdout.split(b"\0")):
            facts, _, name = record.partition(b"\t")
            mode, _, object_id, size = facts.decode().split()
            path = name.decode("utf-8", "surrogateescape")
            check_name(path)
            if mode == _SUBMODULE:
                raise SourceRefused(
                    f"{path!r} is a git submodule, and submodules are not fetched.",
                    remedy="Put the files that the model needs into its own repository.",
                    path=path,
                )
            budget.spend(path, int(size))
            entries.append(_Entry(mode, object_id, int(size), path))
        _check_places(entries)
        return entries

    def _write(self, entries: Sequence[_Entry], tree: Path) -> dict[str, Pointer]:
        """Write the files, then the links; returns what is a Git LFS pointer."""
        pointers = {}
        with self._git.open_objects() as objects:
            for entry in sorted(entries, key=lambda entry: entry.mode == _LINK):
                place = tree / entry.path
                place.parent.mkdir(parents=True, exist_ok=True)
                with place.open("xb") as file:
                    objects.copy(entry.object_id, file)
                if entry.mode == _LINK:
                    target = place.read_bytes().decode("utf-8", "surrogateescape")
                    check_link(entry.path, target)
                    place.unlink()
                    place.symlink_to(target)
                    continue
                place.chmod(0o755 if entry.mode == _EXECUTABLE else 0o644)
                if entry.size_bytes < POINTER_MAX_BYTES and (pointer := lfs_pointer(place.read_bytes())):
                    pointers[entry.path] = pointer
        return pointers

    def _resolve_pointers(self, commit: str, pointers: dict[str, Pointer], tree: Path) -> None:
        if shutil.which("git-lfs") is None:
            raise GitMissing(
                f"{next(iter(pointers))!r} is stored with Git LFS, and git-lfs is not installed on this machine.",
                remedy="Install the package git-lfs, then run this again.",
                path=next(iter(pointers)),
            )
        budget = Budget(self._settings)
        for path, pointer in pointers.items():
            budget.spend(path, pointer.size_bytes)
        self._say(f"Fetching {len(pointers)} Git LFS files, {budget.size_bytes:,} bytes.")
        self._choose_lfs_server(tree)
        finished = self._git.run("lfs", "fetch", "--include=", "--exclude=", "origin", commit)
        for path, pointer in pointers.items():
            stored = self._git.repository / "lfs/objects" / pointer.oid[:2] / pointer.oid[2:4] / pointer.oid
            if not stored.is_file():
                if finished.exit_code and "404" not in finished.stderr:
                    raise _about_large_file(explain(self._server, finished.stderr), path)
                raise unresolved_pointer(path)
            with stored.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != pointer.oid:
                    raise SourceUnsafe(
                        f"The Git LFS server sent something else than {path!r}.",
                        remedy="Push the file again with `git lfs push --all`.",
                        path=path,
                    )
            mode = (tree / path).stat().st_mode
            (tree / path).unlink()
            shutil.copyfile(stored, tree / path)  # two pointers may share one object
            (tree / path).chmod(mode)

    def _choose_lfs_server(self, tree: Path) -> None:
        """Take the LFS server that the repository names, if repositories may come from there.

        git-lfs itself does not see the repository's `.lfsconfig`: nothing is checked out and HEAD is unborn.
        """
        named = tree / ".lfsconfig"
        if named.is_symlink() or not named.is_file():
            return
        for key in ("remote.origin.lfsurl", "lfs.url"):
            found = self._git.run("config", "--file", os.fspath(named), "--get", key)
            url = found.stdout.decode(errors="replace").strip()
            if url:
                address = resolve_address(url, self._settings)
                if address.kind == "path":
                    raise SourceRefused(
                        f".lfsconfig names the directory {url} as the Git LFS server.",
                        remedy="Name a server in .lfsconfig, or leave it out.",
                        path=".lfsconfig",
                    )
                self._git.run("config", "lfs.url", url)
                return


def _check_places(entries: Sequence[_Entry]) -> None:
    """Make sure that no file lies below another file or link: a tree made by hand could say so."""
    names = {entry.path for entry in entries}
    for entry in entries:
        parents = entry.path.split("/")[:-1]
        if len(names) != len(entries) or any(
            "/".join(parents[: end + 1]) in names for end in range(len(parents))
        ):
            raise SourceUnsafe(
                f"The repository cannot be used because of {entry.path!r}: it lies below a file or occurs twice.",
                remedy="Commit the repository again with git.",
                path=entry.path,
            )


def _about_large_file(error: SourceError, path: str) -> SourceError:
    return type(error)(
        f"The Git LFS file {path!r} could not be fetched. {error.message}",
        remedy=error.remedy,
        path=path,
        log_tail=tail(str(error.details.get("log_tail", ""))),
    )
