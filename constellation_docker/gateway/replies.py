"""What the gateway answers. The documented names are fixed; further ones may be added, none renamed."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from constellation_docker.gateway.links import Link
from constellation_docker.gateway.statuses import Status

MODEL_ID = "7f9c2ba4-e88f-4c5d-9c2d-2f0d6f4b1a11"
RUN_ID = "3e1b7c52-6d7e-4b2c-8a55-0f4b1c1d9a77"
MOMENT = "2026-01-31T12:00:00Z"
RUN = {"run_id": RUN_ID, "url": f"/ui/runs/{RUN_ID}"}


class Reply(BaseModel):
    """What the gateway answers."""

    model_config = ConfigDict(protected_namespaces=())


def shown_as(example: dict[str, Any]) -> ConfigDict:
    """A reply's configuration with an example for the OpenAPI document."""
    return ConfigDict(json_schema_extra={"examples": [example]})


class Accepted(Reply):
    """Packaging was asked for."""

    model_config = shown_as(
        {
            "model_id": MODEL_ID,
            "message": "Model packaging initiated.",
            "status": "in_progress",
            "run": RUN,
        }
    )

    model_id: str
    message: Literal["Model packaging initiated."] = "Model packaging initiated."
    status: Literal["in_progress"] = "in_progress"
    run: Link | None = Field(None, description="The run that packages it; null where it is packaged already.")


class DeploymentAccepted(Reply):
    """Deployment was asked for."""

    model_config = shown_as(
        {
            "model_id": MODEL_ID,
            "message": "Deployment initiated.",
            "deployment_status": "in_progress",
            "environment": "dev",
            "revision": 3,
            "run": RUN,
        }
    )

    model_id: str
    message: Literal["Deployment initiated."] = "Deployment initiated."
    deployment_status: Literal["in_progress"] = "in_progress"
    environment: str
    revision: int = Field(
        description="The deployment's revision that wants this; it grows with every change."
    )
    run: Link | None = Field(
        None,
        description="The run that deploys it; null where nothing is left to do, or where the version is not packaged yet: then it is deployed as soon as it is.",
    )


class RollbackAccepted(Reply):
    """Going back was asked for."""

    model_config = shown_as(
        {
            "model_id": MODEL_ID,
            "message": "Rollback initiated.",
            "deployment_status": "in_progress",
            "environment": "dev",
            "revision": 4,
            "to_model_id": RUN_ID,
            "to_version": "0.9.0",
            "run": RUN,
        }
    )

    model_id: str
    message: Literal["Rollback initiated."] = "Rollback initiated."
    deployment_status: Literal["in_progress"] = "in_progress"
    environment: str
    revision: int = Field(description="The deployment's revision that wants the former release again.")
    to_model_id: str = Field(description="The version that is wanted now.")
    to_version: str
    run: Link | None = None


class CancellationAccepted(Reply):
    """Runs were asked to end."""

    model_config = shown_as(
        {
            "model_id": MODEL_ID,
            "message": "Cancellation initiated.",
            "runs": [RUN],
        }
    )

    model_id: str
    message: Literal["Cancellation initiated."] = "Cancellation initiated."
    runs: list[Link]


class Deleted(Reply):
    """The model version is gone: containers, routes, images that nobody else uses."""

    model_config = shown_as({"message": "Model deployment deleted successfully."})

    message: Literal["Model deployment deleted successfully."] = "Model deployment deleted successfully."


class Deleting(Reply):
    """It takes longer than a call may wait; GET …/status/ tells the end."""

    model_config = shown_as(
        {
            "model_id": MODEL_ID,
            "message": "Model deletion initiated.",
            "status": "deleting",
            "run": RUN,
        }
    )

    model_id: str
    message: Literal["Model deletion initiated."] = "Model deletion initiated."
    status: Literal["deleting"] = "deleting"
    run: Link | None = None


class EnvironmentStatus(Reply):
    """A model version in one environment."""

    environment: str
    status: Status
    model_version: str
    revision: int | None
    replicas: int | None = Field(description="How many are wanted.")
    endpoint_url: str | None = Field(description="Where it answers, while it is deployed there.")
    last_error: str | None = Field(description="Why it is not where it is wanted, in one sentence.")
    deployed_at: datetime | None
    last_updated: datetime
    run: Link | None


class ModelStatus(Reply):
    """Where a model version is."""

    model_config = shown_as(
        {
            "model_id": MODEL_ID,
            "model_name": "acme/sentiment",
            "model_version": "1.0.0",
            "status": "deployed",
            "last_updated": MOMENT,
            "last_error": None,
            "deployed_at": MOMENT,
            "run": RUN,
            "environments": [
                {
                    "environment": "dev",
                    "status": "deployed",
                    "model_version": "1.0.0",
                    "revision": 3,
                    "replicas": 2,
                    "endpoint_url": "http://127.0.0.1:8080/acme-sentiment/",
                    "last_error": None,
                    "deployed_at": MOMENT,
                    "last_updated": MOMENT,
                    "run": None,
                }
            ],
        }
    )

    model_id: str
    status: Status
    last_updated: datetime
    model_name: str
    model_version: str
    last_error: str | None = Field(description="What went wrong last, in one sentence.")
    deployed_at: datetime | None
    run: Link | None = Field(description="The run that brought it there, or is doing so.")
    environments: list[EnvironmentStatus]


