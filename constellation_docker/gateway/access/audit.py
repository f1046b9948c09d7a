"""The audit trail: one JSON line for every denial and every change, on the logger `constellation.audit`.

Who, what, when, in which environment, which run, the request's id and how it ended; never a secret. JSON escapes
line ends and control characters, so nothing that a caller sends can begin a line of its own.
"""

from __future__ import annotations

import json
import logging
import re
from datetime import UTC, datetime
from typing import Any, Literal

from starlette.requests import HTTPConnection

from constellation_docker.gateway.access.principal import Principal
from constellation_docker.gateway.request_id import request_id

LOGGER = "constellation.audit"
LONGEST_VALUE = 300
# Where a request's principal is kept once it is known.
SCOPE_KEY = "constellation.principal"

Outcome = Literal["allowed", "denied", "done", "failed"]

_SECRETS = re.compile(r"(constellation_[0-9a-f]{12})_[0-9a-f]+|eyJ[\w-]*\.[\w-]+(?:\.[\w-]*)?")
_log = logging.getLogger(LOGGER)


def record(
    request: HTTPConnection,
    action: str,
    subject: str,
    *,
    outcome: Outcome,
    run_id: str | None = None,
    environment: str | None = None,
    reason: str | None = None,
) -> None:
    """Write one audit line.

    Args:
        request: The call; its principal, address and id are taken from it.
        action: What was wanted, such as `deploy`.
        subject: Of what: a model, an image, a path.
        outcome: `allowed` (begun), `done`, `failed` or `denied`.
        run_id: The Dagster run that does it.
        environment: Where.
        reason: Why not, in one sentence.
    """
    principal: Principal | None = request.scope.get(SCOPE_KEY)
    line: dict[str, Any] = {
        "log": "audit",
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "who": principal.name if principal else None,
        "id": principal.id if principal else None,
        "role": principal.role.value if principal else None,
        "address": request.client.host if request.client else None,
        "action": str(action),
        "subject": subject,
        "environment": environment,
        "run_id": run_id,
        "outcome": outcome,
        "reason": reason,
        "request_id": request_id(),
    }
    known = {name: _shown(value) for name, value in line.items() if value is not None}
    _log.info("%s", json.dumps(known, ensure_ascii=True))


def without_secrets(text: str) -> str:
    """A text with everything that looks like a key or a token cut out of it."""
    return _SECRETS.sub(lambda found: f"{found[1]}_***" if found[1] else "***", text)


def _shown(value: Any) -> str:
    text = without_secrets(str(value))
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"
