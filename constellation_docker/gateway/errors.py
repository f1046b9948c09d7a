"""From a typed error to an HTTP answer: `{"error": {"code", "message", "details", "request_id"}}`.

What callers did is told in the error's own words. What failed inside is told in ours: addresses, paths and
the words of other programs stay in the log, where the request id finds them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from constellation_docker.cards.strict_record import plain_words
from constellation_docker.errors import ConstellationError
from constellation_docker.gateway.request_id import request_id

_log = logging.getLogger(__name__)

RETRY_AFTER_SECONDS = 5


class GatewayError(ConstellationError):
    """A call that the gateway itself refuses. Subclasses name the kind in `code`.

    Args:
        message: See `ConstellationError`; it reaches the caller as it is.
        remedy: See `ConstellationError`.
        status: The HTTP status, where it is not the class's own.
        headers: Further headers of the answer, such as `Retry-After`.
        details: See `ConstellationError`.
    """

    code = "gateway_error"
    default_status: ClassVar[int] = 500

    def __init__(
        self,
        message: str,
        *,
        remedy: str = "",
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        **details: Any,
    ) -> None:
        super().__init__(message, remedy=remedy, **details)
        self.status = status or self.default_status
        self.headers = dict(headers or {})


@dataclass(frozen=True)
class Answer:
    """How one kind of error is answered.

    Args:
        status: The HTTP status.
        sentence: What the caller is told instead of the error's own words; None: those.
        remedy: What the caller is told to do instead of the error's own remedy, which may name our command line.
    """

    status: int
    sentence: str | None = None
    remedy: str | None = None


_LIST = "GET /docker/models/ lists what there is."
_STORE = "The card store does not answer. Nothing was lost; try again."
_DAGSTER = (
    "Dagster does not answer. Nothing is lost: the same call may be sent again and starts no second run."
)
_ENGINE = "The Docker engine does not answer. Try again in a moment."

ANSWERS: dict[str, Answer] = {
    "invalid_input": Answer(422),
    "invalid_card": Answer(422),
    "slug_taken": Answer(409),
    "version_published": Answer(409),
    "model_id_taken": Answer(409),
    "card_changed": Answer(409),
    "card_not_found": Answer(404, remedy=_LIST),
    "deployment_not_found": Answer(404, remedy="POST /docker/models/{model_id}/deploy/ deploys it."),
    "release_not_found": Answer(404),
    "not_published": Answer(409),
    "lease_held": Answer(409, "Somebody else is working on this deployment.", "Try again when it has ended."),
    "store_unavailable": Answer(503, _STORE),
    "store_refused": Answer(503, "The card store refuses the gateway.", "Tell whoever runs the gateway."),
    "dagster_unavailable": Answer(503, _DAGSTER),
    "launch_pending": Answer(503),
    "launch_refused": Answer(
        502, "Dagster refused to start or end the run.", "Tell whoever runs the gateway."
    ),
    "engine_unreachable": Answer(503, _ENGINE),
    "deadline_exceeded": Answer(503, _ENGINE),
    "engine_error": Answer(502, "The Docker engine refused.", "Tell whoever runs the gateway."),
    "engine_forbidden": Answer(502, "The Docker engine refused.", "Tell whoever runs the gateway."),
    "engine_incompatible": Answer(502, "The Docker engine refused.", "Tell whoever runs the gateway."),
}
UNEXPECTED = Answer(
    500, "The gateway could not answer this call.", "Tell whoever runs it the request_id; the log says more."
)


def answer_error(error: ConstellationError) -> JSONResponse:
    """The answer for a typed error."""
    headers: dict[str, str] = {}
    if isinstance(error, GatewayError):
        answer = Answer(error.status)
        headers = error.headers
    else:
        answer = ANSWERS.get(error.code, UNEXPECTED)
    is_ours = answer.sentence is not None
    if answer.status >= 500:
        _log.error("%s: %s %s", error.code, error, error.details, exc_info=answer is UNEXPECTED)
    if answer.status == 503:
        headers.setdefault("Retry-After", str(RETRY_AFTER_SECONDS))
    return render_error(
        answer.status,
        code="unexpected" if answer is UNEXPECTED else error.code,
        message=_sentence(
            answer.sentence or error.message, answer.remedy if is_ours else answer.remedy or error.remedy
        ),
        details={} if is_ours else error.details,
        headers=headers,
    )


def answer_validation(error: RequestValidationError) -> JSONResponse:
    """The answer for a call whose body, path or query is not what the contract says: 422 with the fields."""
    problems = [_problem(item) for item in error.errors()]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    first = problems[0] if problems else {"field": "the call", "problem": "is not valid"}
    return render_error(
        422,
        code="invalid_request",
        message=f"{first['field']}: {first['problem']}{more}.",
        details={"problems": problems},
    )


def answer_http(error: HTTPException) -> JSONResponse:
    """The answer for what the framework itself refuses: an unknown path, a wrong method, an unreadable body."""
    known = {
        400: ("bad_request", "The call cannot be read."),
        404: ("not_found", "There is nothing at this path. /openapi.json lists what there is."),
        405: ("method_not_allowed", "This path does not take this method."),
        413: ("body_too_large", "The body is too large."),
        415: ("unsupported_media_type", "The body must be application/json."),
    }
    code, message = known.get(error.status_code, ("http_error", "The call was refused."))
    return render_error(error.status_code, code=code, message=message, headers=error.headers)


def answer_unexpected(error: Exception) -> JSONResponse:
    """The answer for what nobody foresaw. The log has all of it, the caller none."""
    _log.error("Unexpected %s in request %s", type(error).__name__, request_id(), exc_info=error)
    return render_error(
        500, code="unexpected", message=_sentence(UNEXPECTED.sentence or "", UNEXPECTED.remedy)
    )


def answer(error: Exception) -> JSONResponse:
    """The answer for any error."""
    if isinstance(error, ConstellationError):
        return answer_error(error)
    if isinstance(error, RequestValidationError):
        return answer_validation(error)
    if isinstance(error, HTTPException):
        return answer_http(error)
    return answer_unexpected(error)


async def handle(_request: Request, error: Exception) -> JSONResponse:
    """`answer` as Starlette's exception handler."""
    return answer(error)


HANDLED: Sequence[type[Exception]] = (ConstellationError, RequestValidationError, HTTPException, Exception)


def render_error(
    status: int,
    *,
    code: str,
    message: str,
    details: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """An error in the one form that every error has."""
    about = {
        "code": code,
        "message": message,
        "details": json.loads(json.dumps(details or {}, default=str)),
        "request_id": request_id(),
    }
    return JSONResponse({"error": about}, status_code=status, headers=dict(headers or {}))


def _sentence(message: str, remedy: str | None) -> str:
    return f"{message} {remedy or ''}".strip()


def _problem(item: Mapping[str, Any]) -> dict[str, str]:
    place = [str(part) for part in item.get("loc", ())]
    if item.get("type") == "json_invalid":
        return {"field": "body", "problem": "is not valid JSON"}
    if place and place[0] in {"body", "query", "path", "header"}:
        place = place[1:] or place
    return {"field": ".".join(place) or "the call", "problem": plain_words(item)}