class ListedModel(Reply):
    """One model version of the list."""

    model_id: str
    model_name: str
    model_version: str
    status: Status
    deployed_at: datetime | None = Field(description="When a rollout of it ended well last.")
    last_updated: datetime
    environments: list[str] = Field(description="Where it is deployed.")


class ModelList(Reply):
    """A page of model versions, by name and version."""

    model_config = shown_as(
        {
            "models": [
                {
                    "model_id": MODEL_ID,
                    "model_name": "acme/sentiment",
                    "model_version": "1.0.0",
                    "status": "deployed",
                    "deployed_at": MOMENT,
                    "last_updated": MOMENT,
                    "environments": ["dev"],
                }
            ],
            "next_cursor": None,
        }
    )

    models: list[ListedModel]
    next_cursor: str | None = Field(
        description="Send it as `cursor` for the next page; null at the end. With `status` a page may hold fewer than `limit` models, or none, and still have a next one."
    )


class KnownEnvironment(Reply):
    """An environment."""

    environment: str
    url: str = Field(description="Its balancer; services answer below it.")
    is_protected: bool = Field(description="Whether changing it needs a grant of its own.")
    may_deploy: bool = Field(description="Whether the caller may deploy there.")
    models: int = Field(description="How many models are wanted running there.")


class EnvironmentList(Reply):
    """The environments, by name."""

    model_config = shown_as(
        {
            "environments": [
                {
                    "environment": "dev",
                    "url": "http://127.0.0.1:8080/",
                    "is_protected": False,
                    "may_deploy": True,
                    "models": 3,
                }
            ]
        }
    )

    environments: list[KnownEnvironment]


class HistoricRelease(Reply):
    """A revision of a deployment that wanted the model version."""

    environment: str
    revision: int
    image: str | None
    replicas: int | None = Field(description="Null: as many as the card says.")
    state: Literal["running", "stopped", "deleted"]
    requested_by: str | None
    at: datetime
    stable_at: datetime | None = Field(description="When its rollout ended well; null: it did not.")


class HistoricRun(Reply):
    """A run that worked on the model version."""

    action: str | None
    environment: str | None
    status: Literal["pending", "in_progress", "completed", "failed", "cancelled"]
    requested_by: str | None
    created_at: datetime | None
    ended_at: datetime | None
    error: str | None
    run: Link


class ModelHistory(Reply):
    """What was wanted of a model version, and what was done for it; newest first."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"model_id": MODEL_ID, "releases": [], "runs": [], "next_cursor": None}]
        }
    )

    model_id: str
    releases: list[HistoricRelease] = Field(
        description="On the first page only: the newest 100 of each environment."
    )
    runs: list[HistoricRun]
    next_cursor: str | None = Field(description="Send it as `cursor` for older runs; null at the end.")


class PathSchema(Reply):
    """One path of a model."""

    inputs: dict[str, Any]
    outputs: dict[str, Any]


class ModelSchema(Reply):
    """What goes into a model and what comes out, as JSON Schema (2020-12)."""

    model_config = shown_as(
        {
            "model_id": MODEL_ID,
            "task": "text-classification",
            "source": "task",
            "inputs": {"type": "object", "required": ["inputs"]},
            "outputs": {"type": "array"},
            "media_types": [],
            "paths": {},
        }
    )

    model_id: str
    task: str | None
    source: Literal["task", "endpoint", "unknown"] = Field(
        description="Whose word it is: the task's, the deployed model's own, or nobody's (the inference code is the repository's own)."
    )
    inputs: dict[str, Any] = Field(description="JSON Schema of a request's body.")
    outputs: dict[str, Any] = Field(description="JSON Schema of the answer.")
    media_types: list[str] = Field(description="Content types that are taken as raw bytes instead.")
    paths: dict[str, PathSchema] = Field(
        description="Further paths that the model answers at, such as /v1/chat/completions."
    )


class Problem(Reply):
    """What went wrong."""

    code: str
    message: str
    details: dict[str, Any]
    request_id: str


class ProblemReply(Reply):
    """Every error has this form."""

    model_config = shown_as(
        {
            "error": {
                "code": "card_not_found",
                "message": "There is no such model version. GET /docker/models/ lists what there is.",
                "details": {},
                "request_id": "5f0c6a3f9b5d4a0e8f6f0f1f6a8f7f1c",
            }
        }
    )

    error: Problem
