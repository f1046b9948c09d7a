"""Which packages a model asks for, and on which line of which file.

What is read: `requirements.txt` (with `-r` and `-c` inside the repository), `pyproject.toml`, `Pipfile` and
the card's `dependencies`.
Lines that a lock with hashes cannot hold, or that would fetch from places the settings do not name, are
refused with their origin: addresses and git references, paths, `-e`, indexes of their own. Three things are
mapped: `--pre` allows pre-releases, hashes are dropped (the lock has its own), and PyTorch's own indexes are
dropped in favour of the setting `index.torch_backend`.
"""

from __future__ import annotations

import codecs
import posixpath
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from constellation_docker.cards import ModelCard
from constellation_docker.packaging.lock_errors import RequirementRefused
from constellation_docker.packaging.project_files import read_pipfile, read_pyproject
from constellation_docker.packaging.requirements import (
    COMMENT,
    Requirements,
    is_known_index,
    parse_requirement,
    refused,
)
from constellation_docker.packaging.source import Source
from constellation_docker.settings import IndexSettings

_MAX_BYTES = 1024 * 1024
_HASH = re.compile(r"\s--hash[= ]\S+")
_INDEX_OPTION = re.compile(
    r"(?:-i|-f|--(?:index-url|extra-index-url|find-links|trusted-host))(?:[ =]+|(?<=-[if]))(\S+)"
)
_HARMLESS = re.compile(r"--(?:prefer-binary|only-binary|require-hashes|no-binary|use-feature)\b.*|--no-index")
_NESTED = re.compile(r"(-r|--requirement|-c|--constraint)(?:[ =]+|(?<=-[rc]))(\S+)")


def gather_requirements(source: Source, card: ModelCard, settings: IndexSettings) -> Requirements:
    """Every requirement of a model, with its origin.

    Args:
        source: The repository.
        card: The card, merged with the repository's.
        settings: The known indexes, which lines may name without being refused.

    Raises:
        RequirementRefused: A line cannot be used; it names file and line.
    """
    found = Requirements()
    if text := _read(source, "requirements.txt"):
        _RequirementsFile(source, settings, found).read("requirements.txt", text)
    if text := _read(source, "pyproject.toml"):
        read_pyproject(text, found)
    if text := _read(source, "Pipfile"):
        read_pipfile(text, settings, found)
    for number, dependency in enumerate(card.dependencies, start=1):
        origin = f"the card, dependencies[{number}]"
        found.lines.append(parse_requirement(_HASH.sub("", dependency), origin))
    return found


def _read(source: Source, path: str) -> str | None:
    """A text file of the repository, in whatever encoding its first bytes say."""
    if not any(file.path == path and file.mode != "link" for file in source.files):
        return None
    place = source.path / path
    if place.stat().st_size > _MAX_BYTES:
        raise RequirementRefused(
            f"{path} has more than {_MAX_BYTES:,} bytes.", remedy="Keep only requirements in it.", origin=path
        )
    raw = place.read_bytes()
    encoding = "utf-16" if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError:
        raise RequirementRefused(f"{path} is not UTF-8.", remedy="Save it as UTF-8.", origin=path) from None


class _RequirementsFile:
    """Reads a pip requirements file and those that it includes."""

    def __init__(self, source: Source, settings: IndexSettings, found: Requirements) -> None:
        self._source = source
        self._settings = settings
        self._found = found
        self._seen: set[tuple[str, bool]] = set()

    def read(self, path: str, text: str, *, is_constraint: bool = False) -> None:
        if (path, is_constraint) in self._seen:
            return
        self._seen.add((path, is_constraint))
        for number, line in _logical_lines(text):
            self._read_line(line, f"{path}:{number}", path, is_constraint)

    def _read_line(self, line: str, origin: str, path: str, is_constraint: bool) -> None:
        if nested := _NESTED.fullmatch(line):
            self._include(nested[2], origin, path, is_constraint or nested[1] in {"-c", "--constraint"})
        elif line == "--pre":
            self._found.allows_prereleases = True
        elif option := _INDEX_OPTION.fullmatch(line):
            self._take_index(option[1], line, origin)
        elif _HARMLESS.fullmatch(line):
            self._found.notices.append(
                f"{origin}: {line.split(maxsplit=1)[0]} is left out; the lock decides that itself."
            )
        elif line.startswith("--"):
            raise refused(line, origin, "is an option that locks do not know", "Take the line out.")
        else:
            stripped = _HASH.sub("", line)
            target = self._found.constraints if is_constraint else self._found.lines
            target.append(parse_requirement(stripped, origin))
            if stripped != line:
                self._found.notices.append(f"{origin}: its hashes are left out; the lock has its own.")

    def _include(self, name: str, origin: str, path: str, is_constraint: bool) -> None:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), name))
        text = None
        if "://" not in name and not target.startswith(("/", "..")):
            text = _read(self._source, target)
        if text is None:
            raise refused(
                name,
                origin,
                "names a file that is not in the repository",
                "Commit the file, or take the line out.",
            )
        self.read(target, text, is_constraint=is_constraint)

    def _take_index(self, url: str, line: str, origin: str) -> None:
        host = urlsplit(url).hostname or url
        if host == "download.pytorch.org":
            chosen = self._settings.torch_backend
            self._found.notices.append(
                f"{origin}: PyTorch's index is left out; the setting index.torch_backend ({chosen}) chooses torch's build."
            )
        elif is_known_index(url, self._settings) or line.startswith("--trusted-host"):
            self._found.notices.append(
                f"{origin}: {line.split(maxsplit=1)[0]} is left out; the settings name the indexes."
            )
        else:
            raise refused(
                line,
                origin,
                "names a package index of its own",
                "Let the operator add it to index.extra_urls, then take the line out or leave it as it is.",
            )


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines without comments, those that end in a backslash joined, with the number of the first."""
    pending, first = "", 0
    for number, raw in enumerate(text.splitlines(), start=1):
        line = COMMENT.sub("", raw)
        first = first or number
        if line.rstrip().endswith("\\") and raw.rstrip().endswith("\\"):
            pending += line.rstrip()[:-1] + " "
            continue
        joined = (pending + line).strip()
        if joined:
            yield first, re.sub(r"\s+", " ", joined)
        pending, first = "", 0
    if pending.strip():
        yield first, re.sub(r"\s+", " ", pending.strip())
