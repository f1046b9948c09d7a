"""Secrets are given by reference and resolved at the last moment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from constellation_docker.errors import InvalidInput


def _checked_reference(value: str) -> str:
    kind, _, name = value.partition(":")
    if kind not in {"env", "file"} or not name:
        raise ValueError("a secret is given by reference, as env:NAME or file:/path, never as its value")
    return value


SecretReference = Annotated[str, AfterValidator(_checked_reference)]


def resolve_secret(reference: str) -> str:
    """The secret that a reference stands for.

    Args:
        reference: `env:NAME` (an environment variable) or `file:/path` (a file; surrounding white space is cut).

    Raises:
        InvalidInput: The variable or the file is not there. The message names the reference, never a value.
    """
    kind, _, name = reference.partition(":")
    if kind == "env" and name in os.environ:
        return os.environ[name]
    if kind == "file":
        path = Path(name)
        if path.is_file():
            return path.read_text(encoding="utf-8").strip()
    raise InvalidInput(
        f"The secret {kind}:{name} cannot be read.",
        remedy="Set the environment variable or create the file that the reference names.",
        reference=reference,
    )
