"""What can go wrong at a Docker engine or a registry behind it, and which of it may pass by itself."""

from __future__ import annotations

import re
from typing import ClassVar

from constellation_docker.errors import ConstellationError

_SPACE = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)


class EngineError(ConstellationError):
    """The engine refused or failed a call."""

    code = "engine_error"


class EngineUnreachable(EngineError):
    """No engine answers, or it went away in the middle of a call."""

    code = "engine_unreachable"
    is_transient: ClassVar[bool] = True


class EngineForbidden(EngineUnreachable):
    """An engine is there, but this user may not talk to it."""

    code = "engine_forbidden"
    is_transient: ClassVar[bool] = False


class EngineIncompatible(EngineError):
    """The engine's API is too old or too new."""

    code = "engine_incompatible"


class NotFound(EngineError):
    """The engine has no such container, network, volume or image."""

    code = "not_found"


class ImageNotFound(NotFound):
    """The engine has no such image."""

    code = "image_not_found"


class Conflict(EngineError):
    """A name is taken, or the object is in use or in the wrong state."""

    code = "conflict"


class DiskFull(EngineError):
    """The engine has no disk space left."""

    code = "disk_full"


class DeadlineExceeded(EngineError):
    """The engine answered, but not within the time that the caller gave."""

    code = "deadline_exceeded"


class CallCancelled(EngineError):
    """The caller cancelled a call that takes long; the engine was told."""

    code = "call_cancelled"


class BuildFailed(EngineError):
    """A build ended with an error. `details` holds `step` and `log_tail`.

    Attributes:
        step: The failing step as BuildKit names it (`[build 2/4] RUN make`), or None where the build
            failed before its first step.
        log_tail: The failing step's last lines, oldest first.
    """

    code = "build_failed"

    def __init__(
        self, message: str, *, step: str | None, log_tail: tuple[str, ...], remedy: str = ""
    ) -> None:
        super().__init__(message, remedy=remedy, step=step, log_tail=list(log_tail))
        self.step = step
        self.log_tail = log_tail


class BuildTimedOut(BuildFailed):
    """A build took longer than it may."""

    code = "build_timed_out"


class BuildCancelled(CallCancelled):
    """The caller cancelled the build, and the engine stopped it."""

    code = "build_cancelled"


class RegistryError(EngineError):
    """A pull or a push failed. `details` holds `reference`."""

    code = "registry_error"


class RegistryUnreachable(RegistryError):
    """The registry does not answer, broke off, or asks to come back later."""

    code = "registry_unreachable"
    is_transient: ClassVar[bool] = True


class RegistryDenied(RegistryError):
    """The registry wants other credentials, or these may not do this."""

    code = "registry_denied"


class RegistryUntrusted(RegistryError):
    """The engine does not accept the registry's certificate, or the registry speaks plain HTTP."""

    code = "registry_untrusted"


class ImageNotInRegistry(RegistryError):
    """The registry answers, but has no such image (for this platform)."""

    code = "image_not_in_registry"


class PullFailed(RegistryError):
    """A pull failed for another reason."""

    code = "pull_failed"


class PushFailed(RegistryError):
    """A push failed for another reason."""

    code = "push_failed"


class DigestMismatch(RegistryError):
    """What the registry holds is not what was pushed or asked for."""

    code = "digest_mismatch"


def says_disk_full(text: str) -> bool:
    """Whether an engine's message or a program's output says that the disk is full."""
    return bool(_SPACE.search(text))


def disk_full(doing: str, url: str) -> DiskFull:
    """The error for a full disk at the engine `url`, while `doing` something."""
    return DiskFull(
        f"The disk of the Docker engine at {url} is full: it happened while {doing}.",
        remedy="Free space there (`docker system df` shows what takes it), then run this again.",
        engine=url,
    )


