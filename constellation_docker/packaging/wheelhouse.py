"""Which wheels of a wheelhouse are preferred to those of the indexes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from packaging.tags import compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import Version

from constellation_docker.packaging.requirements import RequirementLine


def choose_local_wheels(wheels: Iterable[Path], python: str, platform: str) -> tuple[RequirementLine, ...]:
    """Constraints that prefer wheels with a local version label, such as torch's `+cpu` builds.

    Args:
        wheels: Files of a wheelhouse.
        python: `3.11`.
        platform: Such as `x86_64-manylinux_2_36`.
    """
    fitting = _tags(python, platform)
    best: dict[str, Version] = {}
    for wheel in wheels:
        try:
            name, version, _, tags = parse_wheel_filename(wheel.name)
        except InvalidWheelFilename:
            continue
        if version.local and {str(tag) for tag in tags} & fitting:
            best[name] = max(version, best.get(name, version))
    return tuple(
        RequirementLine(text=f"{name}=={version}", name=name, origin="the wheelhouse")
        for name, version in sorted(best.items())
    )


def _tags(python: str, platform: str) -> set[str]:
    machine, _, kind = platform.partition("-")
    platforms = [f"linux_{machine}"]
    if kind.startswith("manylinux_"):
        newest = int(kind.rpartition("_")[2])
        platforms += [f"manylinux_2_{minor}_{machine}" for minor in range(newest, 4, -1)]
        platforms += [f"manylinux{old}_{machine}" for old in ("2014", "2010", "1")]
    major, _, minor = python.partition(".")
    version = (int(major), int(minor))
    found = {str(tag) for tag in cpython_tags(version, platforms=platforms)}
    return found | {str(tag) for tag in compatible_tags(version, f"cp{major}{minor}", platforms)}
