"""A plain directory of this machine as a repository: its commit is the digest of its content."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from constellation_docker.packaging.source_errors import (
    RepositoryNotFound,
    RevisionNotFound,
    SourceRefused,
    SourceUnsafe,
)
from constellation_docker.packaging.tree import Budget, SourceFile, check_link, check_name, tree_digest
from constellation_docker.settings import SourceSettings

_LEFT_OUT = frozenset({"__pycache__", ".DS_Store"})
"""Names that come and go by themselves and would make every look at a directory another commit."""


class PlainDirectory:
    """A directory that is no git repository.

    Args:
        path: The directory.
        settings: The limits.
    """

    kind = "directory"

    def __init__(self, path: Path, settings: SourceSettings) -> None:
        self._path = path
        self._settings = settings

    @staticmethod
    def pins(revision: str | None) -> bool:
        """Whether a revision names one content for ever."""
        return revision is not None and revision.startswith("sha256:")

    def commit_of(self, revision: str | None) -> str:
        """The digest of what the directory holds now.

        Raises:
            RevisionNotFound: Another digest, or a branch, was asked for.
        """
        digest = tree_digest(sorted(self._files(), key=lambda file: file.path.encode()))
        if revision not in {None, digest}:
            raise RevisionNotFound(
                f"file://{self._path} is a plain directory; it has no revision {revision!r}.",
                remedy="Leave the branch out; a directory is taken as it is, and its digest is its commit.",
                revision=revision,
            )
        return digest

    def unpack(self, commit: str, tree: Path) -> str:
        """Copy the directory into an empty one, files first, then links.

        Returns:
            `commit`; where somebody wrote to the directory meanwhile, sealing the copy tells.
        """
        links = []
        for path, place in self._walk():
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            if place.is_symlink():
                links.append((path, os.fspath(place.readlink())))
                continue
            with _opened(path, place) as (file, mode), (tree / path).open("xb") as copy:
                shutil.copyfileobj(file, copy, 1 << 20)
            (tree / path).chmod(0o755 if mode & 0o100 else 0o644)
        for path, target in links:
            check_link(path, target)
            (tree / path).symlink_to(target)
        return commit

    def _files(self) -> Iterator[SourceFile]:
        for path, place in self._walk():
            if place.is_symlink():
                target = os.fspath(place.readlink())
                check_link(path, target)
                content = target.encode()
                yield SourceFile(
                    path=path,
                    size_bytes=len(content),
                    sha256=hashlib.sha256(content).hexdigest(),
                    mode="link",
                )
                continue
            with _opened(path, place) as (file, mode):
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
                size = os.fstat(file.fileno()).st_size
            yield SourceFile(
                path=path, size_bytes=size, sha256=sha256, mode="executable" if mode & 0o100 else "file"
            )

    def _walk(self) -> Iterator[tuple[str, Path]]:
        """Every file and link, checked by name, kind and size before anything reads it."""
        budget = Budget(self._settings)
        pending = [("", self._path)]
        while pending:
            prefix, directory = pending.pop()
            with os.scandir(directory) as entries:
                for entry in entries:
                    if entry.name in _LEFT_OUT:
                        continue
                    path = prefix + entry.name
                    check_name(path)
                    if entry.is_dir(follow_symlinks=False):
                        pending.append((path + "/", Path(entry.path)))
                        continue
                    facts = entry.stat(follow_symlinks=False)
                    if not stat.S_ISREG(facts.st_mode) and not stat.S_ISLNK(facts.st_mode):
                        raise _not_a_file(path)
                    budget.spend(path, facts.st_size)
                    yield path, Path(entry.path)


def resolve_path(path: str, settings: SourceSettings) -> Path:
    """The directory that a `file:` address means, if it may be read.

    Raises:
        RepositoryNotFound: There is no such directory.
        SourceRefused: It lies outside `source.allowed_directories`, links followed.
    """
    try:
        place = Path(path).resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise RepositoryNotFound(
            f"There is no directory {path} on this machine.",
            remedy="Check the path; it must exist where the packaging runs.",
        ) from error
    if settings.allowed_directories and not any(
        place.is_relative_to(directory.resolve()) for directory in settings.allowed_directories
    ):
        raise SourceRefused(
            f"{path} is not under a directory that repositories may lie in.",
            remedy=f"Use one of {', '.join(map(str, settings.allowed_directories))}, or add it to source.allowed_directories.",
            path=path,
        )
    if not place.is_dir():
        raise RepositoryNotFound(
            f"{path} is not a directory.", remedy="Give the directory that holds the model."
        )
    return place


def is_git_repository(path: Path) -> bool:
    """Whether git would read a directory as a repository, with a work tree or bare."""
    if (path / ".git").exists():
        return True
    return (path / "HEAD").is_file() and (path / "objects").is_dir() and (path / "refs").is_dir()


@contextmanager
def _opened(path: str, place: Path) -> Iterator[tuple[io.BufferedReader, int]]:
    """A regular file and its mode, opened without following a link that took its place meanwhile."""
    try:
        descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENXIO}:
            raise _not_a_file(path) from error
        if error.errno in {errno.EACCES, errno.EPERM}:
            raise _unreadable(path) from error
        raise
    with os.fdopen(descriptor, "rb") as file:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise _not_a_file(path)
        yield file, mode


def _unreadable(path: str) -> SourceRefused:
    return SourceRefused(
        f"{path!r} may not be read.", remedy="Let the user that runs this read it.", path=path
    )


def _not_a_file(path: str) -> SourceUnsafe:
    return SourceUnsafe(
        f"The repository cannot be used because of {path!r}: it is a device, a pipe or a socket, not a file.",
        remedy="Remove it from the directory.",
        path=path,
    )
