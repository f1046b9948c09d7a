"""The audit trail: one JSON line for every denial and every change, on the logger `constellation.audit`.

Who, what, when, in which environment, which run, the request's id and how it ended; never a secret. JSON escapes
line ends and control characters, so nothing that a caller sends can begin a line of its own.

Where the lines go is for whoever runs the process to say: the server (`server.log_configuration`), or a command
(`kept_in`).
"""

from __future__ import annotations

import json
import logging
import os
import pwd
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any, Literal

from starlette.requests import HTTPConnection

from constellation_docker.errors import InvalidInput
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
    _write(
        {
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
    )


def record_command(action: str, subject: str) -> None:
    """Write one audit line for what the command line has done. Who did it is the account that it runs as.

    Args:
        action: What was done, such as `create_key`.
        subject: To what.
    """
    number = os.getuid()
    try:
        name = pwd.getpwuid(number).pw_name
    except KeyError:  # a container's process may run as a number that no account has
        name = str(number)
    # sudo says who asked; to anybody but root the variable is only their own word.
    asked_by = os.environ.get("SUDO_USER") if number == 0 else None
    _write(
        {
            "who": asked_by or name,
            "id": f"account:{name}",
            "action": action,
            "subject": subject,
            "outcome": "done",
        }
    )


@contextmanager
def kept_in(path: Path | None) -> Iterator[None]:
    """Keep the audit lines of the block in a file, or where there is none, write them to standard error.

    Raises:
        InvalidInput: The file cannot be written.
    """
    handler = logging.StreamHandler() if path is None else open_file(path)
    level = _log.level
    _log.addHandler(handler)
    _log.setLevel(logging.INFO)
    try:
        yield
    finally:
        _log.removeHandler(handler)
        _log.setLevel(level)
        handler.close()


def open_file(path: Path) -> WatchedFileHandler:
    """A handler that appends to a file, and to the new one where somebody has moved it away.

    Raises:
        InvalidInput: The file cannot be written.
    """
    try:
        return WatchedFileHandler(path, encoding="utf-8")
    except OSError as error:
        raise InvalidInput(
            f"The audit file {path} cannot be written: {error.strerror or error}.",
            remedy="Make its directory, let this user write there, or set gateway.audit_file to another.",
        ) from error


def _write(line: dict[str, Any]) -> None:
    whole = {"log": "audit", "time": datetime.now(UTC).isoformat(timespec="milliseconds"), **line}
    known = {name: _shown(value) for name, value in whole.items() if value is not None}
    _log.info("%s", json.dumps(known, ensure_ascii=True))


def without_secrets(text: str) -> str:
    """A text with everything that looks like a key or a token cut out of it."""
    return _SECRETS.sub(lambda found: f"{found[1]}_***" if found[1] else "***", text)


def _shown(value: Any) -> str:
    text = without_secrets(str(value))
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"
