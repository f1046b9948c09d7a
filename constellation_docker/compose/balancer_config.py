"""HAProxy's configuration for a Compose file that is run without us, and what it shares with ours.

Here Docker's DNS finds the replicas (`server-template` and the engine's resolver at 127.0.0.11). Our own rollouts name
every replica themselves (`rollout/haproxy_config.py`), because DNS knows neither readiness nor draining.
Reference: https://docs.haproxy.org/2.6/configuration.html; everything here is understood by 2.6 and later.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from constellation_docker.cards.quantities import duration_seconds
from constellation_docker.cards.serving_options import RateLimit

USER_ID = 65532
CONFIG_PATH = "/etc/constellation/haproxy.cfg"
SOCKET_FOLDER = "/run/constellation"
SOCKET_PATH = f"{SOCKET_FOLDER}/admin.sock"
# Certificate, chain and key in one PEM; not beside the configuration, which is read back and compared.
CERTIFICATE_PATH = "/etc/constellation-tls/server.pem"
PORT = 8080
METRICS_PORT = 8404
DEFAULT_TIMEOUT_SECONDS = 300
# How long a client's connection may be idle.
KEEP_ALIVE_SECONDS = 75
# Failed checks in a row after which a replica gets no more requests, and good ones after which it does again.
FALL = 7
RISE = 1
# Bad answers (5xx, broken connections) in a row that count like a failed check. The next good check wipes them out, so
# they take a replica out only where its checks fail too, or where nothing but errors comes faster than checks do; and
# the last replica of a model is back at its next good check.
ERRORS_LIKE_A_FAILED_CHECK = 10
# A line of the access log can be longer than HAProxy's usual 1024 bytes once everything in it is escaped.
_LOG_LINE_BYTES = 4096
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


class BalancerOptions(NamedTuple):
    """What an environment's settings say about its balancer.

    Attributes:
        tls_minimum: Oldest version of TLS; None: plain HTTP.
        has_status_page: Whether the metrics' port is published, and so the status page of use.
        slow_start_seconds: How long the share of a replica that has just become ready grows.
    """

    tls_minimum: str | None = None
    has_status_page: bool = False
    slow_start_seconds: int = 10


class StandaloneRoute(NamedTuple):
    """One service behind a balancer that finds replicas by DNS."""

    slug: str
    port: int
    ready_path: str
    replicas: int
    timeout_seconds: float
    max_body_bytes: int | None
    rate_limit: RateLimit | None = None


def render_preamble(
    options: BalancerOptions, *, forget_absent_after: str = "10s", mark: str = "", name_rule: str = ""
) -> str:
    """The sections that both kinds of configuration begin with: process, DNS, defaults, metrics, rates.

    Args:
        options: What the settings say.
        forget_absent_after: How long a server keeps the address of a name that is gone (HAProxy duration).
        mark: A further line of the section `global`.
        name_rule: The rule that tells the status page what a backend or server is for.
    """
    slow_start = f" slowstart {options.slow_start_seconds}s" if options.slow_start_seconds else ""
    return f"""\
global
    log stdout len {_LOG_LINE_BYTES} format raw local0
{mark}    maxconn 8192
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
    # A reload closes no connection under a client's next request: that is still answered, and told that it was the last.
    option idle-close-on-response
    # A reload closes no connection under a client's next request: that is still answered, and says that it was the last.
    option redispatch 1
    retries 3
    # Only where no byte of the request can have reached a replica.
    retry-on conn-failure
    timeout connect 3s
    timeout client 310s
    timeout server {DEFAULT_TIMEOUT_SECONDS + TIMEOUT_MARGIN_SECONDS}s
    timeout http-request 30s
    timeout http-keep-alive {KEEP_ALIVE_SECONDS}s
    timeout queue 30s
    timeout check 3s
    timeout tunnel 1h
    # A replica that fails a check is asked twice a second from then on; a rollout that watches it sees the first
    # failures, and can go back before it is given up. So is one that is not up yet: a rollout waits for it.
    default-server check inter 1s fastinter 500ms downinter 500ms fall {FALL} rise {RISE} resolvers docker resolve-prefer ipv4
    default-server observe layer7 error-limit {ERRORS_LIKE_A_FAILED_CHECK} on-error fail-check{slow_start}
    http-error status 502 content-type application/json string '{{"error": "The model broke off its answer.", "code": "bad_gateway"}}'
    http-error status 503 content-type application/json string '{{"error": "No replica of this model is ready.", "code": "not_ready"}}' hdr Retry-After 2
    http-error status 504 content-type application/json string '{{"error": "The model did not answer in time.", "code": "timeout"}}'

