"""The login page: a key or token in a small form, a session's cookie in return. Works without scripts."""

from __future__ import annotations

import base64
import hashlib
import html
from importlib import resources
from string import Template
from urllib.parse import parse_qs, quote, urlsplit

from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from constellation_docker.errors import ConstellationError
from constellation_docker.gateway.access.audit import SCOPE_KEY, record
from constellation_docker.gateway.access.authentication import Access
from constellation_docker.gateway.access.errors import Unauthenticated
from constellation_docker.gateway.errors import answer_error
from constellation_docker.gateway.links import UI_PATH
from constellation_docker.gateway.same_site import CrossSite, refuse_other_sites

LONGEST_FORM_BYTES = 32 * 1024
AFTER_LOGIN = f"{UI_PATH}/"


class LoginPages:
    """`GET` and `POST` of `/login` and `/logout`.

    Args:
        access: Who calls.
    """

    def __init__(self, access: Access) -> None:
        self._access = access
        pages = resources.files("constellation_docker.gateway.access") / "pages"
        self._style = (pages / "login.css").read_text(encoding="utf-8")
        self._form = Template((pages / "login.html").read_text(encoding="utf-8"))
        self._farewell = Template((pages / "logout.html").read_text(encoding="utf-8"))
        digest = base64.b64encode(hashlib.sha256(self._style.encode()).digest()).decode()
        self._policy = (
            f"default-src 'none'; style-src 'sha256-{digest}'; form-action 'self'; "
            "frame-ancestors 'none'; base-uri 'none'"
        )

    def routes(self) -> list[BaseRoute]:
        """The routes to add to an application."""
        return [
            Route("/login", self._show, methods=["GET"], include_in_schema=False),
            Route("/login", self._log_in, methods=["POST"], include_in_schema=False),
            Route("/logout", self._ask, methods=["GET"], include_in_schema=False),
            Route("/logout", self._log_out, methods=["POST"], include_in_schema=False),
        ]

    async def _show(self, request: Request) -> Response:
        return self._page(safe_target(request.query_params.get("next", "")))

    async def _log_in(self, request: Request) -> Response:
        form = await _read_form(request)
        target = safe_target(form.get("next", ""))
        try:
            _refuse_foreign_forms(request)
            principal, expires_at = await run_sync(self._access.log_in, request, form.get("key", ""))
        except ConstellationError as error:
            answered = answer_error(error)
            if answered.status_code < 500:
                record(request, "log_in", "/login", outcome="denied", reason=error.message)
            told = (
                f"{error.message} {error.remedy}" if answered.status_code < 500 else "Try again in a moment."
            )
            headers = {name: value for name, value in answered.headers.items() if name == "retry-after"}
            return self._page(target, told, status=answered.status_code, headers=headers)
        request.scope[SCOPE_KEY] = principal
        record(request, "log_in", "/login", outcome="done")
        response = RedirectResponse(quote(target, safe="/?&=%~@:!$'()*+,;#"), 303)
        self._access.sessions.begin(request, response, principal, expires_at)
        return response

    async def _ask(self, _request: Request) -> Response:
        return self._html(self._farewell.substitute(style=self._style))

    async def _log_out(self, request: Request) -> Response:
        try:
            _refuse_foreign_forms(request)
            request.scope[SCOPE_KEY] = self._access.sessions.read(request)
        except Unauthenticated:
            pass  # it has ended already; the browser should forget the cookie all the same
        if request.scope.get(SCOPE_KEY):
            record(request, "log_out", "/logout", outcome="done")
        response = RedirectResponse("/login", 303)
        self._access.sessions.end(request, response)
        return response

    def _page(
        self, target: str, problem: str = "", *, status: int = 200, headers: dict[str, str] | None = None
    ) -> Response:
        text = self._form.substitute(
            style=self._style,
            problem=f'<p role="alert">{html.escape(problem)}</p>' if problem else "",
            next=html.escape(target),
        )
        return self._html(text, status, headers)

    def _html(self, text: str, status: int = 200, headers: dict[str, str] | None = None) -> Response:
        policy = {"Content-Security-Policy": self._policy, "Cache-Control": "no-store"}
        return HTMLResponse(text, status, headers={**policy, **(headers or {})})


def safe_target(given: str) -> str:
    """Where to go after the login: a path of ours, whatever the form or the address says."""
    parts = urlsplit(given) if given.isprintable() and "\\" not in given else None
    if parts is None or parts.scheme or parts.netloc or not given.startswith("/") or given.startswith("//"):
        return AFTER_LOGIN
    return given


def _refuse_foreign_forms(request: Request) -> None:
    """Another site's form must not log a browser in (as somebody else) or out."""
    refuse_other_sites(request)
    if "Origin" not in request.headers:
        raise CrossSite("The form was not sent by the gateway's own page.", remedy="Open /login.")


async def _read_form(request: Request) -> dict[str, str]:
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > LONGEST_FORM_BYTES:
            return {}
    fields = parse_qs(body.decode("utf-8", "replace"), max_num_fields=10)
    return {name: values[0] for name, values in fields.items()}
