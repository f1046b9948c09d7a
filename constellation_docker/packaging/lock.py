"""The dependency lock: every package of an image, with version and hashes, for its Python and platform.

A lock is resolved once. The same repository, card and server get the same lock ever after, from the store;
another version of a model that asks for the same lines gets it too, for a week, so that their images share
the layer with the environment. After that the lines are resolved anew and may pick up newer releases.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from pydantic import BaseModel, ConfigDict, ValidationError

from constellation_docker.cards import ModelCard
from constellation_docker.packaging.clash import explain_failure
from constellation_docker.packaging.lock_errors import (
    LockError,
    LockTimedOut,
    NoMatchingWheel,
    RequirementRefused,
)
from constellation_docker.packaging.requirement_files import gather_requirements
from constellation_docker.packaging.requirements import RequirementLine, Requirements, parse_lines
from constellation_docker.packaging.resolution import (
    Answer,
    LockedPackage,
    Question,
    ask,
    requirement_name,
    with_origins,
)
from constellation_docker.packaging.runtime import Runtime, RuntimeChoice
from constellation_docker.packaging.source import Source
from constellation_docker.packaging.uv_program import LocalUv, UvRunner
from constellation_docker.packaging.wheelhouse import choose_local_wheels
from constellation_docker.settings import IndexSettings

SHARED_SECONDS = 7 * 24 * 3600
"""How long a lock serves other versions and models that ask for the same lines."""

TIMEOUT_SECONDS = 900.0
"""Longest that resolving may take."""

_SERVER = Path(__file__).resolve().parent.parent / "serving" / "requirements"
_OUR_RUNTIMES = frozenset({Runtime.ONNX, Runtime.TRANSFORMERS, Runtime.CUSTOM})
_NEWEST_GLIBC = (2, 40)
"""The newest platform that uv knows by name; wheels for it run on newer ones."""


class TargetPython(Protocol):
    """The Python that a lock is for; a base image is one."""

    @property
    def python_version(self) -> str | None: ...
    @property
    def libc(self) -> str: ...
    @property
    def architecture(self) -> str: ...


class ServerRequirements(BaseModel):
    """What the inference server itself needs.

    Attributes:
        lines: Its requirements.
        overrides: uv overrides that leave out what it never imports. One is dropped where the model's own
            requirements need the package.
    """

    model_config = ConfigDict(frozen=True)

    lines: tuple[RequirementLine, ...] = ()
    overrides: tuple[str, ...] = ()


class DependencyLock(BaseModel):
    """All packages of an environment.

    Attributes:
        digest: `sha256:…` of text, Python and platform.
        text: A requirements file with hashes, and nothing that names an index, a path or a time.
        packages: What it holds, by name.
        python: `3.11`.
        platform: Such as `x86_64-manylinux_2_36`.
        inputs: Each line that was asked for, and where it stands.
        notices: What was left out of the inputs, and why.
        seconds: How long it took this time.
    """

    model_config = ConfigDict(frozen=True)

    digest: str
    text: str
    packages: tuple[LockedPackage, ...]
    python: str
    platform: str
    inputs: tuple[str, ...]
    notices: tuple[str, ...] = ()
    seconds: float = 0.0


def resolve_lock(
    source: Source,
    card: ModelCard,
    choice: RuntimeChoice,
    *,
    base: TargetPython,
    settings: IndexSettings,
    store: Path,
    on_line: Callable[[str], None],
    server: ServerRequirements | None = None,
    builder: UvRunner | None = None,
    refresh: bool = False,
    now: Callable[[], float] = time.time,
) -> DependencyLock:
    """Lock the dependencies of a model, or find the lock in the store.

    Args:
        source: The repository.
        card: The card, merged with the repository's.
        choice: The runtime, whose server brings requirements of its own.
        base: The Python that the lock is for.
        settings: Package indexes.
        store: Directory of the store; several runs may share it.
        on_line: Gets a line for each thing that happens.
        server: The server's requirements (None: those of the runtime that ships with us).
        builder: Where packages without wheels may be built (None: they are refused). `uv_container` has one.
        refresh: Resolve anew, whatever the store holds.
        now: Seconds since 1970.

    Returns:
        The lock; an empty one for a Dockerfile or image of the model's own.

    Raises:
        LockError: One of its kinds (`lock_errors`); the message names the model and the line.
    """
    began = time.monotonic()
    python, platform = resolve_target(base)
    if choice.runtime not in _OUR_RUNTIMES:
        return _lock_of("", (), python, platform)
    server = server if server is not None else server_requirements(choice)
    try:
        own = gather_requirements(source, card, settings)
        _check_python(own, card, python)
        for notice in own.notices:
            on_line(notice)
        question = _question(own, server, python, platform, settings)
        keys = _keys(source, question, settings)
        locks = _LockStore(store / "locks")
        deadline = began + TIMEOUT_SECONDS
        with locks.exclusive(keys[1], TIMEOUT_SECONDS):
            found = None if refresh else locks.find(*keys, not_before=now() - SHARED_SECONDS)
            if found is None:
                local = LocalUv(settings, store / "uv-cache", deadline)
                answer = _resolve(question, own, server, settings, local, builder, on_line)
                found = _lock_of(answer.text, answer.packages, python, platform)
                locks.keep(keys[1], found, now())
            else:
                on_line(f"The lock {found.digest[:19]} is in the store.")
            locks.keep(keys[0], found, now())
    except LockError as error:
        raise error.about(card.key) from error
    inputs = tuple(str(line) for line in (*own.lines, *own.constraints, *server.lines))
    on_line(f"{len(found.packages)} packages are locked, {found.digest[:19]}.")
    return found.model_copy(
        update={
            "inputs": inputs,
            "notices": tuple(own.notices),
            "packages": with_origins(found.packages, (*own.lines, *server.lines)),
            "seconds": time.monotonic() - began,
        }
    )


def server_requirements(choice: RuntimeChoice) -> ServerRequirements:
    """What the inference server that ships with us needs for a runtime and a task."""
    names = [f"{choice.runtime.value}.txt"]
    task = choice.task or ""
    if "image" in task or task in {"object-detection", "depth-estimation", "document-question-answering"}:
        names.append("images.txt")
    if choice.runtime is Runtime.TRANSFORMERS and ("speech-recognition" in task or "audio-class" in task):
        names.append("audio.txt")
    lines = [
        line
        for name in names
        for line in parse_lines((_SERVER / name).read_text(encoding="utf-8"), f"the inference server, {name}")
    ]
    overrides: list[str] = []
    if choice.runtime is Runtime.ONNX:
        text = (_SERVER / "overrides.txt").read_text(encoding="utf-8")
        overrides = [line.text for line in parse_lines(text, "overrides.txt")]
    return ServerRequirements(lines=tuple(lines), overrides=tuple(overrides))


def resolve_target(base: TargetPython) -> tuple[str, str]:
    """Python version and platform of a base image, as uv names them."""
    if base.python_version is None:
        raise NoMatchingWheel("The base image has no Python.", remedy="Choose a Python base image.")
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(base.architecture, base.architecture)
    kind, _, version = base.libc.partition("_")
    if kind == "manylinux" and version:
        major, _, minor = version.partition("_")
        glibc = min((int(major), int(minor or 0)), _NEWEST_GLIBC)
        return base.python_version, f"{machine}-manylinux_{glibc[0]}_{glibc[1]}"
    return base.python_version, f"{machine}-unknown-linux-{'musl' if kind == 'musllinux' else 'gnu'}"


def _question(
    own: Requirements, server: ServerRequirements, python: str, platform: str, settings: IndexSettings
) -> Question:
    wheels = sorted(settings.wheelhouse.glob("*.whl")) if settings.wheelhouse else []
    preferred = choose_local_wheels(wheels, python, platform)
    return Question(
        lines=(*own.lines, *server.lines),
        constraints=(*own.constraints, *preferred),
        overrides=server.overrides,
        python=python,
        platform=platform,
        allows_prereleases=own.allows_prereleases,
        exclude_newer=settings.exclude_newer,
        torch_backend=None if any(line.name == "torch" for line in preferred) else settings.torch_backend,
    )


def _resolve(
    question: Question,
    own: Requirements,
    server: ServerRequirements,
    settings: IndexSettings,
    local: UvRunner,
    builder: UvRunner | None,
    on_line: Callable[[str], None],
) -> Answer:
    question = replace(question, overrides=_fitting_overrides(question, own, server, local))
    answer = ask(question, local)
    plain = replace(question, constraints=tuple(own.constraints), torch_backend=settings.torch_backend)
    if not answer.is_solved and plain != question:
        second = ask(plain, local)
        if second.is_solved or second.is_unsolvable:
            on_line("The wheelhouse's builds do not fit the requirements; the indexes' are taken.")
            question, answer = plain, second
    if answer.is_solved:
        return answer
    if "Wheels are required for" in answer.complaint and builder is not None:
        on_line("A package has no wheel; resolving in a container, where its source may be built.")
        answer = ask(question, builder)
        if answer.is_solved:
            return answer
        raise explain_failure(answer, builder)
    raise explain_failure(answer, local)


def _fitting_overrides(
    question: Question, own: Requirements, server: ServerRequirements, uv: UvRunner
) -> tuple[str, ...]:
    """The server's overrides, without those for packages that the model's own requirements need."""
    of_server = {line.name for line in server.lines}
    of_model = tuple(line for line in own.lines if line.name not in of_server)
    if not server.overrides or not of_model:
        return server.overrides
    alone = ask(replace(question, lines=of_model, overrides=()), uv)
    needed = {package.name for package in alone.packages} | {line.name for line in of_model}
    return tuple(line for line in server.overrides if requirement_name(line) not in needed)


def _check_python(own: Requirements, card: ModelCard, python: str) -> None:
    if card.serving.python not in {None, python}:
        raise NoMatchingWheel(
            f"The card asks for Python {card.serving.python}, and the base image has {python}.",
            remedy="Take `python` out of the card, or choose another base image (base_image.python).",
            origin="the card, constellation.python",
        )
    for specifier, origin in own.requires_python:
        try:
            is_fitting = SpecifierSet(specifier).contains(f"{python}.99", prereleases=True)
        except InvalidSpecifier:
            raise RequirementRefused(
                f"The Python version {specifier!r} ({origin}) is not a range.",
                remedy="Write it as >=3.11.",
                line=specifier,
                origin=origin,
            ) from None
        if not is_fitting and not SpecifierSet(specifier).contains(f"{python}.0"):
            raise NoMatchingWheel(
                f"The repository wants Python {specifier} ({origin}), and the base image has {python}.",
                remedy="Widen the range, or choose another base image (base_image.python).",
                origin=origin,
            )


def _lock_of(text: str, packages: tuple[LockedPackage, ...], python: str, platform: str) -> DependencyLock:
    digest = hashlib.sha256(f"{python}\n{platform}\n{text}".encode()).hexdigest()
    return DependencyLock(
        digest=f"sha256:{digest}",
        text=text,
        packages=packages,
        python=python,
        platform=platform,
        inputs=(),
    )


def _keys(source: Source, question: Question, settings: IndexSettings) -> tuple[str, str]:
    """The key of this source's lock, and the key that all sources with the same lines share."""
    facts = {
        "lines": sorted(line.text for line in question.lines),
        "constraints": sorted(line.text for line in question.constraints),
        "overrides": sorted(question.overrides),
        "python": question.python,
        "platform": question.platform,
        "prereleases": question.allows_prereleases,
        "exclude_newer": question.exclude_newer,
        "torch_backend": settings.torch_backend,
    }
    shared = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    exact = hashlib.sha256(f"{shared}\n{source.digest}".encode()).hexdigest()
    return exact, f"shared-{shared}"


