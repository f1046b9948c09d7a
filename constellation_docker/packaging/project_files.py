"""The requirements in `pyproject.toml` and `Pipfile`."""

from __future__ import annotations

import re
import tomllib
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import InvalidVersion, Version

from constellation_docker.packaging.lock_errors import RequirementRefused
from constellation_docker.packaging.requirements import (
    RequirementLine,
    Requirements,
    is_known_index,
    parse_requirement,
)
from constellation_docker.settings import IndexSettings

_ELSEWHERE = ("git", "path", "file", "url", "hg", "svn", "editable", "directory")
_REMEDY_ELSEWHERE = (
    "Publish the package to the index, or put a wheel into the wheelhouse, and name its version."
)


def read_pyproject(text: str, found: Requirements) -> None:
    """Add the dependencies of `[project]` (PEP 621), or else of `[tool.poetry]`.

    Raises:
        RequirementRefused: The file is not TOML, or an entry cannot be used.
    """
    document = _parse(text, "pyproject.toml")
    project = _table(document, "project")
    poetry = _table(_table(_table(document, "tool"), "poetry"), "dependencies")
    if isinstance(specifier := project.get("requires-python"), str):
        found.requires_python.append((specifier, "pyproject.toml, requires-python"))
    if "dependencies" in (project.get("dynamic") or []):
        found.notices.append("pyproject.toml: dependencies are dynamic, so those of other files count.")
    for entry in project.get("dependencies") or []:
        line = entry if isinstance(entry, str) else repr(entry)
        found.lines.append(parse_requirement(line, f"pyproject.toml:{_line_of(text, line)}"))
    if not project.get("dependencies"):
        _read_poetry(poetry, text, found)


def read_pipfile(text: str, settings: IndexSettings, found: Requirements) -> None:
    """Add the `[packages]` of a Pipfile.

    Raises:
        RequirementRefused: The file is not TOML, an entry cannot be used, or it names an unknown index.
    """
    document = _parse(text, "Pipfile")
    for index in document.get("source") or []:
        url = str(index.get("url", "")) if isinstance(index, dict) else ""
        if not is_known_index(url, settings):
            raise RequirementRefused(
                f"Pipfile names the package index {re.sub(r'//[^/@]*@', '//***@', url)!r}, which the settings do not.",
                remedy="Let the operator add it to index.extra_urls.",
                origin="Pipfile, [[source]]",
            )
    wanted = _table(document, "requires").get("python_version")
    if isinstance(wanted, str):
        found.notices.append(
            f"Pipfile: python_version {wanted} is left out; the base image has its own Python."
        )
    for name, value in _table(document, "packages").items():
        origin = f"Pipfile:{_line_of(text, name)}"
        found.lines.append(_from_table(name, value, origin))


def _read_poetry(dependencies: dict[str, Any], text: str, found: Requirements) -> None:
    for name, value in dependencies.items():
        origin = f"pyproject.toml:{_line_of(text, name)}"
        if name.lower() == "python":
            if isinstance(value, str):
                found.requires_python.append((_poetry_specifier(value, origin), origin))
            continue
        if isinstance(value, dict) and value.get("optional"):
            continue
        found.lines.append(_from_table(name, value, origin, is_poetry=True))


def _from_table(name: str, value: Any, origin: str, *, is_poetry: bool = False) -> RequirementLine:
    """A requirement from a name and a version, or a name and a table."""
    if isinstance(value, str):
        version, extras, marker = value, [], ""
    elif isinstance(value, dict):
        elsewhere = [key for key in _ELSEWHERE if value.get(key)]
        if elsewhere:
            raise RequirementRefused(
                f"The requirement {name!r} ({origin}) comes from a {elsewhere[0]}, not from an index.",
                remedy=_REMEDY_ELSEWHERE,
                line=name,
                origin=origin,
            )
        version = str(value.get("version", "*"))
        extras = [str(extra) for extra in value.get("extras") or []]
        marker = str(value.get("markers") or "")
        if isinstance(value.get("python"), str):
            marker = " and ".join(
                filter(None, [marker, _python_marker(_poetry_specifier(value["python"], origin))])
            )
        if value.get("sys_platform"):
            marker = " and ".join(filter(None, [marker, f"sys_platform {value['sys_platform']}"]))
    else:
        raise RequirementRefused(
            f"The requirement {name!r} ({origin}) is neither a version nor a table.",
            remedy='Write it as name = "version".',
            line=name,
            origin=origin,
        )
    specifier = (
        _poetry_specifier(version, origin) if is_poetry else ("" if version.strip() == "*" else version)
    )
    text = name + (f"[{','.join(extras)}]" if extras else "") + specifier + (f" ; {marker}" if marker else "")
    return parse_requirement(text, origin)


def _python_marker(specifier: str) -> str:
    clauses = [clause.strip() for clause in specifier.split(",") if clause.strip()]
    return " and ".join(
        re.sub(r"^([<>=!~]+)\s*(.+)$", r"python_version \1 '\2'", clause) for clause in clauses
    )


def _poetry_specifier(version: str, origin: str) -> str:
    """Poetry's `^`, `~` and `*` as PEP 440 (python-poetry.org, Dependency specification)."""
    clauses = []
    for clause in version.split(","):
        part = clause.strip()
        if part in {"*", ""}:
            continue
        if "||" in part or "|" in part:
            raise RequirementRefused(
                f"The version {version!r} ({origin}) has alternatives.",
                remedy="Give one range.",
                line=version,
                origin=origin,
            )
        if part.startswith(("^", "~")) and not part.startswith("~="):
            clauses.append(_range_of(part, origin))
        elif part[0].isdigit():
            clauses.append(f"=={part}")
        else:
            clauses.append(part)
    return ",".join(clauses)


def _range_of(part: str, origin: str) -> str:
    given = part[1:].strip()
    try:
        release = list(Version(given).release)
    except InvalidVersion:
        raise RequirementRefused(
            f"{part!r} ({origin}) is not a version.", remedy="Write it as ^1.2.3.", line=part, origin=origin
        ) from None
    if part.startswith("~"):
        kept = min(2, len(release))
    else:
        kept = next((index + 1 for index, number in enumerate(release) if number), len(release))
    upper = [*release[: kept - 1], release[kept - 1] + 1]
    return f">={given},<{'.'.join(map(str, upper))}"


def _parse(text: str, path: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise RequirementRefused(
            f"{path} is not TOML: {error}.", remedy="Correct the file.", origin=path
        ) from None


def _table(document: dict[str, Any], name: str) -> dict[str, Any]:
    value = document.get(name)
    return value if isinstance(value, dict) else {}


def _line_of(text: str, wanted: str) -> int:
    """The line on which an entry stands; 1 where it is written in some other way."""
    try:
        name = Requirement(wanted).name
    except InvalidRequirement:
        name = wanted
    pattern = re.compile(rf"(^|[\s\"'\[,]){re.escape(name)}([\s\"'=<>~!\[;,.]|$)", re.IGNORECASE)
    lines = text.splitlines()
    exact = (number for number, line in enumerate(lines, 1) if wanted in line)
    loose = (number for number, line in enumerate(lines, 1) if pattern.search(line))
    return next(exact, None) or next(loose, 1)
