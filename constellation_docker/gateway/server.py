"""Serving the gateway: uvicorn, TLS, logs as JSON lines, and no start where nobody could be kept out."""

from __future__ import annotations

import json
import logging
import logging.config
import math
import os
import socket
from datetime import UTC, datetime
from typing import Any

import uvicorn
from fastapi import FastAPI

from constellation_docker.errors import InvalidInput
from constellation_docker.gateway.access import access_log, audit
from constellation_docker.gateway.access.audit import without_secrets
from constellation_docker.gateway.access.authentication import Access, is_loopback
from constellation_docker.gateway.application import create_app
from constellation_docker.gateway.request_id import request_id
from constellation_docker.gateway.streams import Streams
from constellation_docker.gateway.tls import Certificates
from constellation_docker.settings import GatewaySettings, Settings

# Longer than balancers keep their idle connections (mostly 60 s), so that it is never we who close one in use.
KEEP_ALIVE_SECONDS = 75
TICKS_A_SECOND = 10

_log = logging.getLogger(__name__)


class NotGuarded(InvalidInput):
    """The gateway would listen where others reach it, and has no way to tell them apart."""

    code = "not_guarded"


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; calls in progress are answered first.

    Raises:
        NotGuarded: Nobody could be told apart, and others than this machine could call.
        InvalidInput: The address is taken, a certificate, secret or the audit file cannot be used.
        StoreUnavailable, StoreRefused: The card store cannot be opened.
    """
    known = settings.gateway
    logging.config.dictConfig(log_configuration())
    if known.audit_file is not None:
        logging.getLogger(audit.LOGGER).addHandler(audit.open_file(known.audit_file))
    app = create_app(settings)
    try:
        refuse_unguarded(known, app.state.ports.access)
        certificates = _certificates(known)
        listener = _listen(known)
    except BaseException:
        app.state.ports.store.close()
        raise
    with listener:
        host, port = listener.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        _log.info("The gateway listens at http%s://%s:%d.", "s" if certificates else "", shown, port)
        Server(app, known, certificates, app.state.ports.streams).run(sockets=[listener])


def refuse_unguarded(settings: GatewaySettings, access: Access) -> None:
    """See that nobody can call whom we could not tell apart.

    Raises:
        NotGuarded: There is no usable key and no issuer of tokens, and the address can be reached by others.
    """
    if access.is_configured:
        return
    if not is_loopback(settings.bind):
        raise NotGuarded(
            f"The gateway does not start on {settings.bind or 'every address'}: there is no API key, no issuer of tokens is set, and others could call it.",
            remedy="Make a key with `constellation-docker keys create --name NAME --role admin`, set gateway.tokens, or bind it to 127.0.0.1.",
        )
    if settings.allow_local:
        _log.warning(
            "Everybody on this machine is admin of the gateway (gateway.allow_local, and no API key)."
        )
    else:
        _log.warning(
            "There is no API key yet, so only /health and /ready answer: `constellation-docker keys create`."
        )


class Server(uvicorn.Server):  # type: ignore[misc]
    """uvicorn, set up for us; it looks after the certificate between two ticks of its own loop.

    Args:
        app: The application.
        settings: The gateway's settings.
        certificates: Its certificate; None: plain HTTP.
        streams: What the application tells bit by bit; a stopping server waits for none of them.
    """

    def __init__(
        self,
        app: FastAPI,
        settings: GatewaySettings,
        certificates: Certificates | None = None,
        streams: Streams | None = None,
    ) -> None:
        self._certificates = certificates
        self._streams = streams
        self._ticks = max(1, math.ceil(settings.tls_reload_seconds * TICKS_A_SECOND))
        self._until_look = self._ticks
        proxies = list(settings.trusted_proxies)
        super().__init__(
            uvicorn.Config(
                app,
                http="h11",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=bool(proxies),
                forwarded_allow_ips=proxies,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=math.ceil(settings.shutdown_grace_seconds),
                ssl_context_factory=(lambda _config, _default: certificates.context)
                if certificates
                else None,
            )
        )

    async def on_tick(self, counter: int) -> bool:
        """Called by uvicorn ten times a second, in the loop that also does the handshakes."""
        self._until_look -= 1
        if self._certificates is not None and self._until_look <= 0:
            self._until_look = self._ticks
            self._certificates.reload_if_changed()
        done: bool = await super().on_tick(counter)
        return done

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Called by uvicorn when it begins to stop."""
        if self._streams is not None:
            self._streams.end()
        await super().shutdown(sockets)


def log_configuration() -> dict[str, Any]:
    """The gateway's logs: calls and the audit trail on standard output, the rest on standard error, all JSON lines."""
    lines = {"class": "logging.StreamHandler", "stream": "ext://sys.stdout", "formatter": "line"}
    rest = {"class": "logging.StreamHandler", "stream": "ext://sys.stderr", "formatter": "json"}
    whole_lines = {"handlers": ["lines"], "level": "INFO", "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"format": "%(message)s"}, "json": {"()": JsonLines}},
        "handlers": {"lines": lines, "rest": rest},
        "loggers": {
            audit.LOGGER: whole_lines,
            access_log.LOGGER: whole_lines,
            # They tell every request that we send.
            **{name: {"level": "WARNING"} for name in ("httpx", "httpcore", "alembic", "uvicorn")},
        },
        "root": {"handlers": ["rest"], "level": "INFO"},
    }


class JsonLines(logging.Formatter):
    """A log record as one line of JSON, without anything that looks like a key or a token."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = {
            "log": record.name,
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": without_secrets(record.getMessage()),
        }
        if called := request_id():
            line["request_id"] = called
        if record.exc_info:
            line["exception"] = without_secrets(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=True)


def _certificates(settings: GatewaySettings) -> Certificates | None:
    if settings.tls_certificate is None or settings.tls_key is None:
        if not is_loopback(settings.bind) and not settings.trusted_proxies:
            _log.warning(
                "Keys and tokens cross the network in the clear: set gateway.tls_certificate and tls_key."
            )
        return None
    return Certificates(settings.tls_certificate, settings.tls_key)


def _listen(settings: GatewaySettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.bind else socket.AF_INET
    try:
        return socket.create_server((settings.bind, settings.port), family=family, backlog=2048)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise InvalidInput(
            f"The gateway cannot listen on {settings.bind}:{settings.port}: {reason}.",
            remedy="Set gateway.bind and gateway.port to an address of this machine that is free.",
        ) from error
