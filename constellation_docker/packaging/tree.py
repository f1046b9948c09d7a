"""A fetched tree of files: what may be in it, and the digest that says what is.

Whatever a repository came from, its files pass through `seal_tree` before anyone reads them.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from constellation_docker.packaging.source_errors import LargeFileMissing, SourceTooLarge, SourceUnsafe
from constellation_docker.settings import SourceSettings

SOURCE_EPOCH = 1_000_000_000
"""The time of every file in a sealed tree, in seconds since 1970: any fixed one."""

POINTER_MAX_BYTES = 1024
"""Git LFS writes pointers shorter than this (git-lfs, docs/spec.md)."""

_POINTER = re.compile(
    rb"version https://(?:git-lfs\.github\.com|hawser\.github\.com)/spec/v1\n(?:[a-z0-9.-]+ [^\n]*\n)*?"
    rb"oid sha256:(?P<oid>[0-9a-f]{64})\n(?:[a-z0-9.-]+ [^\n]*\n)*?size (?P<size>[0-9]{1,18})\n?"
)
_MAX_NAME_BYTES = 255
_MAX_PATH_BYTES = 1024


class SourceFile(BaseModel):
    """One file of a sealed tree.

    Attributes:
        path: Its path in the repository, with `/`.
        size_bytes: Its length; for a link, the length of its target's name.
        sha256: Of its content, in hexadecimal; for a link, of its target's name.
        mode: `file`, `executable` or `link`.
    """

    model_config = ConfigDict(frozen=True)

    path: str
    size_bytes: int
    sha256: str
    mode: str = "file"


class Pointer(NamedTuple):
    """What a Git LFS pointer points to."""

    oid: str
    size_bytes: int


class SealedTree(NamedTuple):
    """What a tree holds, in the order of its paths."""

    files: tuple[SourceFile, ...]
    digest: str
    size_bytes: int


def seal_tree(tree: Path, settings: SourceSettings) -> SealedTree:
    """Check every file of a tree, make it read-only and undated, and compute its digest.

    Args:
        tree: A directory that nobody else writes to.
        settings: The limits.

    Returns:
        Its files and its digest: SHA-256 over one line `mode sha256 path` per file, sorted by path.

    Raises:
        SourceUnsafe: A link leads out of the tree, or something is neither a file, a directory nor a link.
        SourceTooLarge: A file, the sum of them or their number is over its limit.
        LargeFileMissing: A file is still a Git LFS pointer.
    """
    budget = Budget(settings)
    files = []
    directories = [tree]
    for path, entry in _walk(tree):
        check_name(path)
        facts = entry.stat(follow_symlinks=False)
        if stat.S_ISDIR(facts.st_mode):
            directories.append(Path(entry.path))
            continue
        budget.spend(path, facts.st_size)
        files.append(_seal_file(tree, path, facts))
    for directory in reversed(directories):
        directory.chmod(0o555)
        os.utime(directory, (SOURCE_EPOCH, SOURCE_EPOCH))
    files.sort(key=lambda file: file.path.encode())
    return SealedTree(tuple(files), tree_digest(files), budget.size_bytes)


def tree_digest(files: Iterable[SourceFile]) -> str:
    """The content digest of files that are sorted by path."""
    lines = "".join(f"{file.mode} {file.sha256} {file.path}\n" for file in files)
    return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"


class Budget:
    """How much of a repository's limits is used up, before or while its files are written."""

    def __init__(self, settings: SourceSettings) -> None:
        self._settings = settings
        self.size_bytes = 0
        self.files = 0

    def spend(self, path: str, size_bytes: int) -> None:
        """Count one file.

        Raises:
            SourceTooLarge: With it a limit is passed.
        """
        limits = self._settings
        self.files += 1
        self.size_bytes += size_bytes
        if size_bytes > limits.max_file_bytes:
            raise SourceTooLarge(
                f"The file {path!r} has {size_bytes:,} bytes; at most {limits.max_file_bytes:,} are allowed.",
                remedy="Take it out of the repository, or raise source.max_file_bytes.",
                path=path,
                size_bytes=size_bytes,
            )
        if self.size_bytes > limits.max_repository_bytes:
            raise too_large(limits, path)
        if self.files > limits.max_files:
            raise SourceTooLarge(
                f"The repository has more than {limits.max_files:,} files (the one too many: {path!r}).",
                remedy="Take out what the model does not need, or raise source.max_files.",
                path=path,
            )


