"""One question to the resolver, and its answer: packages with versions and hashes, or why there are none."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pydantic import BaseModel, ConfigDict

from constellation_docker.packaging.requirements import RequirementLine
from constellation_docker.packaging.uv_program import UvRunner

_NEEDS_BUILD = re.compile(
    r"Wheels are required for `([\w.-]+)`[^\n]*because building from source is disabled"
)
_MAX_SOURCE_ROUNDS = 8
_INPUT, _CONSTRAINTS, _OVERRIDES, _RESOLVED = "inputs.txt", "constraints.txt", "overrides.txt", "resolved.txt"


class LockedPackage(BaseModel):
    """One package of a lock.

    Attributes:
        name: As indexes spell it.
        version: With its local part, if any.
        required_by: The origins of the lines that ask for it, and the packages that need it.
        size_bytes: Of what is downloaded at most; None where the index does not say.
        is_built: Whether it has no wheel and is built with the image.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    version: str
    required_by: tuple[str, ...] = ()
    size_bytes: int | None = None
    is_built: bool = False


@dataclass(frozen=True)
class Question:
    """What is asked of the resolver.

    Attributes:
        lines: What is needed.
        constraints: What limits versions.
        overrides: uv overrides, which replace what packages say of their needs.
        python: `3.11`.
        platform: A platform of uv's, such as `x86_64-manylinux_2_36`.
        allows_prereleases: Whether pre-releases count.
        exclude_newer: Packages uploaded later do not count.
        torch_backend: Which of PyTorch's indexes serves torch; None: the ordinary index.
        built: Packages that may be built from source.
    """

    lines: tuple[RequirementLine, ...]
    constraints: tuple[RequirementLine, ...]
    overrides: tuple[str, ...]
    python: str
    platform: str
    allows_prereleases: bool = False
    exclude_newer: str | None = None
    torch_backend: str | None = None
    built: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Answer:
    """Packages and the lock's text, or the resolver's complaint.

    Attributes:
        packages: What is installed, by name.
        text: A requirements file with hashes.
        complaint: What the resolver said; empty where it found a solution.
        question: What it answers, with the packages that turned out to need building.
    """

    packages: tuple[LockedPackage, ...]
    text: str
    complaint: str
    question: Question

    @property
    def is_solved(self) -> bool:
        """Whether there is a lock."""
        return not self.complaint

    @property
    def is_unsolvable(self) -> bool:
        """Whether the resolver proved that there is none, and did not just break down."""
        return "No solution found" in self.complaint


def ask(question: Question, uv: UvRunner) -> Answer:
    """Resolve once: find versions, then the files of exactly those versions.

    The second look gives each package's files for this Python and platform alone, with sizes. So a lock
    does not change when somebody uploads a wheel for another platform.
    """
    question, finished_versions = _versions(question, uv)
    if finished_versions.complaint:
        return finished_versions
    text = finished_versions.text
    if not text.strip():
        return Answer((), "", "", question)
    arguments = ["pip", "compile", _RESOLVED, "--format", "pylock.toml", "--no-deps", *_options(question)]
    finished = uv.run(arguments, {_RESOLVED: "".join(f"{line}\n" for line in _pins(text))})
    if finished.exit_code:
        return Answer((), "", _complaint(finished.stderr), question)
    packages, lock_text = _read_pylock(finished.stdout.decode(), _required_by(text))
    return Answer(packages, lock_text, "", question)


def is_solvable(lines: Sequence[RequirementLine], question: Question, uv: UvRunner) -> bool:
    """Whether some of a question's lines can be met by themselves, as far as the resolver can tell."""
    answer = _versions(replace(question, lines=tuple(lines)), uv)[1]
    return not answer.is_unsolvable or _NEEDS_BUILD.search(answer.complaint) is not None


