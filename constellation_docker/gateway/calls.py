"""One call that changes something: who makes it, its audit line, and its Idempotency-Key."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, TypeVar

from fastapi import Depends, Header, Response
from pydantic import BaseModel
from starlette.requests import Request

from constellation_docker.errors import ConstellationError
from constellation_docker.gateway.access.audit import SCOPE_KEY, record
from constellation_docker.gateway.access.guard import require
from constellation_docker.gateway.access.permissions import Action
from constellation_docker.gateway.access.principal import Principal
from constellation_docker.gateway.errors import GatewayError
from constellation_docker.gateway.ports import Ports, Provided
from constellation_docker.gateway.route import ARRIVED

AnyReply = TypeVar("AnyReply", bound=BaseModel)

REPLAYED = "Idempotent-Replayed"


class KeyReused(GatewayError):
    """An Idempotency-Key came again with another call."""

    code = "idempotency_key_reused"
    default_status = 422


@dataclass
class AuditLine:
    """What the audit line of a change says beside who and what."""

    subject: str
    run_id: str | None = None


@dataclass(frozen=True)
class Call:
    """One call that changes something.

    Args:
        request: The request.
        response: Gets the headers that the answer will have.
        ports: The gateway's ports.
        key: The Idempotency-Key, where the caller sent one.
    """

    request: Request
    response: Response
    ports: Ports
    key: str | None

    @property
    def principal(self) -> Principal:
        """Who calls; the endpoint's guard has found out."""
        known: Principal = self.request.scope[SCOPE_KEY]
        return known

    @property
    def arrived(self) -> datetime:
        """When the call came."""
        came: datetime = self.request.scope[ARRIVED]
        return came

    def require(self, action: Action, environment: str | None) -> None:
        """Go on only where the caller may do this in the environment.

        Raises:
            Forbidden: They may not.
        """
        require(self.request, self.principal, action, environment)

    @contextmanager
    def audited(self, action: Action, subject: str, environment: str | None = None) -> Iterator[AuditLine]:
        """Write one audit line of the block: done, or failed and why."""
        line = AuditLine(subject)
        try:
            yield line
        except ConstellationError as error:
            record(
                self.request,
                action,
                line.subject,
                outcome="failed",
                run_id=line.run_id,
                environment=environment,
                reason=error.message,
            )
            raise
        record(
            self.request,
            action,
            line.subject,
            outcome="done",
            run_id=line.run_id,
            environment=environment,
        )

    def once(self, body: BaseModel | None, reply: type[AnyReply], act: Callable[[], AnyReply]) -> AnyReply:
        """What the call is answered; where its Idempotency-Key was answered already, the same again.

        Args:
            body: What the caller sent.
            reply: What an answer is.
            act: Does it. It may be done twice, where a first answer was lost, so it must start nothing twice.

        Raises:
            KeyReused: The key came before with another call.
        """
        if self.key is None:
            return act()
        calls, caller = self.ports.answered_calls, self.principal.id or self.principal.name
        keep = timedelta(hours=self.ports.settings.gateway.idempotency_hours)
        before = calls.begin(caller, self.key, self._fingerprint(body), keep=keep)
        if before is not None and before.fingerprint != self._fingerprint(body):
            raise KeyReused(
                "This Idempotency-Key was used for another call.",
                remedy="Make a new key for each call, and use it again only to repeat that call.",
            )
        if before is not None and before.answer is not None:
            self.response.headers[REPLAYED] = "true"
            return reply.model_validate(before.answer)
        try:
            answer = act()
        except Exception:
            calls.forget(caller, self.key)
            raise
        calls.answer(caller, self.key, 202, answer.model_dump(mode="json"))
        return answer

    def _fingerprint(self, body: BaseModel | None) -> str:
        said = body.model_dump(mode="json", exclude_unset=True) if body is not None else None
        parts = [self.request.method, self.request.url.path, said]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


async def _call(
    request: Request,
    response: Response,
    ports: Provided,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=255,
            pattern=r"^[\x21-\x7e]+$",
            description="Any text, one for each intended call: sent again with the same one it starts nothing twice, "
            "and is answered the same.",
        ),
    ] = None,
) -> Call:
    return Call(request, response, ports, idempotency_key)


Called = Annotated[Call, Depends(_call)]
