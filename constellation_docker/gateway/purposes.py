"""What each kind of launch is: its job, its tags, and by what the same launch is known again."""

from __future__ import annotations

from constellation_docker import run_tags as tags
from constellation_docker.cards.rows import DeploymentRow, InvalidRow, ModelRow
from constellation_docker.gateway.dagster_client import Run
from constellation_docker.gateway.launches import Launch


def packaging_launch(row: ModelRow, *, requested_by: str, is_first: bool = False) -> Launch:
    """The run that packages a row as it is now. A click's run carries no revision until its first step."""
    return Launch(
        job="package_model",
        partition=row.key,
        definition=("model_versions", row.key),
        tags={
            tags.MODEL_ID: row.model_id,
            tags.MODEL: row.card.model_name,
            tags.VERSION: row.card.model_version,
            tags.CARD_REVISION: str(row.revision),
            tags.REQUESTED_BY: requested_by,
        },
        search={tags.PARTITION: row.key},
        is_same=lambda run: _is_of_revision(run, tags.CARD_REVISION, row.revision),
        is_first=is_first,
    )


def deployment_launch(wish: DeploymentRow, *, requested_by: str, is_first: bool = False) -> Launch:
    """The run that carries out a wish as it stands."""
    return Launch(
        job="deploy_model",
        partition=wish.key,
        definition=("models", wish.model_name),
        tags={
            tags.ENVIRONMENT: wish.environment,
            tags.MODEL: wish.model_name,
            tags.MODEL_ID: wish.model_id,
            tags.VERSION: wish.row.card.model_version,
            tags.SERVICE_REVISION: str(wish.revision),
            tags.REQUESTED_BY: requested_by,
        },
        search={tags.PARTITION: wish.key},
        is_same=lambda run: _is_of_revision(run, tags.SERVICE_REVISION, wish.revision),
        is_first=is_first,
    )


def deletion_launch(row: ModelRow | InvalidRow, *, requested_by: str) -> Launch:
    """The run that deletes one model version."""
    card = row if isinstance(row, InvalidRow) else row.card
    return Launch(
        job="delete_model",
        run_config={"ops": {"delete_model_op": {"config": {"model_id": row.model_id}}}},
        tags={
            tags.MODEL_ID: row.model_id,
            tags.MODEL: card.model_name,
            tags.VERSION: card.model_version,
            tags.REQUESTED_BY: requested_by,
        },
        search={tags.MODEL_ID: row.model_id, tags.ACTION: "delete"},
        is_same=lambda run: not run.has_ended or run.status == "SUCCESS",
    )


def pull_launch(repository: str, tag: str, *, requested_by: str) -> Launch:
    """The run that pulls an image. Once it has ended the same pull is another: tags move."""
    return Launch(
        job="pull_image",
        run_config={"ops": {"pull_image_op": {"config": {"repository": repository, "tag": tag}}}},
        tags={tags.IMAGE: f"{repository}:{tag}", tags.REQUESTED_BY: requested_by},
        search={tags.IMAGE: f"{repository}:{tag}", tags.ACTION: "pull"},
        is_same=lambda _: True,
    )


def push_launch(image_name: str, tag: str, repository: str, *, requested_by: str) -> Launch:
    """The run that pushes an image."""
    what = f"{image_name}:{tag} to {repository}"
    config = {"image_name": image_name, "tag": tag, "repository": repository}
    return Launch(
        job="push_image",
        run_config={"ops": {"push_image_op": {"config": config}}},
        tags={tags.IMAGE: what, tags.REQUESTED_BY: requested_by},
        search={tags.IMAGE: what, tags.ACTION: "push"},
        is_same=lambda _: True,
    )


def _is_of_revision(run: Run, tag: str, revision: int) -> bool:
    return run.tags.get(tag) == str(revision) or (not run.has_ended and tag not in run.tags)