def choose_engine_error(status: int | None, explanation: str, *, doing: str, url: str) -> EngineError:
    """The typed error for an engine's error response.

    Args:
        status: HTTP status of the response.
        explanation: The engine's own message.
        doing: What was being done, as in "starting container x".
        url: The engine's address.
    """
    if says_disk_full(explanation):
        return disk_full(doing, url)
    text = f"The Docker engine at {url} failed while {doing}: {explanation.strip().rstrip('.')}."
    facts = {"engine": url, "status": status}
    if status == 404:
        kind = ImageNotFound if "no such image" in explanation.lower() else NotFound
        return kind(text, remedy="Check the name; it may have been removed in between.", **facts)
    if status == 409:
        return Conflict(text, remedy="Remove or rename what is in the way.", **facts)
    if "client version" in explanation and "too" in explanation:
        return EngineIncompatible(text, remedy="Use Docker Engine 20.10 or newer.", **facts)
    return EngineError(text, remedy="The engine's log says more.", **facts)


# In the order in which they are tried. The texts are Go's, dockerd's and the distribution registry's own.
_REGISTRY_SAYINGS: tuple[tuple[type[RegistryError], re.Pattern[str]], ...] = (
    (
        RegistryUntrusted,
        re.compile(
            r"x509:|server gave HTTP response to HTTPS client|certificate signed by unknown|tls: ",
            re.IGNORECASE,
        ),
    ),
    (
        RegistryDenied,
        re.compile(
            r"unauthorized|authentication required|no basic auth credentials|access to the resource is denied"
            r"|pull access denied|\bdenied:|status: 40[13]\b|\b40[13] (Unauthorized|Forbidden)",
            re.IGNORECASE,
        ),
    ),
    (
        ImageNotInRegistry,
        re.compile(
            r"manifest unknown|name unknown|not found: manifest|manifest for .* not found|no matching manifest"
            r"|does not match the specified platform|repository .* not found|: not found$",
            re.IGNORECASE,
        ),
    ),
    (
        RegistryUnreachable,
        re.compile(
            r"connection refused|connection reset|no such host|server misbehaving|i/o timeout|timeout exceeded"
            r"|handshake timeout|deadline exceeded|request canceled|network is unreachable|no route to host"
            r"|broken pipe|\bEOF\b|toomanyrequests|too many requests|status: 5\d\d|status: 429|50[234] "
            r"|use of closed network connection|temporary failure|proxyconnect",
            re.IGNORECASE,
        ),
    ),
)
_REGISTRY_SENTENCES: dict[type[RegistryError], tuple[str, str]] = {
    RegistryUntrusted: (
        "does not prove who it is",
        "Give the engine the registry's certificate, or list it under `insecure-registries`.",
    ),
    RegistryDenied: (
        "refuses access",
        "Check the user name, the password and the rights of that user.",
    ),
    ImageNotInRegistry: ("has no such image", "Check the name, the tag and the platform."),
    RegistryUnreachable: (
        "does not answer as it should",
        "Check that it runs and that the engine can reach it, then try again.",
    ),
}


def choose_registry_error(
    explanation: str, *, reference: str, registry: str, is_push: bool
) -> RegistryError | DiskFull:
    """The typed error for what an engine reports of a pull or push.

    dockerd passes registry errors on as plain text, in a stream whose HTTP status is 200, so the text is
    all there is (https://github.com/docker/docker-py/issues/3277).

    Args:
        explanation: The engine's message.
        reference: The image that was pulled or pushed.
        registry: Its registry's host, for the sentence.
        is_push: Push or pull.
    """
    verb = "pushing" if is_push else "pulling"
    facts = {"reference": reference, "registry": registry}
    if says_disk_full(explanation):
        return DiskFull(
            f"A disk is full: it happened while {verb} {reference} ({explanation.strip()}).",
            remedy="Free space on the engine or the registry, then run this again.",
            **facts,
        )
    for kind, saying in _REGISTRY_SAYINGS:
        if saying.search(explanation.strip()):
            what, remedy = _REGISTRY_SENTENCES[kind]
            return kind(
                f"The registry {registry} {what} while {verb} {reference}: {explanation.strip()}.",
                remedy=remedy,
                **facts,
            )
    other = PushFailed if is_push else PullFailed
    return other(f"{verb.capitalize()} {reference} failed: {explanation.strip()}.", **facts)
