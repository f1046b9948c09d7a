"""Fetched sources by their content, on this machine's disk.

    <store>/sources/<digest>/tree/…        the files, read-only
    <store>/sources/<digest>/source.json   what they are
    <store>/sources/commits/<key>.json     which digest a commit of a repository has
    <store>/sources/locks/<key>            held while one address is fetched
    <store>/sources/scratch/<name>/        fetches under way

Everything appears under its final name by one rename, so a fetch that is killed leaves only a scratch
directory. The next fetch removes it: the lock beside it is free, because locks die with their process.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import TypeAdapter, ValidationError

from constellation_docker.packaging.source_errors import SourceStoreFull, SourceTimedOut
from constellation_docker.packaging.tree import SealedTree, SourceFile, tree_digest

_FILES = TypeAdapter(tuple[SourceFile, ...])


class SourceStore:
    """The directory of fetched sources.

    Args:
        root: The store's directory; made when missing. Several processes may share it.
    """

    def __init__(self, root: Path) -> None:
        self._sources = root.absolute() / "sources"
        for name in ("commits", "locks", "scratch"):
            (self._sources / name).mkdir(parents=True, exist_ok=True)

    @contextmanager
    def exclusive(self, url: str, timeout_seconds: float) -> Iterator[None]:
        """Hold the right to fetch from one address.

        Raises:
            SourceTimedOut: Another process held it all the time.
        """
        lock = FileLock(self._sources / "locks" / _key(url), timeout=timeout_seconds)
        try:
            lock.acquire()
        except Timeout:
            raise SourceTimedOut(
                f"{url} is being fetched by another process, and was so for {timeout_seconds:.0f} seconds.",
                remedy="Wait for the other run to end, then run this one again.",
            ) from None
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """An empty directory on the store's own file system, gone afterwards.

        Raises:
            SourceStoreFull: The disk became full.
        """
        parent = self._sources / "scratch"
        _remove_dead(parent)
        directory = parent / uuid.uuid4().hex
        lock_path = Path(f"{directory}.lock")
        with FileLock(lock_path):
            directory.mkdir()
            try:
                yield directory
            except OSError as error:
                if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                    raise store_full(self._sources) from error
                raise
            finally:
                _remove(directory)
                lock_path.unlink(missing_ok=True)

    def tree(self, digest: str) -> Path:
        """Where the files of a digest lie."""
        return self._sources / digest.removeprefix("sha256:") / "tree"

    def find(self, url: str, commit: str) -> SealedTree | None:
        """What a commit of a repository holds, if it was fetched before and is still whole."""
        digest = _read_json(self._sources / "commits" / f"{_key(url, commit)}.json")
        return self.load(digest) if isinstance(digest, str) else None

    def load(self, digest: str) -> SealedTree | None:
        """The tree of a digest, if all of its files are there with their sizes."""
        record = _read_json(self.tree(digest).with_name("source.json"))
        try:
            files = _FILES.validate_python(record)
        except ValidationError:
            return None
        if tree_digest(files) != digest or not all(_is_there(self.tree(digest), file) for file in files):
            return None
        return SealedTree(files, digest, sum(file.size_bytes for file in files))

    def place(self, tree: Path, sealed: SealedTree, url: str, commit: str) -> Path:
        """Move a sealed tree out of its scratch directory to its final place, and note its commit.

        Args:
            tree: The tree, alone in a directory of its own under `scratch`.
            sealed: What `seal_tree` said of it.
            url: The repository.
            commit: The commit that it is.
        """
        final = self.tree(sealed.digest).parent
        if self.load(sealed.digest) is None:
            bundle = tree.parent / f"{tree.name}-bundle"
            bundle.mkdir()
            tree.chmod(0o755)  # a directory can only be moved by who may write to it
            tree.rename(bundle / "tree")
            _write_json(bundle / "source.json", _FILES.dump_python(sealed.files, mode="json"))
            if final.exists():
                broken = tree.parent / f"{tree.name}-broken"
                final.rename(broken)
            with suppress(FileExistsError):
                _rename_once(bundle, final)
            (final / "tree").chmod(0o555)
        _write_json(self._sources / "commits" / f"{_key(url, commit)}.json", sealed.digest)
        return final / "tree"


def store_full(where: Path) -> SourceStoreFull:
    """The error for a full disk."""
    return SourceStoreFull(
        f"The disk that holds {where} is full.",
        remedy="Free space there, or move the store (the `home` setting) to a larger disk.",
        directory=str(where),
    )


def _key(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _is_there(tree: Path, file: SourceFile) -> bool:
    try:
        facts = (tree / file.path).lstat()
    except OSError:
        return False
    is_link = stat.S_ISLNK(facts.st_mode)
    return is_link == (file.mode == "link") and facts.st_size == file.size_bytes


def _rename_once(source: Path, target: Path) -> None:
    try:
        source.rename(target)
    except OSError as error:
        if error.errno in {errno.ENOTEMPTY, errno.EEXIST}:
            raise FileExistsError(os.fspath(target)) from error
        raise


def _read_json(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError, UnicodeDecodeError):
        return None


def _write_json(path: Path, value: object) -> None:
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        try:
            json.dump(value, file)
            file.flush()
            Path(file.name).chmod(0o644)
            Path(file.name).rename(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def _remove_dead(parent: Path) -> None:
    """Remove the scratch directories whose process is gone."""
    for lock_path in parent.glob("*.lock"):
        lock = FileLock(lock_path, timeout=0)
        with suppress(Timeout), lock:
            _remove(lock_path.with_suffix(""))
            lock_path.unlink(missing_ok=True)


def _remove(directory: Path) -> None:
    """Remove a tree that may hold read-only directories."""
    for path, _, _ in os.walk(directory):
        Path(path).chmod(0o755)
    shutil.rmtree(directory, ignore_errors=True)
