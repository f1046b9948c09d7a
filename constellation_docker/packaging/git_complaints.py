"""What git says when a server does not give what was asked, turned into typed errors."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urljoin

from constellation_docker.packaging.address import RepositoryAddress, location, resolve_address
from constellation_docker.packaging.child_process import tail
from constellation_docker.packaging.source_errors import (
    RepositoryNotFound,
    SourceDenied,
    SourceError,
    SourceRefused,
    SourceStoreFull,
    SourceUnreachable,
    SourceUntrusted,
)
from constellation_docker.settings import SourceSettings

_MAX_REDIRECTS = 5
_SUFFIX = "/info/refs?service=git-upload-pack"


def explain(address: RepositoryAddress, stderr: str) -> SourceError:
    """The typed error for what git wrote to its error output, in the C locale."""
    for pattern, build in _COMPLAINTS:
        if re.search(pattern, stderr, re.IGNORECASE):
            error = build(address)
            error.details["log_tail"] = tail(stderr)
            return error
    return SourceError(
        f"git could not fetch {address.url}: {_last_complaint(stderr)}.",
        remedy="See the end of git's output.",
        log_tail=tail(stderr),
    )


def resolve_redirect(
    address: RepositoryAddress, settings: SourceSettings, ca_bundle: Path | None
) -> RepositoryAddress:
    """Where an http(s) repository moved to, each step of the way checked against the settings.

    No credentials are sent: a server that wants them asks for them before it redirects.

    Raises:
        SourceRefused: It redirects to a host or scheme that is not allowed, back to plain http, to something
            that is no repository, or too often.
        SourceUnreachable: It no longer answers.
    """
    context = ssl.create_default_context(cafile=str(ca_bundle) if ca_bundle else None)
    import httpx  # 200 ms that only a refused redirect or a complaint pays for

    with httpx.Client(verify=context, follow_redirects=False, timeout=30) as client:
        url = address.url.rstrip("/")
        for _ in range(_MAX_REDIRECTS):
            try:
                with client.stream("GET", url + _SUFFIX) as answer:  # its body may be endless
                    target = answer.headers.get("location", "") if answer.is_redirect else ""
            except httpx.InvalidURL as error:
                raise _bad_redirect(address, "something that is no address") from error
            except httpx.HTTPError as error:
                raise _unreachable(address) from error
            if not target:
                return resolve_address(url, settings)
            target = urljoin(url + _SUFFIX, target)
            is_downgrade = url.startswith("https:") and not target.startswith("https:")
            if not target.endswith(_SUFFIX) or is_downgrade:
                raise _bad_redirect(address, "something that is not a repository over a safe connection")
            url = target.removesuffix(_SUFFIX)
            try:
                resolve_address(url, settings)
            except SourceRefused as refusal:
                raise _bad_redirect(
                    address, f"an address that is refused. {refusal.message}", refusal
                ) from refusal
    raise _bad_redirect(address, f"another address more than {_MAX_REDIRECTS} times")


def _bad_redirect(
    address: RepositoryAddress, where: str, cause: SourceRefused | None = None
) -> SourceRefused:
    return SourceRefused(
        f"{address.url} redirects to {where.rstrip('.')}.",
        remedy=cause.remedy if cause else "Give the repository's present address.",
    )


def _not_found(address: RepositoryAddress) -> SourceError:
    return RepositoryNotFound(
        f"There is no repository at {address.url}, or it may not be seen without credentials.",
        remedy="Check the address; for a private repository name its credentials in source.git_credentials.",
    )


def _denied(address: RepositoryAddress) -> SourceError:
    if address.scheme == "ssh":
        return SourceDenied(
            f"{address.url} does not accept our ssh key.",
            remedy="Register the key that source.ssh_key names as a deploy key of the repository.",
        )
    return SourceDenied(
        f"{address.url} needs credentials, or refuses the ones that it got.",
        remedy=f"Name user:password or a token, as env:NAME or file:/path, under {location(address)!r} in source.git_credentials.",
    )


def _untrusted(address: RepositoryAddress) -> SourceError:
    if address.scheme == "ssh":
        return SourceUntrusted(
            f"The host key of {address.host} is not known, or has changed.",
            remedy="Put the key that the server's owner publishes into source.ssh_known_hosts (see ssh-keyscan).",
        )
    return SourceUntrusted(
        f"The certificate of {address.host} is not trusted.",
        remedy="Name a bundle with its issuer in index.ca_bundle.",
    )


def _unreachable(address: RepositoryAddress) -> SourceError:
    return SourceUnreachable(
        f"{address.url} does not answer, or broke off.",
        remedy="Check that the server can be reached from here, then try again.",
    )


def _foreign_owner(address: RepositoryAddress) -> SourceError:
    return SourceRefused(
        f"{address.url} belongs to another user of this machine, so git does not read it.",
        remedy="Give the repository to the user that runs this, or copy it.",
    )


def _disk_full(address: RepositoryAddress) -> SourceError:
    return SourceStoreFull(
        f"The disk became full while {address.url} was fetched.",
        remedy="Free space, or move the store (the `home` setting) to a larger disk.",
    )


_COMPLAINTS: tuple[tuple[str, Callable[[RepositoryAddress], SourceError]], ...] = (
    (r"no space left on device|disk quota exceeded", _disk_full),
    (r"dubious ownership", _foreign_owner),
    (r"host key verification failed|certificate|SSL: no alternative|self.signed|server verification failed", _untrusted),
    (r"repository not found|repository '.*' not found|does not appear to be a git repository|no such file or directory"
     r"|returned error: 404|not a git repository|repository does not exist|project .* could not be found", _not_found),
    (r"authentication failed|could not read (user|pass)|permission denied|returned error: 40[13]|access denied"
     r"|invalid credentials|terminal prompts disabled|Credentials for", _denied),
    (r"could not resolve host|couldn't connect|failed to connect|connection (refused|reset|timed out|closed)|timed out"
     r"|returned error: (5\d\d|429)|early eof|rpc failed|unexpected disconnect|hung up|no route to host"
     r"|network is unreachable|operation too slow|empty reply|temporary failure|unexpectedly|dial tcp|connect to host",
     _unreachable),
    # All that is left where a server ends the conversation without a word of its own.
    (r"could not read from remote repository", _not_found),
)  # fmt: skip


def _last_complaint(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    complaints = [line for line in lines if line.startswith(("fatal:", "error:", "remote:"))] or lines
    last = complaints[-1].partition(": ")[2].rstrip(".") if complaints else ""
    return last or "it says nothing"
