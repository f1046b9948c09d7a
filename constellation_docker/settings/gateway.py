"""Settings of the gateway: where it listens, who may do what, how much of it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from constellation_docker.settings.secret import SecretReference
from constellation_docker.settings.section import MEBIBYTE, Section

Algorithm = Literal["HS256", "RS256", "ES256", "EdDSA"]


class TokenSettings(Section):
    """JSON Web Tokens, as Supabase Auth and other issuers sign them. Give `secret` or `jwks_url`; by default none are taken."""

    algorithm: Algorithm | None = Field(
        None,
        description="The one signature algorithm that is taken (default: HS256 with `secret`, ES256 with `jwks_url`). What a token's own header says never changes it.",
    )
    secret: SecretReference | None = Field(
        None, description="Reference to the shared secret of HS256 (at least 32 bytes)."
    )
    jwks_url: str | None = Field(
        None,
        description="Where the issuer publishes its keys, such as https://PROJECT.supabase.co/auth/v1/.well-known/jwks.json.",
    )
    issuer: str | None = Field(
        None,
        description="What `iss` must be, such as https://PROJECT.supabase.co/auth/v1. Required where tokens are taken.",
    )
    audience: str = Field("authenticated", description="What `aud` must hold.")
    role_claim: str = Field(
        "app_metadata.constellation_role",
        description="Path of the claim that says viewer, operator or admin. Never one that users may write themselves.",
    )
    environments_claim: str = Field(
        "app_metadata.constellation_environments",
        description="Path of the claim that lists the environments in which the holder may change something.",
    )
    name_claim: str = Field(
        "email", description="Path of the claim that names the holder in audit lines and runs; else `sub`."
    )
    leeway_seconds: float = Field(10, ge=0, le=300, description="How far clocks may differ.")
    jwks_timeout_seconds: float = Field(3, gt=0, description="Longest for fetching the issuer's keys.")
    jwks_lifetime_seconds: float = Field(
        600, gt=0, description="How long fetched keys are used before they are fetched again."
    )
    jwks_refresh_seconds: float = Field(
        30, gt=0, description="Shortest between two fetches, however many unknown keys are named."
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.secret and self.jwks_url:
            raise ValueError("give a secret or a jwks_url, not both")
        if not self.is_configured:
            return self
        if not self.issuer or not self.audience:
            raise ValueError("tokens need an issuer and an audience to be checked against")
        if self.secret and self.algorithm not in {None, "HS256"}:
            raise ValueError(f"{self.algorithm} is checked with the keys of a jwks_url, not with a secret")
        if self.jwks_url and self.algorithm == "HS256":
            raise ValueError("HS256 is checked with a secret, not with the keys of a jwks_url")
        if self.jwks_url and not self.jwks_url.startswith(("https://", "http://")):
            raise ValueError("the jwks_url must be an http(s) address")
        return self

    @property
    def is_configured(self) -> bool:
        """Whether tokens are taken at all."""
        return bool(self.secret or self.jwks_url)

    @property
    def pinned_algorithm(self) -> Algorithm:
        """The one algorithm that is taken."""
        return self.algorithm or ("HS256" if self.secret else "ES256")


class RateLimitSettings(Section):
    """How often one caller may call. Written as `limits` reads it: `600/minute`, `10/second`."""

    storage_url: str = Field(
        "memory://",
        description="Where calls are counted: `memory://` (each process for itself) or `redis://host:6379/0`, `rediss://…` (all gateways together).",
    )
    storage_password: SecretReference | None = Field(
        None, description="Reference to Redis's password, kept out of the URL."
    )
    per_caller: str = Field("600/minute", description="Calls of one key or token holder.")
    failed_logins: str = Field(
        "20/minute", description="Failed authentications from one address, against guessing."
    )


class GatewaySettings(Section):
    """The gateway: the REST contract, and the one door to Dagster's UI."""

    bind: str = Field("127.0.0.1", description="Address on which the gateway listens.")
    port: int = Field(8700, ge=0, le=65535, description="Port of the gateway.")
    public_url: str | None = Field(
        None,
        description="URL under which people reach the gateway (default: what the call's Host header says).",
    )
    webserver_url: str = Field(
        "http://127.0.0.1:3000/ui",
        description="Dagster's webserver, which only the gateway should reach, with the path that it was started with (`--path-prefix /ui`).",
    )
    webserver_timeout_seconds: float = Field(
        10, gt=0, description="Longest for one answer of Dagster's webserver."
    )
    launch_deadline_seconds: float = Field(
        25, gt=0, description="Longest that one call waits until its run is launched, in all."
    )
    delete_wait_seconds: float = Field(
        20,
        ge=0,
        description="How long a DELETE waits for its run to end; where it takes longer the answer is 202, deleting.",
    )
    idempotency_hours: float = Field(
        24, gt=0, description="How long the answer for an Idempotency-Key is remembered."
    )
    event_poll_seconds: float = Field(
        1,
        gt=0,
        description="How often changes of status are looked for while somebody listens to the events.",
    )
    max_streams: int = Field(
        64, gt=0, description="Most log and event streams at once; further ones are answered 429."
    )
    max_websockets: int = Field(
        256,
        gt=0,
        description="Most websockets of Dagster's UI at once (one for each of its open tabs); further ones are answered 503.",
    )
    max_websockets_per_caller: int = Field(
        32, gt=0, description="Most of them of one key or token holder; further ones are answered 429."
    )
    protected_environments: tuple[str, ...] = Field(
        ("production",),
        description="Environments that operators change only with a grant of their own on the key or token.",
    )
    allow_local: bool = Field(
        False,
        description="Whether everyone who reaches a gateway on loopback without any key or token configured is admin. For trying things out on a machine of one's own.",
    )
    tokens: TokenSettings = TokenSettings()
    rate_limits: RateLimitSettings = RateLimitSettings()
    session_secret: SecretReference | None = Field(
        None,
        description="Reference to the secret (at least 32 bytes) that signs browser sessions. Default: one of each process's own, so that a restart ends them.",
    )
    session_seconds: int = Field(8 * 3600, gt=0, description="How long a browser stays logged in.")
    audit_file: Path | None = Field(
        None,
        description="File to which audit lines are appended as well; those of keys that the command line makes and revokes, too. It may be rotated.",
    )
    max_body_bytes: int = Field(MEBIBYTE, gt=0, description="Largest body of a call.")
    allowed_hosts: tuple[str, ...] = Field(
        (),
        description="Host names under which the gateway may be called, such as `gateway.example.org` or `*.example.org`. Default: the host of `public_url`, and loopback's names.",
    )
    cors_origins: tuple[str, ...] = Field(
        (), description="Origins whose pages may call with a key or token, such as https://app.example.org."
    )
    trusted_proxies: tuple[str, ...] = Field(
        (), description="Addresses or networks of proxies whose X-Forwarded-For and -Proto are believed."
    )
    tls_certificate: Path | None = Field(
        None, description="Certificate chain (PEM). With `tls_key` the gateway serves HTTPS itself."
    )
    tls_key: Path | None = Field(None, description="Private key (PEM) of the certificate.")
    tls_reload_seconds: float = Field(
        5,
        gt=0,
        description="How often the two files are looked at; a changed pair is used without a restart.",
    )
    shutdown_grace_seconds: float = Field(
        30, ge=0, description="Longest that calls in progress may take when the gateway stops."
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key go together")
        if any(origin == "*" for origin in self.cors_origins):
            raise ValueError("cors_origins must name origins, not *")
        if any(host == "*" for host in self.allowed_hosts):
            raise ValueError("allowed_hosts must name hosts, not *")
        return self
