"""What can go wrong while dependencies are locked."""

from __future__ import annotations

from constellation_docker.errors import ConstellationError


class LockError(ConstellationError):
    """The dependencies of a model could not be locked."""

    code = "lock_failed"


class RequirementRefused(LockError):
    """A line asks for something that a lock cannot hold; `origin` says where it stands."""

    code = "requirement_refused"


class RequirementNotFound(LockError):
    """A line names a package, or a version of one, that no index has."""

    code = "requirement_not_found"


class LockConflict(LockError):
    """Lines that cannot be met together: `lines` are those that clash, `explanation` is the resolver's."""

    code = "lock_conflict"


class NoMatchingWheel(LockError):
    """A package does not exist for the image's Python or platform."""

    code = "no_matching_wheel"


class SourceOnlyPackage(LockError):
    """A package has no wheels, and nothing here may build it."""

    code = "source_only_package"


class SourcePackageFailed(LockError):
    """A package's source distribution does not build; `log_tail` is the end of what it said."""

    code = "source_package_failed"


class IndexUnreachable(LockError):
    """A package index does not answer; it may answer later."""

    code = "index_unreachable"
    is_transient = True


class IndexDenied(LockError):
    """A package index wants credentials, or does not accept ours."""

    code = "index_denied"


class IndexUntrusted(LockError):
    """A package index has a certificate that is not trusted."""

    code = "index_untrusted"


class LockTimedOut(LockError):
    """Resolving took longer than it may."""

    code = "lock_timed_out"
    is_transient = True
