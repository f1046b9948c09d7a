"""What is sent to the engine: archives in pieces."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from constellation_docker.engine.stream import UploadFailed, never

Archive = Path | BinaryIO | Iterable[bytes]

_CHUNK_BYTES = 256 * 1024
_GZIP = b"\x1f\x8b"


def read_pieces(archive: Archive, has_left: Callable[[], bool] = never) -> Iterator[bytes]:
    """Yield an archive in pieces, until the reader of the answer has left.

    Args:
        archive: A tar archive, as a path, an open file or in pieces.
        has_left: Whether nobody waits for the answer any more.

    Raises:
        UploadFailed: It cannot be read (its cause says why), or nobody waits. It keeps a missing file from being
            taken for an engine that went away.
    """
    pieces = _pieces(archive)
    while not has_left():
        try:
            piece = next(pieces)
        except StopIteration:
            return
        except OSError as error:
            raise UploadFailed from error
        if piece:
            yield piece
    raise UploadFailed


def compress(pieces: Iterator[bytes], level: int) -> Iterator[bytes]:
    """Yield an archive in gzip, which BuildKit needs to tell an archive from a Dockerfile; as it is, if it already is.

    Args:
        pieces: A tar archive.
        level: 0 stores (for an engine on this machine), 1 is quick; higher costs more time than it saves.
    """
    first = next(pieces, b"")
    everything = itertools.chain([first], pieces)
    if first.startswith(_GZIP):
        yield from everything
        return
    packer = zlib.compressobj(level, wbits=31)
    for piece in everything:
        if packed := packer.compress(piece):
            yield packed
    yield packer.flush()


def _pieces(archive: Archive) -> Iterator[bytes]:
    if isinstance(archive, Path):
        with archive.open("rb") as file:
            yield from _pieces(file)
        return
    read = getattr(archive, "read", None)
    if read is None:
        yield from archive
        return
    while piece := read(_CHUNK_BYTES):
        yield piece
