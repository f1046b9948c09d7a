"""Who calls."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

EVERY_ENVIRONMENT = "*"


class Role(StrEnum):
    """What somebody is to the platform. Each may do all that the one before may."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


@dataclass(frozen=True)
class Principal:
    """Somebody who was authenticated.

    Args:
        name: Whom people know; in audit lines and in the runs' `requested_by` tag.
        role: What they may do, as `permissions` says.
        environments: Where they may change something; `*` stands for everywhere. None: where their role may.
        kind: How they were authenticated.
        id: What tells them apart: `key:…`, `token:…` or `local`. Rate limits and audit lines go by it.
    """

    name: str
    role: Role
    environments: frozenset[str] | None = None
    kind: Literal["api_key", "token", "local"] = "api_key"
    id: str = ""