{_render_metrics(options, name_rule)}
{_RATE_TABLES}"""


def _render_metrics(options: BalancerOptions, name_rule: str) -> str:
    page = ""
    if options.has_status_page:
        page = f"""\
    stats enable
    stats uri /stats
    stats hide-version
    stats refresh 5s
{name_rule}    http-request return status 200 content-type "text/html; charset=utf-8" hdr Content-Security-Policy "default-src 'none'; connect-src 'self'; script-src 'unsafe-inline'; style-src 'unsafe-inline'" string '{_status_page()}' if {{ path / }}
"""
    # `stats;csv` is what the page reads.
    other = " unless { path_beg /stats }" if options.has_status_page else ""
    return f"""\
frontend metrics
    bind :{METRICS_PORT}
    option dontlog-normal
    http-request use-service prometheus-exporter if {{ path /metrics }}
{page}    http-request return status 404 content-type text/plain string "not found"{other}
"""


@cache
def _status_page() -> str:
    """The page as one line, which is how it can stand in the configuration: without apostrophes."""
    text = files("constellation_docker.compose").joinpath("status_page.html").read_text(encoding="utf-8")
    line = " ".join(text.split())
    if "'" in line:
        raise AssertionError("the status page stands in the configuration within apostrophes")
    return line


_PERIODS = (1, 10, 60, 3600)
# Requests that were let in, by model and client. Clients are kept as hashes, because an API key is a secret.
_RATE_TABLES = "\n".join(
    f"backend rate-{seconds}\n"
    f"    stick-table type binary len 20 size 100k expire {2 * seconds}s store gpc0,gpc0_rate({seconds}s)\n"
    for seconds in _PERIODS
)


def rate_value(limit: RateLimit) -> str:
    """A rate limit as the rules read it: requests, seconds, by what clients are told apart."""
    return f"{limit.requests}:{duration_seconds(limit.per):g}:{limit.by}"


def parse_rate(value: str) -> RateLimit | None:
    """The rate limit that `rate_value` wrote; None where it wrote no such thing."""
    parts = value.split(":")
    periods = {"1": "1s", "10": "10s", "60": "1m", "3600": "1h"}
    if len(parts) != 3 or not parts[0].isdigit() or parts[1] not in periods or parts[2] not in _CLIENTS:
        return None
    return RateLimit.model_validate({"requests": int(parts[0]), "per": periods[parts[1]], "by": parts[2]})


_CLIENTS = ("address", "key")


def render_rate_rules() -> str:
    """The rules that answer 429 once `txn.rate` (from `rate_value`) is used up. Refused requests do not count."""
    tracks = "\n".join(
        f"    http-request track-sc0 var(txn.rate_client) table rate-{seconds} if {{ var(txn.rate_seconds) -m str {seconds} }}"
        for seconds in _PERIODS
    )
    by_key = "{ var(txn.rate),field(3,:) -m str key }"
    too_many = '{"error": "Too many requests from this client.", "code": "rate_limited"}'
    return f"""\
    http-request set-var(txn.rate_limit) var(txn.rate),field(1,:)
    http-request set-var(txn.rate_seconds) var(txn.rate),field(2,:)
    http-request set-var(txn.client) src
    http-request set-var(txn.client) req.fhdr(Authorization) if {by_key} {{ req.fhdr(Authorization) -m found }}
    http-request set-var(txn.client) req.fhdr(X-API-Key) if {by_key} {{ req.fhdr(X-API-Key) -m found }}
    http-request set-var(txn.rate_client) var(txn.slug),concat(/,txn.client),sha1
{tracks}
    http-request set-var(txn.rate_excess) sc0_gpc0_rate,sub(txn.rate_limit) if {{ var(txn.rate) -m found }}
    acl is_limited var(txn.rate) -m found
    # Over HTTP/2 an answer before the request's end reaches some clients as a reset.
    http-request wait-for-body time 1s if is_limited {{ var(txn.rate_excess) -m int ge 0 }}
    http-request return status 429 content-type application/json string '{too_many}' hdr Retry-After %[var(txn.rate_seconds)] if is_limited {{ var(txn.rate_excess) -m int ge 0 }}
    http-request sc-inc-gpc0(0) if is_limited
