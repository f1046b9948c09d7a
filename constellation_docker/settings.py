"""Every setting, with its default and its unit. `docs/configuration.md` is generated from this file.

Values come, strongest first, from the environment (`CONSTELLATION_SOURCE__ALLOWED_HOSTS='["git.example"]'`),
then from the TOML file that `CONSTELLATION_CONFIG` names, then from the defaults below. Secrets are never
values here: they are references (`env:NAME` or `file:/path`) that are resolved at the last moment.
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from constellation_docker.errors import InvalidInput

MEBIBYTE = 1024 * 1024
GIBIBYTE = 1024 * MEBIBYTE


def _checked_reference(value: str) -> str:
    kind, _, name = value.partition(":")
    if kind not in {"env", "file"} or not name:
        raise ValueError("a secret is given by reference, as env:NAME or file:/path, never as its value")
    return value


SecretReference = Annotated[str, AfterValidator(_checked_reference)]


def resolve_secret(reference: str) -> str:
    """The secret that a reference stands for.

    Args:
        reference: `env:NAME` (an environment variable) or `file:/path` (a file; surrounding white space is cut).

    Raises:
        InvalidInput: The variable or the file is not there. The message names the reference, never a value.
    """
    kind, _, name = reference.partition(":")
    if kind == "env" and name in os.environ:
        return os.environ[name]
    if kind == "file":
        path = Path(name)
        if path.is_file():
            return path.read_text(encoding="utf-8").strip()
    raise InvalidInput(
        f"The secret {kind}:{name} cannot be read.",
        remedy="Set the environment variable or create the file that the reference names.",
        reference=reference,
    )


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _existing_path(*variables: str) -> Path | None:
    for variable in variables:
        value = os.environ.get(variable, "")
        if value and Path(value).exists():
            return Path(value)
    return None


class SourceSettings(_Section):
    """Where model repositories may come from, and how large they may be."""

    allowed_schemes: tuple[str, ...] = Field(
        ("https", "ssh", "hf"),
        description="Kinds of repository address that are accepted: https, http, ssh, git, file (a git repository or "
        "a plain directory on this machine) and hf (a Hugging Face Hub id).",
    )
    allowed_hosts: tuple[str, ...] = Field(
        (),
        description="Hosts that repositories may come from; `*.example.org` matches its sub-domains. Empty: any.",
    )
    allowed_directories: tuple[Path, ...] = Field(
        (),
        description="Directories under which `file` repositories must lie. Empty: any, where `file` is allowed.",
    )
    max_file_bytes: int = Field(5 * GIBIBYTE, description="Largest single file of a repository, in bytes.")
    max_repository_bytes: int = Field(
        20 * GIBIBYTE, description="Largest repository (one commit's tree), in bytes."
    )
    max_files: int = Field(20_000, description="Most files in a repository.")
    timeout_seconds: float = Field(
        1800, description="Longest that fetching one repository may take, in seconds."
    )
    hub_token: SecretReference | None = Field(
        None, description="Reference to a Hugging Face token, for private repositories."
    )
    git_credentials: dict[str, SecretReference] = Field(
        default_factory=dict,
        description="Per host, a reference to `user:password` (or a token) for https repositories.",
    )
    ssh_key: SecretReference | None = Field(
        None, description="Reference (`file:` only) to a private key for ssh repositories."
    )
    ssh_known_hosts: Path | None = Field(
        None,
        description="Host keys of ssh repositories (default: the known_hosts of the user that runs this).",
    )


class IndexSettings(_Section):
    """Where Python packages come from, for locking and for building."""

    url: str | None = Field(None, description="Package index instead of uv's default.")
    extra_urls: tuple[str, ...] = Field((), description="Further indexes, asked before the main one.")
    credentials: dict[str, SecretReference] = Field(
        default_factory=dict,
        description="Per index host, a reference to `user:password`. Never written to a layer.",
    )
    wheelhouse: Path | None = Field(
        default_factory=lambda: _existing_path("PIP_FIND_LINKS"),
        description="A directory of wheels that may be used beside the index (default: PIP_FIND_LINKS, where it is a "
        "directory). A wheel in it with a local version, such as torch's `+cpu` builds, is preferred.",
    )
    ca_bundle: Path | None = Field(
        default_factory=lambda: _existing_path("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"),
        description="Certificate bundle that fetching and building trust (default: SSL_CERT_FILE, where set). It is "
        "mounted while building and never stays in an image.",
    )
    torch_backend: str = Field(
        "cpu", description="Which torch builds uv picks where no wheelhouse has one: cpu, cu128, auto…"
    )
    exclude_newer: str | None = Field(None, description="Ignore packages uploaded after this RFC 3339 date.")


class BaseImageSettings(_Section):
    """What images are built upon."""

    origin: Literal["auto", "registry", "debian"] = Field(
        "auto",
        description="`registry` pulls, `debian` assembles from Debian packages with mmdebstrap, `auto` pulls where a registry answers.",
    )
    python: str = Field("python:3.12-slim", description="Python base image, where base images are pulled.")
    haproxy: str = Field("haproxy:lts", description="Balancer image, where base images are pulled.")
    debian_suite: str = Field("bookworm", description="Debian suite, where base images are assembled.")
    debian_mirror: str | None = Field(
        None, description="Debian mirror (default: the machine's own apt sources)."
    )


class BuildSettings(_Section):
    """Building images."""

    engine_url: str | None = Field(
        None,
        description="Engine that builds and verifies: unix://…, tcp://… or ssh://…. "
        "Default: DOCKER_HOST, the CLI's context, the default socket.",
    )
    timeout_seconds: float = Field(3600, description="Longest that one build may take, in seconds.")
    network: str | None = Field(
        None, description="Network mode of build steps, for sites that need one (`host`)."
    )
    image_prefix: str = Field(
        "constellation", description="Repository prefix of images that stay on the engine."
    )


class VerificationSettings(_Section):
    """How a built image is tried before anyone may use it."""

    ready_deadline_seconds: float = Field(120, description="Longest from start to ready, in seconds.")
    request_timeout_seconds: float = Field(60, description="Longest for one example request, in seconds.")
    stop_grace_seconds: float = Field(30, description="Longest from SIGTERM to exit, in seconds.")
    max_examples: int = Field(5, description="Most example inputs of the card that are sent.")


class RegistrySettings(_Section):
    """Where built images are pushed. Without a repository they stay on the engine, pinned by id."""

    repository: str | None = Field(
        None, description="Host and prefix, such as `registry.example:5000/models`."
    )
    username: SecretReference | None = Field(None, description="Reference to the user name.")
    password: SecretReference | None = Field(None, description="Reference to the password or token.")
    attempts: int = Field(4, description="Most tries of a push or pull that fails for passing reasons.")


class EnvironmentSettings(_Section):
    """One environment: an engine, a Compose project, a balancer with one published port."""

    engine_url: str | None = Field(
        None,
        description="Engine address: unix://…, tcp://… or ssh://…. Default: DOCKER_HOST, the CLI's context, the default socket.",
    )
    project: str | None = Field(
        None, description="Compose project name (default: `constellation-<environment>`)."
    )
    bind: str = Field("127.0.0.1", description="Address on which the balancer's port is published.")
    port: int = Field(8080, ge=0, le=65535, description="Port of the balancer.")
    public_url: str | None = Field(
        None, description="URL under which people reach the balancer (default: http://bind:port)."
    )


class RolloutSettings(_Section):
    """Deadlines of a rollout; a card may set its own. Names follow Compose and Nomad."""

    healthy_deadline_seconds: float = Field(300, description="Longest for a new replica to become healthy.")
    progress_deadline_seconds: float = Field(600, description="Longest for a whole rollout.")
    min_healthy_time_seconds: float = Field(
        10, description="How long the new generation must stay healthy to be stable."
    )
    drain_timeout_seconds: float = Field(
        60, description="Longest wait for requests in flight on the old generation."
    )
    stop_grace_seconds: float = Field(30, description="SIGTERM to SIGKILL.")
    lease_seconds: float = Field(
        60, description="How long a rollout's lease lasts when its holder is not heard of."
    )
    retained_releases: int = Field(
        3, description="How many releases of a service keep their image for a quick return."
    )


class NotificationSettings(_Section):
    """Who hears of failed runs."""

    webhook_url: SecretReference | None = Field(
        None, description="Reference to a URL that gets a JSON POST for every failed run."
    )
    timeout_seconds: float = Field(10, description="Longest for one notification.")


class ReconcileSettings(_Section):
    """How often things are put right by themselves."""

    cron: str = Field("*/10 * * * *", description="When the reconciling schedule runs.")
    max_attempts: int = Field(
        3, description="Most automatic re-runs of a packaging that failed for passing reasons."
    )
    max_runs_per_tick: int = Field(30, description="Most runs that one sensor or schedule tick requests.")


class Settings(BaseSettings):
    """All settings of the product."""

    model_config = SettingsConfigDict(
        env_prefix="CONSTELLATION_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    home: Path = Field(
        Path(".constellation"), description="Directory for the SQLite store, fetched sources and locks."
    )
    database_url: str | None = Field(
        None,
        description="Card store: a SQLAlchemy URL. Default: SQLite in `home`. `postgresql://…` works for PostgreSQL and Supabase.",
    )
    database_password: SecretReference | None = Field(
        None, description="Reference to the password, kept out of the URL."
    )
    source: SourceSettings = SourceSettings()
    index: IndexSettings = Field(default_factory=IndexSettings)
    base_image: BaseImageSettings = BaseImageSettings()
    build: BuildSettings = BuildSettings()
    verification: VerificationSettings = VerificationSettings()
    registry: RegistrySettings = RegistrySettings()
    environments: dict[str, EnvironmentSettings] = Field(
        default_factory=lambda: {"dev": EnvironmentSettings()}, description="The environments, by name."
    )
    rollout: RolloutSettings = RolloutSettings()
    notifications: NotificationSettings = NotificationSettings()
    reconcile: ReconcileSettings = ReconcileSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        sources: list[Any] = [init_settings, env_settings]
        if config := os.environ.get("CONSTELLATION_CONFIG"):
            sources.append(TomlConfigSettingsSource(settings_cls, toml_file=config))
        return tuple(sources)

    @cached_property
    def store_url(self) -> str:
        """The card store's SQLAlchemy URL, without the password."""
        return self.database_url or f"sqlite:///{(self.home / 'cards.db').absolute()}"

    def environment(self, name: str) -> EnvironmentSettings:
        """The settings of one environment.

        Raises:
            InvalidInput: There is no environment of that name.
        """
        if name not in self.environments:
            known = ", ".join(sorted(self.environments)) or "none"
            raise InvalidInput(
                f"There is no environment named {name!r}.",
                remedy=f"Use one of: {known}; or add it to the `environments` setting.",
                environment=name,
            )
        return self.environments[name]


def load_settings() -> Settings:
    """Read the settings from the environment and the configuration file.

    Raises:
        InvalidInput: A setting is unknown or has a wrong type; the message names it.
    """
    config = os.environ.get("CONSTELLATION_CONFIG")
    if config and not Path(config).is_file():
        raise InvalidInput(
            f"CONSTELLATION_CONFIG names {config}, which is not a file.",
            remedy="Create it, or unset the variable.",
        )
    try:
        return Settings()
    except ValueError as error:
        from pydantic import ValidationError

        if not isinstance(error, ValidationError):
            raise InvalidInput(
                f"The settings cannot be read: {error}.", remedy="See docs/configuration.md."
            ) from error
        first = error.errors(include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(
            f"The setting {where} is wrong: {first['msg']}.",
            remedy="See docs/configuration.md.",
            setting=where,
        ) from error
