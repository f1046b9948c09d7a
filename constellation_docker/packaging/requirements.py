"""One requirement, and where it stands.

Every line is parsed and written anew, so nothing of a foreign file reaches the resolver as it stands.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from pydantic import BaseModel, ConfigDict

from constellation_docker.packaging.lock_errors import RequirementRefused
from constellation_docker.settings import IndexSettings

COMMENT = re.compile(r"(^|\s)#.*$")


class RequirementLine(BaseModel):
    """One requirement.

    Attributes:
        text: The requirement in its plain form, such as `torch>=2,<3`.
        name: Its package, as indexes spell it.
        origin: Where it stands: `requirements.txt:3`, `the card, dependencies[1]`.
    """

    model_config = ConfigDict(frozen=True)

    text: str
    name: str
    origin: str

    def __str__(self) -> str:
        return f"{self.text}  ({self.origin})"


@dataclass
class Requirements:
    """All lines of a model.

    Attributes:
        lines: What is asked for.
        constraints: What limits versions without asking for anything.
        allows_prereleases: Whether a line says `--pre`.
        notices: What was left out, and why, one sentence each.
        requires_python: `(specifier, origin)` of each file that limits the Python version.
    """

    lines: list[RequirementLine] = field(default_factory=list)
    constraints: list[RequirementLine] = field(default_factory=list)
    allows_prereleases: bool = False
    notices: list[str] = field(default_factory=list)
    requires_python: list[tuple[str, str]] = field(default_factory=list)


def parse_lines(text: str, origin: str) -> list[RequirementLine]:
    """The requirements of one of our own files, such as the inference server's."""
    stripped = ((number, COMMENT.sub("", line).strip()) for number, line in enumerate(text.splitlines(), 1))
    return [parse_requirement(line, f"{origin}:{number}") for number, line in stripped if line]


def parse_requirement(text: str, origin: str) -> RequirementLine:
    """One requirement by name, version, extras and markers (PEP 508, without addresses).

    Raises:
        RequirementRefused: It is something else.
    """
    text = text.strip()
    if "${" in text:
        raise refused(text, origin, "holds a variable", "Write its value.")
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        raise refused(text, origin, *_why_not_a_name(text)) from None
    if requirement.url:
        raise refused(
            text,
            origin,
            "gives an address instead of a version",
            "Publish the package to the index, or put a wheel into the wheelhouse, and name its version.",
        )
    return RequirementLine(text=str(requirement), name=canonicalize_name(requirement.name), origin=origin)


def is_known_index(url: str, settings: IndexSettings) -> bool:
    """Whether an index is one that is asked anyway."""
    known = {"https://pypi.org/simple", "https://pypi.python.org/simple", settings.url, *settings.extra_urls}
    return url.rstrip("/") in {address.rstrip("/") for address in known if address}


def _why_not_a_name(text: str) -> tuple[str, str]:
    if text in {".", "-e ."} or text.startswith(("-e ", "--editable", "./", "../", "/", "file:", "~", ".[")):
        return (
            "installs from a directory",
            "The repository's modules can be imported as they are; list what they need.",
        )
    if re.match(r"(git|hg|svn|bzr)\+", text) or "://" in text:
        return (
            "gives an address instead of a name",
            "Publish the package to the index, or put a wheel into the wheelhouse, and name its version.",
        )
    return "is not a requirement", "Write it as name==version (PEP 508)."


def refused(text: str, origin: str, what: str, remedy: str) -> RequirementRefused:
    """The error for a line that cannot be used; credentials in it are not shown."""
    shown = re.sub(r"(?<=//)[^/@\s]*@", "***@", text)[:200]
    return RequirementRefused(
        f"The requirement {shown!r} ({origin}) {what}.", remedy=remedy, line=shown, origin=origin
    )
