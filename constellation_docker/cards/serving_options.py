"""A card's `constellation:` block: how the model is packaged, served and rolled out."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, StrictBool, StrictFloat, StrictInt, StrictStr, model_validator

from constellation_docker.cards.quantities import ByteSize, Duration, byte_count
from constellation_docker.cards.strict_record import StrictRecord
from constellation_docker.settings import SecretReference

RuntimeName = Literal["auto", "onnx", "transformers", "custom", "dockerfile", "image"]

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET_LIKE = re.compile(
    r"(?:^|_)(?:TOKEN|PASSWORD|PASSWD|SECRET|SECRET_KEY|API_?KEY|ACCESS_KEY|PRIVATE_KEY|CREDENTIALS?)$", re.I
)


def _checked_path(path: str) -> str:
    if not re.fullmatch(r"/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*", path):
        raise ValueError("must be a URL path that begins with '/'")
    return path


def _checked_python(version: str) -> str:
    if not re.fullmatch(r"3\.\d{1,2}", version):
        raise ValueError("must be a Python version such as '3.11', in quotes")
    return version


def _checked_relative_path(path: str) -> str:
    if not path or path.startswith("/") or ".." in path.split("/") or re.search(r"[\x00-\x1f\x7f\\]", path):
        raise ValueError("must be a path inside the repository")
    return path


def _checked_image(reference: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,511}", reference):
        raise ValueError("must be an image reference such as registry.example/name:tag")
    return reference


def _checked_variable(name: str) -> str:
    if not _VARIABLE.fullmatch(name):
        raise ValueError(
            "an environment variable's name has letters, digits and '_', not beginning with a digit"
        )
    return name


def _checked_environment_value(value: str) -> str:
    if re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", value):
        raise ValueError("an environment variable's value holds no control characters")
    return value


UrlPath = Annotated[StrictStr, AfterValidator(_checked_path)]
VariableName = Annotated[StrictStr, AfterValidator(_checked_variable)]
VariableValue = Annotated[StrictStr, AfterValidator(_checked_environment_value)]
PositiveNumber = Annotated[StrictFloat | StrictInt, Field(gt=0)]
PositiveCount = Annotated[StrictInt, Field(ge=1)]


class Reservations(StrictRecord):
    """What is set aside for each replica."""

    memory: ByteSize | None = Field(None, description="Memory set aside, such as 512m.")
    cpus: PositiveNumber | None = Field(None, description="CPU cores set aside.")


class Resources(StrictRecord):
    """What each replica may use."""

    memory: ByteSize = Field("1g", description="Memory limit, with its unit: 512m, 2g.")
    cpus: PositiveNumber = Field(1.0, description="CPU limit in cores; may be a fraction.")
    pids: PositiveCount = Field(512, description="Most processes and threads.")
    gpus: Annotated[StrictInt, Field(ge=0)] = Field(0, description="GPUs for each replica.")
    reservations: Reservations = Field(Reservations(), description="What is set aside for each replica.")

    @model_validator(mode="after")
    def _reservations_fit(self) -> Self:
        reserved = self.reservations
        if reserved.memory and byte_count(reserved.memory) > byte_count(self.memory):
            raise ValueError("more memory is reserved than the limit allows")
        if reserved.cpus and reserved.cpus > self.cpus:
            raise ValueError("more CPU is reserved than the limit allows")
        return self


class DeployOptions(StrictRecord):
    """A rollout's order and deadlines. What is not given comes from the environment's settings."""

    order: Literal["start-first", "stop-first"] = Field(
        "start-first",
        description="`start-first` runs old and new side by side; `stop-first` suits memory or a GPU for only one.",
    )
    healthy_deadline: Duration | None = Field(
        None, description="Longest for a new replica to become healthy."
    )
    progress_deadline: Duration | None = Field(None, description="Longest for a whole rollout.")
    min_healthy_time: Duration | None = Field(
        None, description="How long the new generation must stay healthy to be stable."
    )
    drain_timeout: Duration | None = Field(None, description="Longest wait for requests in flight.")
    stop_grace_period: Duration | None = Field(None, description="From SIGTERM to SIGKILL.")


class RateLimit(StrictRecord):
    """How many requests each client may make. More are answered 429, by the balancer."""

    requests: Annotated[StrictInt, Field(ge=1, le=1_000_000)] = Field(
        description="Most requests of one client within the period."
    )
    per: Literal["1s", "10s", "1m", "1h"] = Field("1s", description="The period: 1s, 10s, 1m or 1h.")
    by: Literal["address", "key"] = Field(
        "address",
        description="What makes a client: its address, or its X-API-Key or Authorization header where it sends one.",
    )


class ServingOptions(StrictRecord):
    """How the model is packaged, served and rolled out."""

    runtime: RuntimeName = Field(
        "auto", description="What serves the model; `auto` decides by what the repository holds."
    )
    image: Annotated[StrictStr, AfterValidator(_checked_image)] | None = Field(
        None, description="A ready-made serving image; needed by, and only for, `runtime: image`."
    )
    dockerfile: Annotated[StrictStr, AfterValidator(_checked_relative_path)] = Field(
        "Dockerfile", description="The repository's own Dockerfile, for `runtime: dockerfile`."
    )
    port: Annotated[StrictInt, Field(ge=1, le=65535)] = Field(
        8080, description="Port on which the container listens."
    )
    health_path: UrlPath = Field("/health", description="Answers 200 while the server lives.")
    ready_path: UrlPath = Field(
        default_factory=lambda known: (
            known.get("health_path", "/health")
            if known.get("runtime") in {"dockerfile", "image"}
            else "/ready"
        ),
        description="Answers 200 once the model can answer (default: `/ready`; the health path of a Dockerfile or image).",
    )
    python: Annotated[StrictStr, AfterValidator(_checked_python)] | None = Field(
        None, description="Python version, in quotes: '3.11'. Default: the base image's."
    )
    resources: Resources = Field(Resources(), description="What each replica may use.")
    replicas: Annotated[StrictInt, Field(ge=1, le=1000)] = Field(
        1, description="Replicas, where a deployment does not say."
    )
    env: dict[VariableName, VariableValue] = Field(
        default_factory=dict, description="Environment variables of the container. Never secrets."
    )
    secrets: dict[VariableName, SecretReference] = Field(
        default_factory=dict, description="Environment variables by reference: `env:NAME` or `file:/path`."
    )
    export: Literal["auto", "never", "require"] = Field(
        "auto", description="Whether weights are exported to ONNX while packaging."
    )
    quantize: StrictBool = Field(False, description="Whether exported weights are quantised to 8 bits.")
    tolerance: Annotated[StrictFloat | StrictInt, Field(ge=0)] | None = Field(
        None, description="Largest difference between exported and original outputs that is accepted."
    )
    max_batch_size: PositiveCount | None = Field(None, description="Most requests answered in one batch.")
    max_batch_wait_ms: Annotated[StrictFloat | StrictInt, Field(ge=0)] | None = Field(
        None, description="Longest that a request waits for its batch, in milliseconds."
    )
    max_queue: PositiveCount | None = Field(
        None, description="Most requests that wait; more are answered 429."
    )
    request_timeout_seconds: PositiveNumber | None = Field(None, description="Longest for one request.")
    max_body_bytes: PositiveCount | None = Field(None, description="Largest request body, in bytes.")
    rate_limit: RateLimit | None = Field(
        None, description="How many requests each client may make; below. Default: any."
    )
    deploy: DeployOptions = Field(DeployOptions(), description="A rollout's order and deadlines.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.runtime == "image" and self.image is None:
            raise ValueError("runtime image needs the field image, the ready-made image's reference")
        if self.image is not None and self.runtime != "image":
            raise ValueError("the field image is only for runtime image")
        for name in self.env:
            if name in self.secrets:
                raise ValueError(f"{name} is given both in env and in secrets")
            if _SECRET_LIKE.search(name):
                raise ValueError(
                    f"env.{name} looks like a secret, and env is public; give it in secrets, by reference "
                    f"(secrets: {{{name}: 'env:{name}'}})"
                )
        return self

    @property
    def declares_endpoint(self) -> bool:
        """Whether the card itself says on which port and health path the container serves."""
        return {"port", "health_path"} <= self.model_fields_set

    def written(self) -> dict[str, Any]:
        """What the card's writer gave, as JSON: defaults that were not given are left out."""
        return self.model_dump(mode="json", exclude_unset=True)
