"""HAProxy's configuration for a Compose file that is run without us, and what it shares with ours.

Here Docker's DNS finds the replicas (`server-template` and the engine's resolver at 127.0.0.11). Our own rollouts name
every replica themselves (`rollout/haproxy_config.py`), because DNS knows neither readiness nor draining.
Reference: https://docs.haproxy.org/2.6/configuration.html; everything here is understood by 2.6 and later.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

CONFIG_PATH = "/etc/constellation/haproxy.cfg"
SOCKET_FOLDER = "/run/constellation"
SOCKET_PATH = f"{SOCKET_FOLDER}/admin.sock"
PORT = 8080
METRICS_PORT = 8404
DEFAULT_TIMEOUT_SECONDS = 300
# Failed checks in a row after which a replica gets no more requests, and good ones after which it does again.
FALL = 5
RISE = 1
# The balancer waits a little longer than the server, so that the server's own answer to a timeout arrives.
TIMEOUT_MARGIN_SECONDS = 5

# Speaks to HAProxy's runtime socket from inside the container: with socat, or with the perl that every Debian
# image has (the upstream HAProxy image has no socat). Standard input goes in, the answer comes out.
RUNTIME_CLIENT = (
    f"if command -v socat >/dev/null 2>&1; then exec socat -t 30 - UNIX-CONNECT:{SOCKET_PATH}; "
    "else exec perl -MSocket -e '"
    f'socket(S,PF_UNIX,SOCK_STREAM,0)&&connect(S,sockaddr_un("{SOCKET_PATH}"))||die"$!\\n";'
    "local $/;syswrite S,<STDIN>;shutdown S,1;print <S>'; fi"
)
HEALTH_COMMAND = (
    f"answer=$(echo 'show info' | {{ {RUNTIME_CLIENT}; }}); "
    'case "$answer" in *Uptime_sec*) exit 0;; esac; exit 1'
)


class StandaloneRoute(NamedTuple):
    """One service behind a balancer that finds replicas by DNS."""

    slug: str
    port: int
    ready_path: str
    replicas: int
    timeout_seconds: float
    max_body_bytes: int | None


def render_preamble(*, forget_absent_after: str = "10s") -> str:
    """The sections that both kinds of configuration begin with: process, DNS, defaults, metrics.

    Args:
        forget_absent_after: How long a server keeps the address of a name that is gone (HAProxy duration).
    """
    return f"""\
global
    log stdout format raw local0
    maxconn 8192
    hard-stop-after 15m
    stats socket {SOCKET_PATH} mode 600 level admin expose-fd listeners

resolvers docker
    nameserver engine 127.0.0.11:53
    resolve_retries 2
    timeout resolve 1s
    timeout retry 1s
    hold valid 1s
    hold obsolete {forget_absent_after}
    hold nx {forget_absent_after}
    hold timeout {forget_absent_after}
    hold refused {forget_absent_after}
    hold other {forget_absent_after}

defaults
    mode http
    log global
    option dontlognull
    option http-server-close
    option redispatch 1
    retries 3
    # Only where no byte of the request can have reached a replica.
    retry-on conn-failure
    timeout connect 3s
    timeout client 310s
    timeout server {DEFAULT_TIMEOUT_SECONDS + TIMEOUT_MARGIN_SECONDS}s
    timeout http-request 30s
    timeout http-keep-alive 75s
    timeout queue 30s
    timeout check 3s
    timeout tunnel 1h
    # A replica that fails a check is asked twice a second from then on; a rollout that watches it sees the first
    # failures, and can go back before it is given up.
    default-server check inter 1s fastinter 500ms fall {FALL} rise {RISE} resolvers docker resolve-prefer ipv4
    http-error status 502 content-type application/json string '{{"error": "The model broke off its answer.", "code": "bad_gateway"}}'
    http-error status 503 content-type application/json string '{{"error": "No replica of this model is ready.", "code": "not_ready"}}' hdr Retry-After 2
    http-error status 504 content-type application/json string '{{"error": "The model did not answer in time.", "code": "timeout"}}'

frontend metrics
    bind :{METRICS_PORT}
    option dontlog-normal
    http-request use-service prometheus-exporter if {{ path /metrics }}
    http-request return status 404 content-type text/plain string "not found"
"""


def render_frontend_beginning() -> str:
    """The public frontend up to where routes are chosen: request ids, the log's form, the first path segment."""
    return f"""\
frontend public
    bind :{PORT}
    unique-id-format %{{+X}}o%ci%cp%Ts%rt%pid
    http-request set-header X-Request-ID %[unique-id] unless {{ req.hdr(X-Request-ID) -m found }}
    http-request set-var(txn.request_id) req.hdr(X-Request-ID)
    http-after-response set-header X-Request-ID %[var(txn.request_id)]
    http-request set-var(txn.slug) path,field(2,/)
    log-format '{{"request_id":"%{{+E}}[var(txn.request_id)]","model":"%{{+E}}[var(txn.slug)]","method":"%HM","status":%ST,"server":"%s","milliseconds":%Ta,"in_bytes":%U,"out_bytes":%B,"end":"%tsc"}}'
"""


def render_prefix_rules(slug_expression: str = "%[var(txn.slug)]") -> str:
    """The rules that take a model's prefix off the path, and tell the model what was taken off."""
    return f"""\
    http-request set-header X-Forwarded-Prefix /{slug_expression}
    http-request set-header X-Forwarded-For %[src]
    http-request replace-path ^/[^/]*/?(.*)$ /\\1
"""


UNKNOWN_MODEL = (
    "http-request return status 404 content-type application/json "
    'string \'{"error": "There is no model at this path.", "code": "unknown_model"}\''
)
TOO_LARGE = (
    "http-request return status 413 content-type application/json "
    'string \'{"error": "The request is larger than this model accepts.", "code": "too_large"}\''
)
HEALTH_RULE = 'http-request return status 200 content-type application/json string \'{"status": "ok"}\' if { path /health }'


def render_standalone_config(routes: Sequence[StandaloneRoute]) -> str:
    """HAProxy's configuration that finds each service's replicas through the engine's DNS.

    Args:
        routes: The services, in the order in which they are to stand.
    """
    frontend = [render_frontend_beginning() + f"    {HEALTH_RULE}"]
    backends: list[str] = []
    for route in routes:
        frontend.append(f"    use_backend {route.slug} if {{ var(txn.slug) -m str {route.slug} }}")
        backends.append(_standalone_backend(route))
    frontend.append("    default_backend unknown-model")
    unknown = f"backend unknown-model\n    {UNKNOWN_MODEL}\n"
    return "\n".join([render_preamble(), "\n".join(frontend) + "\n", *backends, unknown])


def _standalone_backend(route: StandaloneRoute) -> str:
    body_limit = ""
    if route.max_body_bytes is not None:
        body_limit = f"    {TOO_LARGE} if {{ req.hdr_val(content-length) gt {route.max_body_bytes} }}\n"
    timeout = round((route.timeout_seconds + TIMEOUT_MARGIN_SECONDS) * 1000)
    return f"""\
backend {route.slug}
    balance leastconn
    timeout server {timeout}ms
{body_limit}{render_prefix_rules(route.slug)}    option httpchk
    http-check send meth GET uri {route.ready_path} ver HTTP/1.1 hdr Host {route.slug}
    http-check expect status 200-299
    server-template replica 1-{max(1, route.replicas)} {route.slug}:{route.port} init-addr none
"""