def _versions(question: Question, uv: UvRunner) -> tuple[Question, Answer]:
    """The versions, as `uv pip compile` prints them; packages without wheels are built where that is allowed."""
    files = {
        _INPUT: _text(line.text for line in question.lines),
        _CONSTRAINTS: _text(line.text for line in question.constraints),
        _OVERRIDES: _text(question.overrides),
    }
    for _ in range(_MAX_SOURCE_ROUNDS):
        arguments = ["pip", "compile", _INPUT, "--constraints", _CONSTRAINTS, "--overrides", _OVERRIDES]
        arguments += ["--no-header", "--annotation-style", "split", *_options(question)]
        finished = uv.run(arguments, files)
        if finished.exit_code == 0:
            return question, Answer((), finished.stdout.decode(), "", question)
        complaint = _complaint(finished.stderr)
        wanted = {canonicalize_name(name) for name in _NEEDS_BUILD.findall(complaint)} - question.built
        if not uv.may_build or not wanted:
            break
        question = replace(question, built=question.built | wanted)
    return question, Answer((), "", complaint, question)


def _options(question: Question) -> list[str]:
    options = ["--generate-hashes", "--no-progress", "--color", "never"]
    options += ["--python-version", question.python, "--python-platform", question.platform]
    options += ["--only-binary", ":all:"]
    for name in sorted(question.built):
        options += ["--no-binary", name]
    if question.allows_prereleases:
        options += ["--prerelease", "allow"]
    if question.exclude_newer:
        options += ["--exclude-newer", question.exclude_newer]
    if question.torch_backend:
        options += ["--torch-backend", question.torch_backend]
    return options


def _text(lines: Any) -> str:
    return "".join(f"{line}\n" for line in dict.fromkeys(lines))


def _complaint(stderr: str) -> str:
    """What uv says, without its warnings."""
    kept = re.sub(r"^warning: .*(?:\n  .*)*\n?", "", stderr, flags=re.MULTILINE).strip()
    return kept or stderr.strip() or "uv failed and said nothing"


def _pins(text: str) -> list[str]:
    return [match[1] for match in re.finditer(r"^([A-Za-z0-9][\w.-]*==[^\s\\;]+)", text, re.MULTILINE)]


def _required_by(text: str) -> dict[str, tuple[str, ...]]:
    """The packages that need each package, from uv's annotations."""
    found: dict[str, tuple[str, ...]] = {}
    for block in re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE):
        pin = re.match(r"([A-Za-z0-9][\w.-]*)==", block)
        if not pin:
            continue
        name = canonicalize_name(pin[1])
        needers = []
        for comment in re.findall(r"^[ \t]+#[ \t]*(?:via(?=\s))?[ \t]*(\S[^\n]*)?$", block, re.MULTILINE):
            if comment and not comment.startswith(("-r ", "-c ", "--override")):
                needers.append(comment.strip())
        found[name] = tuple(sorted(needers))
    return found


def _read_pylock(text: str, required_by: dict[str, tuple[str, ...]]) -> tuple[tuple[LockedPackage, ...], str]:
    """Packages and a requirements file from a `pylock.toml` (PEP 751)."""
    packages, lines = [], []
    for entry in sorted(tomllib.loads(text).get("packages", []), key=lambda entry: str(entry["name"])):
        name, version = str(entry["name"]), str(entry["version"])
        wheels = entry.get("wheels") or []
        files = wheels or [entry["sdist"]]
        hashes = sorted({str(file["hashes"]["sha256"]) for file in files})
        sizes = [int(file["size"]) for file in files if "size" in file]
        packages.append(
            LockedPackage(
                name=name,
                version=version,
                required_by=required_by.get(canonicalize_name(name), ()),
                size_bytes=max(sizes) if sizes else None,
                is_built=not wheels,
            )
        )
        lines.append(
            f"{name}=={version}" + "".join(f" \\\n    --hash=sha256:{value}" for value in hashes) + "\n"
        )
    return tuple(packages), "".join(lines)


def with_origins(
    packages: Sequence[LockedPackage], lines: Sequence[RequirementLine]
) -> tuple[LockedPackage, ...]:
    """Locked packages that also name the lines that ask for them."""
    origins: dict[str, list[str]] = {}
    for line in lines:
        origins.setdefault(line.name, []).append(line.origin)
    return tuple(
        package.model_copy(update={"required_by": (*origins.get(package.name, ()), *package.required_by)})
        for package in packages
    )


def names_in(text: str) -> set[str]:
    """Every word of a text that could be a package's name."""
    return {
        canonicalize_name(word) for word in re.findall(r"[A-Za-z0-9][\w.-]*[A-Za-z0-9]|[A-Za-z0-9]", text)
    }


def requirement_name(line: str) -> str:
    """The package that a requirement names."""
    return canonicalize_name(Requirement(line).name)
