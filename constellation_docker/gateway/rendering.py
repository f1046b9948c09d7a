"""Statuses and runs as callers see them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from constellation_docker import run_tags as tags
from constellation_docker.cards import slug_of
from constellation_docker.cards.rows import InvalidRow, ModelRow
from constellation_docker.compose import endpoint_url
from constellation_docker.gateway.dagster_client import Run
from constellation_docker.gateway.links import run_link
from constellation_docker.gateway.replies import EnvironmentStatus, HistoricRun, ListedModel, ModelStatus
from constellation_docker.gateway.statuses import WAITING, ServiceStatus, Status, VersionStatus, error_of
from constellation_docker.settings import Settings

Progress = Literal["pending", "in_progress", "completed", "failed", "cancelled"]


def name_and_version(row: ModelRow | InvalidRow) -> tuple[str, str]:
    """A row's name and version, whether it can be used or not."""
    card = row if isinstance(row, InvalidRow) else row.card
    return card.model_name, card.model_version


def render_listed(row: ModelRow | InvalidRow, known: VersionStatus) -> ListedModel:
    """A version as the list shows it."""
    name, version = name_and_version(row)
    return ListedModel(
        model_id=row.model_id,
        model_name=name,
        model_version=version,
        status=known.status,
        deployed_at=known.deployed_at,
        last_updated=known.last_updated,
        environments=[service.environment for service in known.services if service.status is Status.DEPLOYED],
    )


def render_status(settings: Settings, row: ModelRow | InvalidRow, known: VersionStatus) -> ModelStatus:
    """A version as its status shows it."""
    name, version = name_and_version(row)
    return ModelStatus(
        model_id=row.model_id,
        status=known.status,
        last_updated=known.last_updated,
        model_name=name,
        model_version=version,
        last_error=known.last_error,
        deployed_at=known.deployed_at,
        run=run_link(settings, known.run_id),
        environments=[_render_service(settings, name, version, service) for service in known.services],
    )


def _render_service(settings: Settings, name: str, version: str, known: ServiceStatus) -> EnvironmentStatus:
    environment = settings.environments.get(known.environment)
    is_there = known.status is Status.DEPLOYED and environment is not None
    return EnvironmentStatus(
        environment=known.environment,
        status=known.status,
        model_version=version,
        revision=known.revision,
        replicas=known.replicas,
        endpoint_url=endpoint_url(environment, slug_of(name)) if environment and is_there else None,
        last_error=known.last_error,
        deployed_at=known.deployed_at,
        last_updated=known.at,
        run=run_link(settings, known.run_id),
    )


def render_run(settings: Settings, run: Run) -> HistoricRun:
    """A run as the history shows it."""
    progress = progress_of(run)
    link = run_link(settings, run.run_id)
    assert link is not None
    return HistoricRun(
        action=run.tags.get(tags.ACTION),
        environment=run.tags.get(tags.ENVIRONMENT),
        status=progress,
        requested_by=run.tags.get(tags.REQUESTED_BY),
        created_at=_moment(run.created_at),
        ended_at=_moment(run.ended_at),
        error=error_of(run) if progress == "failed" else None,
        run=link,
    )


def progress_of(run: Run) -> Progress:
    """How far a run is, in words for callers."""
    ended: dict[str, Progress] = {"SUCCESS": "completed", "FAILURE": "failed", "CANCELED": "cancelled"}
    return ended.get(run.status) or ("pending" if run.status in WAITING else "in_progress")


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
