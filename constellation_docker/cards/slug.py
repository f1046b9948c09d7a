"""Names and versions: which are allowed, and their form that is safe for containers, DNS and URLs."""

from __future__ import annotations

import hashlib
import re

MAX_SLUG_LENGTH = 50
_HASH_LENGTH = 8

# Names that mean something else in a Compose project, in DNS, or on the balancer's own paths.
RESERVED_SLUGS = frozenset(
    {"balancer", "constellation", "default", "haproxy", "health", "live", "localhost", "metrics", "ready"}
    | {"stats", "status"}
)

# The Hub's rule for repository ids (huggingface_hub.utils.validate_repo_id), with at most one slash.
_NAME = re.compile(
    r"(?:[A-Za-z0-9_](?:[\w.-]{0,94}[A-Za-z0-9_])?/)?[A-Za-z0-9_](?:[\w.-]{0,94}[A-Za-z0-9_])?", re.A
)
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
_ENVIRONMENT = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,38}[a-z0-9])?")


def checked_model_name(name: str) -> str:
    """The name itself, if it may name a model.

    The rule is the Hugging Face Hub's: letters, digits, `-`, `_`, `.`, at most one `/`, no `--` or `..`, no
    `.git` at the end, 96 characters a part.

    Raises:
        ValueError: It may not; the message gives the rule.
    """
    if not _NAME.fullmatch(name) or "--" in name or ".." in name or name.endswith(".git"):
        raise ValueError(
            "a model's name has letters, digits, '-', '_' and '.', at most one '/', begins and ends with a letter or "
            "digit in each part, and holds no '--' or '..' and no '.git' at its end (such as acme/sentiment)"
        )
    if not re.search(r"[A-Za-z0-9]", name):
        raise ValueError("a model's name holds at least one letter or digit")
    return name


def checked_version(version: str) -> str:
    """The version itself, if it may name a version.

    Raises:
        ValueError: It may not; the message gives the rule.
    """
    if not _VERSION.fullmatch(version):
        raise ValueError(
            "a version has 1 to 64 letters, digits, '.', '_', '+' and '-', and begins with a letter or digit"
        )
    return version


def checked_environment(name: str) -> str:
    """The name itself, if it may name an environment.

    Raises:
        ValueError: It may not; the message gives the rule.
    """
    if not _ENVIRONMENT.fullmatch(name):
        raise ValueError(
            "an environment's name has 1 to 40 lower-case letters, digits, '-' and '_', such as production"
        )
    return name


def slug_of(model_name: str) -> str:
    """A model name's safe form: container, Compose service, DNS label, URL path segment and image name.

    It has only `[a-z0-9-]`, begins and ends with a letter or digit, and is at most 50 characters long. Names
    that do not fit keep a short hash, so that two long names with one beginning stay apart. Different names
    may still have one slug (`a.b`, `a-b`); the store refuses the second.

    Example:
        >>> slug_of("sentence-transformers/all-MiniLM-L6-v2")
        'sentence-transformers-all-minilm-l6-v2'
    """
    slug = re.sub(r"[^a-z0-9]+", "-", model_name.lower()).strip("-")
    # A bare number is read as an IPv4 address by resolvers (inet_aton: `7` is 0.0.0.7).
    if slug in RESERVED_SLUGS or re.fullmatch(r"\d+|0x[0-9a-f]*", slug):
        slug = f"model-{slug}"
    if len(slug) <= MAX_SLUG_LENGTH:
        return slug
    digest = hashlib.sha256(model_name.encode("utf-8")).hexdigest()[:_HASH_LENGTH]
    return f"{slug[: MAX_SLUG_LENGTH - _HASH_LENGTH - 1].rstrip('-')}-{digest}"


def image_tag_of(version: str) -> str:
    """A version as an image tag, where `+` is not allowed (`1.0+cpu` → `1.0_cpu-…`, with a short hash).

    Source of the rule: the OCI distribution specification, `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
    """
    if "+" not in version:
        return version
    digest = hashlib.sha256(version.encode("utf-8")).hexdigest()[:_HASH_LENGTH]
    return f"{version.replace('+', '_')}-{digest}"
