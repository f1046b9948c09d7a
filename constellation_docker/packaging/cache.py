"""The cache in `home`: sources, locks, exports and records that no model of the card store needs any more."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

_OUTSIDE = {"commits", "locks", "scratch"}
"""Folders beside the sources in their store that hold none."""


@dataclass(frozen=True)
class CacheEntry:
    """One thing in the cache.

    Attributes:
        kind: `source`, `lock`, `export` or `record`.
        path: Where it is.
        key: What refers to it: a digest without its algorithm, or of a record its partition.
        size_bytes: What it takes.
        touched_at: When it was written, in seconds since 1970.
    """

    kind: str
    path: Path
    key: str
    size_bytes: int
    touched_at: float


def list_cache(home: Path) -> tuple[CacheEntry, ...]:
    """Everything in the cache.

    Args:
        home: The `home` setting.
    """
    found: list[CacheEntry] = []
    for path in _children(home / "sources"):
        if path.name not in _OUTSIDE and path.is_dir():
            found += _entry("source", path, path.name)
    for kind, folder in (("lock", "locks"), ("export", "exports")):
        for path in _children(home / folder):
            found += _entry(kind, path, path.name.partition(".")[0])
    for asset in _children(home / "records"):
        for path in _children(asset):
            if path.suffix == ".json":
                found += _entry("record", path, unquote(path.stem))
    return tuple(found)


def plan_cache_removal(
    entries: Sequence[CacheEntry],
    *,
    living: Collection[str],
    needed: str,
    now: float,
    cache_seconds: float,
) -> tuple[CacheEntry, ...]:
    """What may go: old things that nothing refers to.

    Args:
        entries: What there is.
        living: Partitions of the model versions that the card store has.
        needed: The text of the records of versions that are not published yet; what it names, stays.
        now: Seconds since 1970.
        cache_seconds: What is younger stays.
    """
    return tuple(
        entry
        for entry in entries
        if now - entry.touched_at >= cache_seconds
        and (entry.key not in living if entry.kind == "record" else entry.key not in needed)
    )


def read_records(entries: Iterable[CacheEntry], partitions: Collection[str]) -> str:
    """The text of the records of some model versions."""
    texts = []
    for entry in entries:
        if entry.kind == "record" and entry.key in partitions:
            with suppress(OSError):
                texts.append(entry.path.read_text(encoding="utf-8", errors="replace"))
    return "\n".join(texts)


def remove_cached(entry: CacheEntry) -> None:
    """Remove one thing. Whoever looks meanwhile finds it whole or not at all."""
    if not entry.path.is_dir():
        entry.path.unlink(missing_ok=True)
        return
    # Without this a source is not there, whatever is left of it.
    (entry.path / "source.json").unlink(missing_ok=True)
    for folder in [
        entry.path,
        *(path for path in entry.path.rglob("*") if path.is_dir() and not path.is_symlink()),
    ]:
        folder.chmod(0o755)
    shutil.rmtree(entry.path, ignore_errors=True)


def _entry(kind: str, path: Path, key: str) -> list[CacheEntry]:
    try:
        files = [path] if path.is_file() else [item for item in path.rglob("*") if item.is_file()]
        size = sum(item.lstat().st_size for item in files)
        return [CacheEntry(kind, path, key, size, path.lstat().st_mtime)]
    except OSError:
        return []  # it went while we looked


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []
