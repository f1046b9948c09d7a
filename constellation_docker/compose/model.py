"""The part of the Compose specification that we write, as types.

Fields stand in the order of compose-go's structs, and `canonical()` gives what `docker compose config --format json`
prints for the same service, so that `config_hash` computes Compose's own hash (docker/compose, `pkg/compose/hash.go`).
Strings are what they mean: `$` is doubled only where the file is written (`document()`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from constellation_docker.compose.durations import go_duration


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Variable(_Part):
    """A value that is known only to whoever runs the file: a secret, by reference.

    Attributes:
        name: The environment variable that `docker compose` reads.
        reference: Where our own rollouts take the value from (`env:NAME`, `file:/path`).
    """

    name: str
    reference: str

    @property
    def expression(self) -> str:
        """What stands in the file. Compose refuses to start while the variable is missing."""
        return f"${{{self.name}:?is a secret of this environment and must be set}}"


class Healthcheck(_Part):
    """How the engine finds out whether a container is healthy. Times are in seconds."""

    test: tuple[str, ...]
    interval: float = 10
    timeout: float = 5
    retries: int = 3
    start_period: float = 0

    def canonical(self) -> dict[str, Any]:
        """As Compose prints it."""
        written: dict[str, Any] = {
            "test": list(self.test),
            "timeout": go_duration(self.timeout),
            "interval": go_duration(self.interval),
            "retries": self.retries,
        }
        if self.start_period:
            written["start_period"] = go_duration(self.start_period)
        return written


class Limits(_Part):
    """What a replica may use: cores, bytes, processes."""

    cpus: float | None = None
    memory: int | None = None
    pids: int | None = None

    def canonical(self) -> dict[str, Any]:
        """As Compose prints it."""
        written: dict[str, Any] = {}
        if self.cpus:
            written["cpus"] = _number(self.cpus)
        if self.memory:
            written["memory"] = str(self.memory)
        if self.pids:
            written["pids"] = self.pids
        return written


class Reservations(_Part):
    """What is set aside for a replica: cores, bytes, GPUs."""

    cpus: float | None = None
    memory: int | None = None
    gpus: int = 0

    def canonical(self) -> dict[str, Any]:
        """As Compose prints it."""
        written = Limits(cpus=self.cpus, memory=self.memory).canonical()
        if self.gpus:
            written["devices"] = [{"capabilities": ["gpu"], "count": self.gpus}]
        return written


class PublishedPort(_Part):
    """A container's port on the engine's host."""

    target: int
    published: int
    host_ip: str

    def canonical(self) -> dict[str, Any]:
        """As Compose prints it. Port 0 leaves the choice to the engine."""
        written: dict[str, Any] = {"mode": "ingress", "host_ip": self.host_ip, "target": self.target}
        if self.published:
            written["published"] = str(self.published)
        return {**written, "protocol": "tcp"}


class MountedConfig(_Part):
    """A file from the Compose file's own `configs` in the container."""

    source: str
    target: str


class MountedSecret(_Part):
    """A file in the container with a value that only whoever runs the Compose file knows.

    Attributes:
        source: Its name in the Compose file.
        target: Where it is in the container.
        variable: The environment variable that holds the value.
        meaning: What it is, for people who read the file.
    """

    source: str
    target: str
    variable: str
    meaning: str


class Logging(_Part):
    """Log rotation."""

    driver: str = "json-file"
    options: dict[str, str] = Field(default_factory=lambda: {"max-size": "10m", "max-file": "3"})


class Service(_Part):
    """One service: what every one of its replicas is created from."""

    name: str
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ("ALL",)
    command: tuple[str, ...] | None = None
    configs: tuple[MountedConfig, ...] = ()
    replicas: int = Field(1, ge=0)
    limits: Limits = Limits()
    reservations: Reservations = Reservations()
    entrypoint: tuple[str, ...] | None = None
    environment: dict[str, str | Variable] = Field(default_factory=dict)
    healthcheck: Healthcheck | None = None
    image: str
    labels: dict[str, str] = Field(default_factory=dict)
    logging: Logging = Logging()
    networks: tuple[str, ...] = ("default",)
    ports: tuple[PublishedPort, ...] = ()
    read_only: bool = True
    restart: Literal["no", "always", "on-failure", "unless-stopped"] = "unless-stopped"
    secret_files: tuple[MountedSecret, ...] = ()
    security_opt: tuple[str, ...] = ("no-new-privileges:true",)
    stop_grace_period: float = 30
    tmpfs: tuple[str, ...] = ("/tmp",)  # noqa: S108  a mount point inside the container
    user: str = ""
    extension: dict[str, Any] = Field(default_factory=dict)

    @property
    def secrets(self) -> dict[str, Variable]:
        """The environment variables that are given by reference."""
        return {key: value for key, value in self.environment.items() if isinstance(value, Variable)}

    def canonical(self, secrets: Mapping[str, str]) -> dict[str, Any]:
        """The service as `docker compose config --format json` prints it (without `$` doubled).

        Args:
            secrets: The value of every variable that is given by reference, by its name in the container.
        """
        environment = {
            key: secrets[key] if isinstance(value, Variable) else value
            for key, value in self.environment.items()
        }
        return self._written(environment)

    def document(self) -> dict[str, Any]:
        """The service as it stands in the file: references as `${NAME}`, and `$` doubled everywhere else."""
        environment = {
            key: None if isinstance(value, Variable) else value for key, value in self.environment.items()
        }
        written: dict[str, Any] = doubled(self._written(environment))
        del written["deploy"]["placement"]
        if not written["deploy"]["resources"]:
            del written["deploy"]["resources"]
        for key, variable in self.secrets.items():
            written["environment"][key] = variable.expression
        if self.extension:
            written["x-constellation"] = doubled(self.extension)
        return written

    def _written(self, environment: Mapping[str, str | None]) -> dict[str, Any]:
        resources: dict[str, Any] = {}
        if limits := self.limits.canonical():
            resources["limits"] = limits
        if reservations := self.reservations.canonical():
            resources["reservations"] = reservations
        deploy = {"replicas": self.replicas, "resources": resources, "placement": {}}
        parts: tuple[tuple[str, Any], ...] = (
            ("cap_add", list(self.cap_add)),
            ("cap_drop", list(self.cap_drop)),
            ("command", _list(self.command)),
            (
                "configs",
                [{"source": config.source, "target": config.target} for config in self.configs],
            ),
            ("deploy", deploy),
            ("entrypoint", _list(self.entrypoint)),
            ("environment", dict(sorted(environment.items()))),
            ("healthcheck", self.healthcheck.canonical() if self.healthcheck else None),
            ("image", self.image),
            ("labels", dict(sorted(self.labels.items()))),
            (
                "logging",
                {"driver": self.logging.driver, "options": dict(sorted(self.logging.options.items()))},
            ),
            ("networks", dict.fromkeys(sorted(self.networks))),
            ("ports", [port.canonical() for port in self.ports]),
            ("read_only", self.read_only),
            ("restart", self.restart),
            (
                "secrets",
                [{"source": secret.source, "target": secret.target} for secret in self.secret_files],
            ),
            ("security_opt", list(self.security_opt)),
            ("stop_grace_period", go_duration(self.stop_grace_period)),
            ("tmpfs", list(self.tmpfs)),
            ("user", self.user),
        )
        # Go's omitempty: what is empty is not printed.
        return {key: value for key, value in parts if value not in (None, False, "", [], {})}


def doubled(value: Any) -> Any:
    """A copy in which every `$` stands twice, so that Compose reads it as itself."""
    if isinstance(value, str):
        return value.replace("$", "$$") if "$" in value else value
    if isinstance(value, dict):
        return {key: doubled(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [doubled(inner) for inner in value]
    return value


def _list(words: tuple[str, ...] | None) -> list[str] | None:
    return None if words is None else list(words)


def _number(value: float) -> float | int:
    return int(value) if float(value).is_integer() else value
