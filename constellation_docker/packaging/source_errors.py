"""What can go wrong while a repository is fetched."""

from __future__ import annotations

from constellation_docker.errors import ConstellationError


class SourceError(ConstellationError):
    """A repository could not be fetched."""

    code = "source_failed"


class SourceRefused(SourceError):
    """The address is malformed, or the settings do not allow it."""

    code = "source_refused"


class RepositoryNotFound(SourceError):
    """Nothing that can be read lies at the address."""

    code = "repository_not_found"


class RevisionNotFound(SourceError):
    """The repository has no such branch, tag or commit."""

    code = "revision_not_found"


class SourceDenied(SourceError):
    """The server wants credentials, or does not accept ours."""

    code = "source_denied"


class SourceUntrusted(SourceError):
    """The server's certificate or host key is not trusted."""

    code = "source_untrusted"


class SourceUnreachable(SourceError):
    """The server does not answer, or broke off; it may answer later."""

    code = "source_unreachable"
    is_transient = True


class SourceTimedOut(SourceError):
    """Fetching took longer than it may."""

    code = "source_timed_out"
    is_transient = True


class SourceUnsafe(SourceError):
    """The repository holds something that must not be unpacked; `path` names it."""

    code = "source_unsafe"


class SourceTooLarge(SourceError):
    """A file or the whole repository is larger than the settings allow."""

    code = "source_too_large"


class LargeFileMissing(SourceError):
    """A Git LFS pointer stands where the file should be."""

    code = "large_file_missing"


class GitMissing(SourceError):
    """A program that fetching needs is not installed."""

    code = "git_missing"


class SourceStoreFull(SourceError):
    """The disk that holds fetched sources is full."""

    code = "source_store_full"