def too_large(settings: SourceSettings, path: str | None = None) -> SourceTooLarge:
    """The error for a repository over its limit; `path` is the file with which it passed it."""
    where = f" (reached with {path!r})" if path else ""
    return SourceTooLarge(
        f"The repository has more than {settings.max_repository_bytes:,} bytes{where}.",
        remedy="Take out what the model does not need, or raise source.max_repository_bytes.",
        **({"path": path} if path else {}),
    )


def check_name(path: str) -> None:
    """Make sure that a file may be written under its name.

    Raises:
        SourceUnsafe: The name is not UTF-8, holds control characters, leaves the tree, is part of a git
            directory, or is longer than file systems take.
    """
    why = None
    try:
        raw = path.encode()
    except UnicodeEncodeError:
        raise _unsafe(path, "its name is not UTF-8") from None
    pieces = path.split("/")
    if any(ord(character) < 32 or 127 <= ord(character) < 160 for character in path):
        why = "its name holds control characters"
    elif (
        not path or path.startswith("/") or "\\" in path or any(piece in {"", ".", ".."} for piece in pieces)
    ):
        why = "its name leads elsewhere"
    elif any(piece.lower() == ".git" for piece in pieces):
        why = "it belongs to a git directory"
    elif len(raw) > _MAX_PATH_BYTES or any(len(piece.encode()) > _MAX_NAME_BYTES for piece in pieces):
        why = "its name is too long"
    if why:
        raise _unsafe(path, why)


def check_link(path: str, target: str) -> None:
    """Make sure, by its text alone, that a link stays in the tree.

    Raises:
        SourceUnsafe: It is absolute, or climbs over the tree's top.
    """
    if target.startswith("/") or not target or "\0" in target:
        raise _unsafe(path, f"it is a link to {target!r}, outside the repository")
    if os.path.normpath(f"{Path(path).parent.as_posix()}/{target}").split("/")[0] == "..":
        raise _unsafe(path, f"it is a link to {target!r}, outside the repository")


def lfs_pointer(content: bytes) -> Pointer | None:
    """What a small file points to, if it is a Git LFS pointer (git-lfs, docs/spec.md)."""
    if len(content) >= POINTER_MAX_BYTES:
        return None
    match = _POINTER.fullmatch(content)
    return Pointer(match["oid"].decode(), int(match["size"])) if match else None


def _walk(tree: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    pending = [("", os.fspath(tree))]
    while pending:
        prefix, directory = pending.pop()
        with os.scandir(directory) as entries:
            for entry in entries:
                path = prefix + entry.name
                yield path, entry
                if entry.is_dir(follow_symlinks=False):
                    pending.append((path + "/", entry.path))


def _seal_file(tree: Path, path: str, facts: os.stat_result) -> SourceFile:
    place = tree / path
    if stat.S_ISLNK(facts.st_mode):
        target = os.fspath(place.readlink())
        check_link(path, target)
        # A chain of links may leave the tree although each of them looks harmless.
        if not place.resolve().is_relative_to(tree.resolve()):
            raise _unsafe(path, f"it is a link to {target!r}, outside the repository")
        os.utime(place, (SOURCE_EPOCH, SOURCE_EPOCH), follow_symlinks=False)
        content = target.encode()
        return SourceFile(
            path=path, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest(), mode="link"
        )
    if not stat.S_ISREG(facts.st_mode):
        raise _unsafe(path, f"it is {_kind(facts.st_mode)}, not a file")
    with place.open("rb") as file:
        if facts.st_size < POINTER_MAX_BYTES:
            content = file.read()
            if lfs_pointer(content):
                raise unresolved_pointer(path)
            sha256 = hashlib.sha256(content).hexdigest()
        else:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    is_executable = bool(facts.st_mode & 0o100)
    place.chmod(0o555 if is_executable else 0o444)
    os.utime(place, (SOURCE_EPOCH, SOURCE_EPOCH))
    return SourceFile(
        path=path, size_bytes=facts.st_size, sha256=sha256, mode="executable" if is_executable else "file"
    )


def unresolved_pointer(path: str) -> LargeFileMissing:
    """The error for a Git LFS pointer that stands where a file should be."""
    return LargeFileMissing(
        f"{path!r} is a Git LFS pointer; the file itself is not there.",
        remedy="Push the file with `git lfs push --all`, or copy the directory after `git lfs pull`.",
        path=path,
    )


def _unsafe(path: str, why: str) -> SourceUnsafe:
    shown = path.encode("utf-8", "backslashreplace").decode()
    return SourceUnsafe(
        f"The repository cannot be used because of {shown!r}: {why}.",
        remedy="Remove or rename it in the repository.",
        path=shown,
    )


def _kind(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "a named pipe"
    if stat.S_ISSOCK(mode):
        return "a socket"
    return "a device"