"""


def render_frontend_beginning(options: BalancerOptions) -> str:
    """The public frontend up to where routes are chosen: request ids, the log's form, the first path segment."""
    tls = ""
    if options.tls_minimum:
        tls = f" ssl crt {CERTIFICATE_PATH} alpn h2,http/1.1 ssl-min-ver {options.tls_minimum}"
    log = ",".join(
        (
            '"request_id":"%[var(txn.request_id),json(utf8s)]"',
            '"model":"%[var(txn.slug),bytes(0,100),json(utf8s)]"',
            '"client":"%ci","method":"%HM","protocol":"%HV","status":%ST,"server":"%s","milliseconds":%Ta',
            '"in_bytes":%U,"out_bytes":%B,"end":"%tsc"',
        )
    )
    return f"""\
frontend public
    bind :{PORT}{tls}
    unique-id-format %{{+X}}o%ci%cp%Ts%rt%pid
    # An id that could break a log, here or at the model, is replaced.
    http-request del-header X-Request-ID unless {{ req.fhdr(X-Request-ID) -m reg ^[A-Za-z0-9._:/@+=-]{{1,128}}$ }} {{ req.fhdr_cnt(X-Request-ID) eq 1 }}
    http-request set-header X-Request-ID %[unique-id] unless {{ req.hdr(X-Request-ID) -m found }}
    http-request set-var(txn.request_id) req.fhdr(X-Request-ID)
    http-after-response set-header X-Request-ID %[var(txn.request_id)]
    http-request set-var(txn.slug) path,field(2,/)
    log-format '{{{log}}}'
"""


def render_prefix_rules(slug_expression: str = "%[var(txn.slug)]", *, is_secure: bool = False) -> str:
    """The rules that take a model's prefix off the path, and tell the model what was taken off."""
    return f"""\
    http-request set-header X-Forwarded-Prefix /{slug_expression}
    http-request set-header X-Forwarded-For %[src]
    http-request set-header X-Forwarded-Proto {"https" if is_secure else "http"}
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


def render_standalone_config(
    routes: Sequence[StandaloneRoute], options: BalancerOptions | None = None
) -> str:
    """HAProxy's configuration that finds each service's replicas through the engine's DNS.

    Args:
        routes: The services, in the order in which they are to stand.
        options: What the settings say.
    """
    options = options or BalancerOptions()
    frontend = [render_frontend_beginning(options) + f"    {HEALTH_RULE}"]
    backends: list[str] = []
    limited = [(route.slug, route.rate_limit) for route in routes if route.rate_limit is not None]
    frontend += [
        f"    http-request set-var(txn.rate) str({rate_value(limit)}) if {{ var(txn.slug) -m str {slug} }}"
        for slug, limit in limited
    ]
    if limited:
        frontend.append(render_rate_rules().rstrip("\n"))
    for route in routes:
        frontend.append(f"    use_backend {route.slug} if {{ var(txn.slug) -m str {route.slug} }}")
        backends.append(_standalone_backend(route, options))
    frontend.append("    default_backend unknown-model")
    unknown = f"backend unknown-model\n    {UNKNOWN_MODEL}\n"
    return "\n".join([render_preamble(options), "\n".join(frontend) + "\n", *backends, unknown])


def _standalone_backend(route: StandaloneRoute, options: BalancerOptions) -> str:
    body_limit = ""
    if route.max_body_bytes is not None:
        body_limit = f"    {TOO_LARGE} if {{ req.hdr_val(content-length) gt {route.max_body_bytes} }}\n"
    timeout = round((route.timeout_seconds + TIMEOUT_MARGIN_SECONDS) * 1000)
    return f"""\
backend {route.slug}
    balance leastconn
    timeout server {timeout}ms
{body_limit}{render_prefix_rules(route.slug, is_secure=options.tls_minimum is not None)}    option httpchk
    http-check send meth GET uri {route.ready_path} ver HTTP/1.1 hdr Host {route.slug}
    http-check expect status 200-299
    server-template replica 1-{max(1, route.replicas)} {route.slug}:{route.port} init-addr none
"""
