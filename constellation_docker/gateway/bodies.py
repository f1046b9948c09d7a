"""The bodies of calls and answers. The documented names are fixed; further ones may be added, none renamed."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field

from constellation_docker.gateway.links import Link

ModelId = Annotated[UUID, Path(description="The model version's id, as its registration answered it.")]

_MODEL_ID = "7f9c2ba4-e88f-4c5d-9c2d-2f0d6f4b1a11"
_RUN_ID = "3e1b7c52-6d7e-4b2c-8a55-0f4b1c1d9a77"


class Body(BaseModel):
    """What a caller sends: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), str_max_length=100_000)


class Reply(BaseModel):
    """What the gateway answers."""

    model_config = ConfigDict(protected_namespaces=())


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


class Accepted(Reply):
    """Packaging was asked for."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model_id": _MODEL_ID,
                    "message": "Model packaging initiated.",
                    "status": "in_progress",
                    "run": {"run_id": _RUN_ID, "url": f"/ui/runs/{_RUN_ID}"},
                }
            ]
        }
    )

    model_id: str
    message: Literal["Model packaging initiated."] = "Model packaging initiated."
    status: Literal["in_progress"] = "in_progress"
    run: Link | None = Field(None, description="The run that packages it; null where it is packaged already.")


class Problem(Reply):
    """What went wrong."""

    code: str
    message: str
    details: dict[str, Any]
    request_id: str


class ProblemReply(Reply):
    """Every error has this form."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "error": {
                        "code": "card_not_found",
                        "message": "There is no such model version. GET /docker/models/ lists what there is.",
                        "details": {},
                        "request_id": "5f0c6a3f9b5d4a0e8f6f0f1f6a8f7f1c",
                    }
                }
            ]
        }
    )

    error: Problem
