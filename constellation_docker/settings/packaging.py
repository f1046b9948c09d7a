"""Settings of packaging: sources, the package index, base images, builds, verification, the registry."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field

from constellation_docker.settings.secret import SecretReference
from constellation_docker.settings.section import GIBIBYTE, Section


def _existing_path(*variables: str) -> Path | None:
    for variable in variables:
        value = os.environ.get(variable, "")
        if value and Path(value).exists():
            return Path(value)
    return None


class SourceSettings(Section):
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


class IndexSettings(Section):
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


class BaseImageSettings(Section):
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


class BuildSettings(Section):
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


class VerificationSettings(Section):
    """How a built image is tried before anyone may use it."""

    ready_deadline_seconds: float = Field(120, description="Longest from start to ready, in seconds.")
    request_timeout_seconds: float = Field(60, description="Longest for one example request, in seconds.")
    stop_grace_seconds: float = Field(30, description="Longest from SIGTERM to exit, in seconds.")
    max_examples: int = Field(5, description="Most example inputs of the card that are sent.")


class RegistrySettings(Section):
    """Where built images are pushed. Without a repository they stay on the engine, pinned by id."""

    repository: str | None = Field(
        None, description="Host and prefix, such as `registry.example:5000/models`."
    )
    username: SecretReference | None = Field(None, description="Reference to the user name.")
    password: SecretReference | None = Field(None, description="Reference to the password or token.")
    attempts: int = Field(4, description="Most tries of a push or pull that fails for passing reasons.")
