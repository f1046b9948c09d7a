"""The build context: what is sent to the engine, file by file.

It is streamed from disk, so that weights are never held in memory, and it is the same bytes every time:
sorted names, one time, one owner. Everything that only the build itself may see (uv, certificates,
wheels, credentials) lies under `build/`, which the Dockerfile mounts and never copies.
"""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from constellation_docker.errors import ConstellationError
from constellation_docker.packaging.assembly import EPOCH
from constellation_docker.packaging.materials import BuildMaterials
from constellation_docker.packaging.recipe import ASSEMBLY_PATH, ImageRecipe
from constellation_docker.packaging.source import Source
from constellation_docker.packaging.tree import SourceFile

CHUNK_BYTES = 1024 * 1024


class ContextChanged(ConstellationError):
    """A file of the context was changed or removed while it was sent."""

    code = "context_changed"
    is_transient = True


@dataclass(frozen=True)
class ContextFile:
    """One file of a context.

    Attributes:
        path: Where it lies in the context, with forward slashes.
        origin: Where its content is read from, or None for `content`.
        content: Its content, for small files that are made up here. Kept out of `repr`, as it may be secret.
        size_bytes: Length of its content.
        link: What it points to, where it is a symbolic link.
        is_executable: Whether its mode is 755 instead of 644.
        is_secret: Whether only the build's root may read it; such files are mounted, never copied.
    """

    path: str
    origin: Path | None = None
    content: bytes = field(default=b"", repr=False)
    size_bytes: int = 0
    link: str = ""
    is_executable: bool = False
    is_secret: bool = False

    @classmethod
    def of_path(cls, path: str, origin: Path, *, is_executable: bool = False) -> ContextFile:
        """A file whose content is on disk."""
        return cls(path, origin=origin, size_bytes=origin.stat().st_size, is_executable=is_executable)

    @classmethod
    def of_source(cls, path: str, source: Source, file: SourceFile) -> ContextFile:
        """A file of a fetched repository."""
        origin = source.path / file.path
        if file.mode == "link":
            return cls(path, link=str(origin.readlink()))
        return cls.of_path(path, origin, is_executable=file.mode == "executable")

    @classmethod
    def of_content(cls, path: str, content: bytes, *, is_secret: bool = False) -> ContextFile:
        """A file whose content is at hand."""
        return cls(path, content=content, size_bytes=len(content), is_secret=is_secret)

    @property
    def mode(self) -> int:
        """Permission bits."""
        if self.is_secret:
            return 0o600
        return 0o755 if self.is_executable else 0o644


def plan_environment_context(recipe: ImageRecipe, materials: BuildMaterials) -> tuple[ContextFile, ...]:
    """What the environment's own build needs: no server, no weights, no card."""
    lock_text = recipe.lock.text if recipe.lock else ""
    files = [
        ContextFile.of_content("Dockerfile", recipe.dockerfile.encode()),
        ContextFile.of_path("build/assembly.py", ASSEMBLY_PATH),
        ContextFile.of_path("build/uv", materials.uv, is_executable=True),
        ContextFile.of_content("build/arguments.json", json.dumps(materials.arguments).encode()),
        ContextFile.of_content("build/requirements.lock", lock_text.encode()),
        *(ContextFile.of_path(f"build/wheelhouse/{wheel.name}", wheel) for wheel in materials.wheels),
    ]
    if materials.ca_bundle:
        files.append(ContextFile.of_path("build/ca.crt", materials.ca_bundle))
    if materials.credentials:
        secret = json.dumps(materials.credentials).encode()
        files.append(ContextFile.of_content("build/credentials.json", secret, is_secret=True))
    return _ordered(files)


def plan_model_context(recipe: ImageRecipe) -> tuple[ContextFile, ...]:
    """What is built upon an environment: server, model and card."""
    assert recipe.server is not None and recipe.source is not None
    files = [
        ContextFile.of_content("Dockerfile", recipe.dockerfile.encode()),
        ContextFile.of_path("build/assembly.py", ASSEMBLY_PATH),
        ContextFile.of_content("layers/card/card/README.md", recipe.card_text.encode()),
        ContextFile.of_content("layers/card/card/serving.json", recipe.serving_text.encode()),
    ]
    for path in recipe.server.files():
        inside = path.relative_to(recipe.server.path).as_posix()
        files.append(ContextFile.of_path(f"build/server/constellation_serving/{inside}", path))
    files += [
        ContextFile.of_source(f"layers/model/model/{file.path}", recipe.source, file) for file in recipe.files
    ]
    return _ordered(files)


def plan_whole_context(recipe: ImageRecipe, materials: BuildMaterials) -> tuple[ContextFile, ...]:
    """What a build needs that finds nothing on its engine: with `write_context`, for `docker buildx build`."""
    files = {file.path: file for file in plan_environment_context(recipe, materials)}
    return _ordered((files | {file.path: file for file in plan_model_context(recipe)}).values())


def plan_repository_context(recipe: ImageRecipe) -> tuple[ContextFile, ...]:
    """A repository as it is, for its own Dockerfile."""
    assert recipe.source is not None
    source = recipe.source
    return _ordered(ContextFile.of_source(file.path, source, file) for file in source.files)


def stream_context(files: Sequence[ContextFile]) -> Iterator[bytes]:
    """The context as a plain tar archive, piece by piece; the engine's room wraps it as its builder needs.

    Raises:
        ContextChanged: A file grew, shrank or went away in between.
    """
    directories = {
        parent.as_posix() for file in files for parent in Path(file.path).parents if parent.as_posix() != "."
    }
    for name in sorted(directories):
        yield _header(name, 0o755, kind=tarfile.DIRTYPE)
    for file in files:
        if file.link:
            yield _header(file.path, 0o777, kind=tarfile.SYMTYPE, link=file.link)
            continue
        yield _header(file.path, file.mode, size=file.size_bytes)
        yield from _content(file)
        if padding := -file.size_bytes % tarfile.BLOCKSIZE:
            yield bytes(padding)
    yield bytes(2 * tarfile.BLOCKSIZE)


def write_context(files: Iterable[ContextFile], directory: Path) -> None:
    """Write the context to an empty directory, for `docker buildx build`, which takes times from the disk."""
    for file in files:
        path = directory / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        if file.link:
            path.symlink_to(file.link)
            continue
        path.touch(mode=0o600)
        with path.open("wb") as written:
            for piece in _content(file):
                written.write(piece)
        path.chmod(file.mode)
    for path in sorted(directory.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
        os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)


def _ordered(files: Iterable[ContextFile]) -> tuple[ContextFile, ...]:
    return tuple(sorted(files, key=lambda file: file.path))


def _header(name: str, mode: int, *, size: int = 0, kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    entry = tarfile.TarInfo(name)
    entry.linkname = link
    entry.type, entry.mode, entry.size, entry.mtime = kind, mode, size, EPOCH
    return entry.tobuf(tarfile.GNU_FORMAT, encoding="utf-8", errors="surrogateescape")


def _content(file: ContextFile) -> Iterator[bytes]:
    if file.origin is None:
        yield file.content
        return
    left = file.size_bytes
    try:
        with file.origin.open("rb") as opened:
            while piece := opened.read(CHUNK_BYTES):
                left -= len(piece)
                if left < 0:
                    break
                yield piece
    except OSError as error:
        raise _changed(file) from error
    if left:
        raise _changed(file)


def _changed(file: ContextFile) -> ContextChanged:
    return ContextChanged(
        f"{file.origin} changed while it was sent to the engine.",
        remedy="Run this again when nothing writes to it.",
        path=str(file.origin),
    )
