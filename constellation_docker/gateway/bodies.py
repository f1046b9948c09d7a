"""What callers send. The documented names are fixed; further ones may be added, none renamed."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field

from constellation_docker.cards import Resources

ModelId = Annotated[UUID, Path(description="The model version's id, as its registration answered it.")]

_TAG = r"^([A-Za-z0-9_][A-Za-z0-9._-]{0,127}|sha256:[0-9a-f]{64})$"
# The distribution specification's grammar of repository names, with an optional registry before it.
ImageRepository = Annotated[
    str,
    Field(
        max_length=255,
        pattern=r"^(?:[A-Za-z0-9.-]+(?::[0-9]{1,5})?/)?[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
        r"(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$",
    ),
]


class Body(BaseModel):
    """What a caller sends: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), str_max_length=100_000)


class CardBody(BaseModel):
    """The model card. Any further field of a card may be given; see docs/model-cards.md."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())

    description: str = Field("", description="What the model does, in Markdown.")
    data_used: str = Field("", description="What it was trained on, in Markdown.")
    dependencies: list[str] = Field([], description="Python requirements, beside those in the repository.")


class Registration(Body):
    """A model version that is to be packaged."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model_name": "acme/sentiment",
                    "model_version": "1.0.0",
                    "repo_url": "https://git.example/acme/sentiment",
                    "branch": "main",
                    "model_card": {
                        "description": "Says how a sentence feels.",
                        "data_used": "Reviews.",
                        "dependencies": ["rapidfuzz>=3.9"],
                        "pipeline_tag": "text-classification",
                    },
                }
            ]
        }
    )

    model_name: str = Field(
        description="Name, such as acme/sentiment: letters, digits, `-`, `_`, `.`, at most one `/`.",
        json_schema_extra={"maxLength": 200},
    )
    model_version: str = Field(
        description="Version, such as 1.0.0. Once published it never changes.",
        json_schema_extra={"pattern": "^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$"},
    )
    repo_url: str = Field(description="Git address, Hugging Face id (hf://owner/name) or file:///directory.")
    branch: str | None = Field(None, description="Branch, tag or commit. Default: the repository's own.")
    model_card: CardBody = Field(default_factory=CardBody, description="The model card.")


class Deployment(Body):
    """What is wanted of a model version in an environment."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"environment": "dev"},
                {"environment": "production", "replicas": 3, "resources": {"memory": "2g", "cpus": 2}},
            ]
        }
    )

    environment: str = Field(description="The environment, one of GET /docker/environments/.", max_length=40)
    replicas: int | None = Field(
        None, ge=1, le=1000, description="How many; not given: as now, or as the card says."
    )
    resources: Resources | None = Field(
        None, description="What each replica may use; not given: as now, or as the card says."
    )


class Rollback(Body):
    """Where to go back, and to what."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"environment": "production"}, {"environment": "dev", "to": 3}]}
    )

    environment: str = Field(description="The environment.", max_length=40)
    to: Literal["previous"] | Annotated[int, Field(ge=1, le=2**31 - 1)] = Field(
        "previous",
        description="`previous`: the last stable release of another version or image; or a revision of the history.",
    )


class Cancellation(Body):
    """What to cancel."""

    model_config = ConfigDict(json_schema_extra={"examples": [{}, {"environment": "dev"}]})

    environment: str | None = Field(
        None,
        max_length=40,
        description="Only the deployment to this environment; not given: the packaging and every deployment of the version that is under way.",
    )


class Pull(Body):
    """An image that the building engine is to pull."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"repository": "registry.example/models/sentiment", "tag": "1.0.0"}]}
    )

    repository: ImageRepository = Field(description="Repository, with its registry.")
    tag: str = Field("latest", pattern=_TAG, description="Tag, or digest as `sha256:…`.")


class Push(Body):
    """An image of the building engine, and where it goes."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "image_name": "constellation/acme-sentiment",
                    "tag": "1.0.0",
                    "repository": "registry.example/models/sentiment",
                }
            ]
        }
    )

    image_name: ImageRepository = Field(
        description="The image's name on the building engine, without its tag."
    )
    tag: str = Field(
        "latest", pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$", description="The tag that it has, and gets."
    )
    repository: ImageRepository = Field(description="Repository to push to, with its registry.")
