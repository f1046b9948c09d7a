"""Image references, taken apart."""

from __future__ import annotations

import re
from dataclasses import dataclass

from constellation_docker.errors import InvalidInput

DOCKER_HUB = "docker.io"
# https://github.com/distribution/reference: path components, tag, digest.
_PATH = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"\w[\w.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_HOST = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\])(?::\d+)?")


@dataclass(frozen=True)
class ImageReference:
    """`registry.example:5000/team/model:1.0@sha256:…`, in its parts.

    Attributes:
        repository: The name without tag and digest, as people write it (`python`, `host:5000/a/b`).
        registry: The registry's host (`docker.io` where none is written).
        tag: The tag, or None.
        digest: `sha256:…`, or None.
    """

    repository: str
    registry: str
    tag: str | None
    digest: str | None

    @classmethod
    def parse(cls, text: str) -> ImageReference:
        """Take a reference apart.

        Raises:
            InvalidInput: It is not an image reference.
        """
        name, at, digest = text.partition("@")
        slash = name.rfind("/")
        colon = name.rfind(":")
        tag = name[colon + 1 :] if colon > slash else None
        repository = name[:colon] if colon > slash else name
        first, _, rest = repository.partition("/")
        has_host = bool(rest) and (
            "." in first or ":" in first or first == "localhost" or first.startswith("[")
        )
        path = rest if has_host else repository
        is_right = (
            _PATH.fullmatch(path)
            and (not has_host or _HOST.fullmatch(first))
            and (tag is None or _TAG.fullmatch(tag))
            and (not at or _DIGEST.fullmatch(digest))
        )
        if not is_right:
            raise InvalidInput(
                f"{text!r} is not an image reference.",
                remedy="Use [host[:port]/]name[:tag][@sha256:digest], in lower case.",
                reference=text,
            )
        return cls(repository, first if has_host else DOCKER_HUB, tag, digest or None)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.repository}{tag}{digest}"
