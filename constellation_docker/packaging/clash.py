"""Why the resolver found nothing, as a typed error that names the lines to change.

The resolver explains itself in words. The lines that clash are not taken from its words, though: lines are
left out one after the other, and those without which the rest can be met are the ones that clash.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from packaging.utils import canonicalize_name

from constellation_docker.packaging.child_process import tail
from constellation_docker.packaging.lock_errors import (
    IndexDenied,
    IndexUnreachable,
    IndexUntrusted,
    LockConflict,
    LockError,
    NoMatchingWheel,
    RequirementNotFound,
    SourceOnlyPackage,
    SourcePackageFailed,
)
from constellation_docker.packaging.requirements import RequirementLine
from constellation_docker.packaging.resolution import Answer, Question, is_solvable, names_in
from constellation_docker.packaging.uv_program import UvRunner

_UNKNOWN = re.compile(
    r"([A-Za-z0-9][\w.-]*) was not found in the (?:package registry|provided package locations)"
)
_BUILD_FAILED = re.compile(r"Failed to (?:download and )?build `?([\w.-]+)(?:==([\w.!+-]+))?")
_NEEDS_BUILD = re.compile(r"Wheels are required for `([\w.-]+)`")
_NO_WHEEL = re.compile(
    r"([A-Za-z0-9][\w.-]*)(?:[=<>!~][^\s]*)? has no wheels with a matching|does not satisfy Python|requires Python [<>=!~]",
    re.IGNORECASE,
)
_REFUSED = re.compile(
    r"lack of valid authentication credentials|40[13] (?:Unauthorized|Forbidden)|status code: 40[13]", re.I
)
_UNTRUSTED = re.compile(r"invalid peer certificate|certificate", re.IGNORECASE)
_UNREACHABLE = re.compile(
    r"Failed to (?:fetch|download)|error sending request|Request failed|timed? ?out", re.I
)
_MAX_TRIALS = 60


def explain_failure(answer: Answer, uv: UvRunner) -> LockError:
    """The typed error for an unsolved question.

    Args:
        answer: The resolver's complaint.
        uv: Runs the trials that find the lines that clash.
    """
    complaint, question = answer.complaint, answer.question
    if not answer.is_unsolvable:
        return _explain_breakdown(complaint, question)
    if _REFUSED.search(complaint):
        return _denied(complaint)
    if unknown := _UNKNOWN.search(complaint):
        return _not_found(unknown[1], complaint, question)
    if needs_build := _NEEDS_BUILD.search(complaint):
        return _source_only(needs_build[1], complaint, question)
    return _explain_clash(complaint, question, uv)


def _explain_clash(complaint: str, question: Question, uv: UvRunner) -> LockError:
    lines = clashing_lines(complaint, question, uv)
    details = {
        "lines": [{"text": line.text, "origin": line.origin} for line in lines],
        "explanation": complaint,
    }
    if len(lines) == 1 and _NO_WHEEL.search(complaint):
        return NoMatchingWheel(
            f"{_joined(lines)} cannot be installed on Python {question.python} ({question.platform}).",
            remedy="Give a version that has wheels for this Python, or choose another base image.",
            **details,
        )
    if len(lines) == 1:
        return RequirementNotFound(
            f"{_joined(lines)} cannot be met: no index has such a version, or one of what it needs.",
            remedy="Give a version that exists.",
            **details,
        )
    return LockConflict(
        f"{_joined(lines)} cannot be installed together.",
        remedy="Change one of these lines; the explanation says why they clash.",
        **details,
    )


def clashing_lines(complaint: str, question: Question, uv: UvRunner) -> tuple[RequirementLine, ...]:
    """The fewest lines that already cannot be met: none of them can be left out.

    Only lines of packages that the complaint names are tried, if these alone fail too.
    """
    candidates = list(question.lines)
    named = [line for line in candidates if line.name in names_in(complaint)]
    if named and len(named) < len(candidates) and not is_solvable(named, question, uv):
        candidates = named
    if len(candidates) > _MAX_TRIALS:
        return tuple(named or candidates)
    for line in list(candidates):
        rest = [other for other in candidates if other is not line]
        if rest and not is_solvable(rest, question, uv):
            candidates = rest
    return tuple(candidates)


def _explain_breakdown(complaint: str, question: Question) -> LockError:
    """The resolver did not get as far as an answer."""
    failed = _BUILD_FAILED.search(complaint)
    if failed:
        name = canonicalize_name(failed[1])
        version = f" {failed[2]}" if failed[2] else ""
        return SourcePackageFailed(
            f"{name}{version}{_asked_by(name, question)} has no wheel, and its source distribution does not build.",
            remedy="Give a version that has a wheel, or put a wheel into the wheelhouse.",
            package=name,
            log_tail=tail(complaint, 30),
        )
    if _REFUSED.search(complaint):
        return _denied(complaint)
    host = re.search(r"(?:Failed to fetch: `?|url \()(https?://[^/\s`)]+)", complaint)
    place = host[1] if host else "a package index"
    if _UNTRUSTED.search(complaint):
        return IndexUntrusted(
            f"The certificate of {place} is not trusted.",
            remedy="Name a bundle with its issuer in index.ca_bundle.",
            log_tail=tail(complaint),
        )
    if _UNREACHABLE.search(complaint):
        return IndexUnreachable(
            f"{place} does not answer, or broke off.",
            remedy="Check that the index can be reached from here (index.url, index.extra_urls), then try again.",
            log_tail=tail(complaint),
        )
    return LockError(
        f"The resolver failed: {complaint.splitlines()[0].removeprefix('error: ')}.",
        remedy="See the end of its output.",
        log_tail=tail(complaint, 30),
    )


def _denied(complaint: str) -> LockError:
    host = re.search(r"\(?`?(https?://[^/\s`)]+)", complaint)
    return IndexDenied(
        f"{host[1] if host else 'A package index'} needs credentials, or refuses the ones that it got.",
        remedy="Name user:password, as env:NAME or file:/path, under the host in index.credentials.",
        log_tail=tail(complaint),
    )


def _not_found(name: str, complaint: str, question: Question) -> LockError:
    canonical = canonicalize_name(name)
    lines = [line for line in question.lines if line.name == canonical]
    where = _joined(lines) if lines else f"{canonical}, which another package needs,"
    return RequirementNotFound(
        f"{where} is on no package index.",
        remedy="Correct the name, or add the index that has it to index.extra_urls.",
        package=canonical,
        lines=[{"text": line.text, "origin": line.origin} for line in lines],
        explanation=complaint,
    )


def _source_only(name: str, complaint: str, question: Question) -> LockError:
    canonical = canonicalize_name(name)
    return SourceOnlyPackage(
        f"{canonical}{_asked_by(canonical, question)} has no wheel for Python {question.python}, and building it runs "
        "its code, which is allowed in containers only.",
        remedy="Give a version that has a wheel, put a wheel into the wheelhouse, or resolve where an engine is.",
        package=canonical,
        explanation=complaint,
    )


def _asked_by(name: str, question: Question) -> str:
    origins = [line.origin for line in question.lines if line.name == name]
    return f" ({', '.join(origins)})" if origins else ""


def _joined(lines: Sequence[RequirementLine]) -> str:
    shown = [f"{line.text} ({line.origin})" for line in lines]
    if len(shown) < 2:
        return "".join(shown)
    return f"{', '.join(shown[:-1])} and {shown[-1]}"