class _LockStore:
    """Locks by what was asked for."""

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(parents=True, exist_ok=True)

    def exclusive(self, key: str, timeout_seconds: float) -> _Held:
        return _Held(FileLock(self._root / f"{key}.lock", timeout=timeout_seconds))

    def find(self, exact: str, shared: str, *, not_before: float) -> DependencyLock | None:
        found = self._read(exact)
        if found is None and (found := self._read(shared)) is not None and found[1] < not_before:
            return None
        return found[0] if found else None

    def keep(self, key: str, lock: DependencyLock, moment: float) -> None:
        path = self._root / f"{key}.json"
        part = path.with_suffix(".part")
        part.write_text(
            json.dumps({"resolved_at": moment, "lock": lock.model_dump(mode="json")}), encoding="utf-8"
        )
        part.replace(path)

    def _read(self, key: str) -> tuple[DependencyLock, float] | None:
        try:
            record = json.loads((self._root / f"{key}.json").read_bytes())
            return DependencyLock.model_validate(record["lock"]), float(record["resolved_at"])
        except (FileNotFoundError, ValueError, KeyError, TypeError, ValidationError):
            return None


class _Held:
    """The right to resolve one set of lines, as a context."""

    def __init__(self, lock: FileLock) -> None:
        self._lock = lock

    def __enter__(self) -> None:
        try:
            self._lock.acquire()
        except Timeout:
            raise LockTimedOut(
                "Another process is resolving the same requirements and does not end.",
                remedy="Wait for the other run to end, then run this one again.",
            ) from None

    def __exit__(self, *_: object) -> None:
        self._lock.release()
