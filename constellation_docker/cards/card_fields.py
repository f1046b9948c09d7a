"""The kinds of value that a model card's fields hold, and what each refuses."""

from __future__ import annotations

import re
from typing import Annotated, Any

from packaging.requirements import InvalidRequirement, Requirement
from pydantic import AfterValidator, BeforeValidator

from constellation_docker.cards.strict_record import nearest_name
from constellation_docker.cards.tasks import KNOWN_TASKS


def checked_repository(address: str) -> str:
    """The address itself; whether its scheme and host are allowed is for `SourceSettings` to say."""
    if not address or len(address) > 2048 or re.search(r"[\s\x00-\x1f\x7f]", address):
        raise ValueError("must be a repository address without spaces")
    if address.startswith("-"):
        raise ValueError("must not begin with '-'")
    if "::" in address.partition("/")[0]:
        raise ValueError("must not use a git remote helper (a '::' prefix)")
    scheme, separator, rest = address.partition("://")
    login = rest.split("/", 1)[0].rpartition("@")[0] if separator else ""
    if login and (scheme.lower() in {"http", "https"} or ":" in login):
        raise ValueError(
            "must not hold a user name, password or token; give credentials by reference in the settings "
            "(source.git_credentials, source.hub_token)"
        )
    return address


def checked_branch(branch: str) -> str:
    """Source: git-check-ref-format(1)."""
    bad = r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|^[-/.]|[/.]$|\.lock$"
    if not branch or len(branch) > 255 or re.search(bad, branch):
        raise ValueError("must be a branch, tag or commit")
    return branch


def checked_task(task: str) -> str:
    if task not in KNOWN_TASKS:
        near = nearest_name(task, KNOWN_TASKS)
        hint = f"did you mean {near}?" if near else "for anything else, write other"
        raise ValueError(f"{task[:80]!r} is not a known task; {hint}")
    return task


def checked_dependency(line: str) -> str:
    line = line.strip()
    try:
        requirement = Requirement(line)
    except InvalidRequirement as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{line[:80]!r} is not a requirement such as 'numpy>=2' ({reason})") from None
    if (
        requirement.url
        and re.match(r"[a-z+]+://[^/@]*@", requirement.url)
        and "ssh" not in requirement.url[:8]
    ):
        raise ValueError(
            f"the address of {requirement.name} must not hold a user name, password or token; "
            "give credentials by reference in the settings (index.credentials)"
        )
    return line


def _texts(value: Any) -> Any:
    """The Hub accepts one text where it accepts a list of texts."""
    return (value,) if isinstance(value, str) else value


def _licence(value: Any) -> Any:
    """The Hub accepts a list of licences; all of them hold."""
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return " AND ".join(value)
    return value


def _checked_word(text: str) -> str:
    if not text.strip() or len(text) > 500 or "\n" in text:
        raise ValueError("must be one line of text, and not empty")
    return text


RepositoryAddress = Annotated[str, AfterValidator(checked_repository)]
GitRevision = Annotated[str, AfterValidator(checked_branch)]
Task = Annotated[str, AfterValidator(checked_task)]
Dependency = Annotated[str, AfterValidator(checked_dependency)]
Word = Annotated[str, AfterValidator(_checked_word)]
Words = Annotated[tuple[Word, ...], BeforeValidator(_texts)]
Licence = Annotated[Word, BeforeValidator(_licence)]
