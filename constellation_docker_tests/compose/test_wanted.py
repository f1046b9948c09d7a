"""What a deployment's row asks for."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from constellation_docker.cards import DeploymentRow, ModelCard, ModelRow, Publication
from constellation_docker.cards.serving_options import Resources
from constellation_docker.compose import NotPublished, wanted_service

_NOW = datetime(2026, 1, 1, tzinfo=UTC)


def row(*, is_published: bool = True, **changes: Any) -> DeploymentRow:
    card = ModelCard.from_registration(
        {
            "model_name": "acme/sentiment",
            "model_version": "1.0",
            "repo_url": "https://git.example/acme/sentiment",
            "branch": None,
            "model_card": {
                "description": "d",
                "data_used": "d",
                "dependencies": [],
                "constellation": {
                    "replicas": 2,
                    "resources": {"memory": "2g"},
                    "env": {"A": "b"},
                    "secrets": {"HF_TOKEN": "env:HF_TOKEN"},
                    "request_timeout_seconds": 20,
                    "deploy": {"order": "stop-first"},
                },
            },
        }
    )
    publication = Publication(
        model_id="id",
        commit="c",
        source_digest="sha256:s",
        image="registry.example/x@sha256:" + "a" * 64,
        image_size_bytes=1,
        runtime="onnx",
        port=9000,
        published_at=_NOW,
    )
    model = ModelRow("id", card, 1, _NOW, _NOW, publication=publication if is_published else None)
    facts: dict[str, Any] = {
        "environment": "dev",
        "model_name": "acme/sentiment",
        "model_id": "id",
        "replicas": None,
        "resources": None,
        "state": "running",
        "revision": 7,
        "stable_revision": None,
        "requested_by": None,
        "created_at": _NOW,
        "updated_at": _NOW,
        "row": model,
    }
    return DeploymentRow(**(facts | changes))


def test_card_and_publication_say_what_runs() -> None:
    wanted = wanted_service(row())
    assert (wanted.slug, wanted.model_version, wanted.revision) == ("acme-sentiment", "1.0", 7)
    assert (wanted.port, wanted.ready_path, wanted.replicas) == (9000, "/ready", 2)
    assert wanted.image.startswith("registry.example/x@sha256:")
    assert wanted.resources.memory == "2g"
    assert wanted.secrets == {"HF_TOKEN": "env:HF_TOKEN"}
    assert (wanted.request_timeout_seconds, wanted.deploy.order) == (20, "stop-first")


def test_a_deployments_own_replicas_and_resources_come_before_the_cards() -> None:
    wanted = wanted_service(row(replicas=5, resources=Resources(memory="4g"), state="stopped"))
    assert (wanted.replicas, wanted.resources.memory, wanted.state) == (5, "4g", "stopped")


def test_a_version_without_an_image_cannot_be_deployed() -> None:
    with pytest.raises(NotPublished, match=r"acme/sentiment@1\.0 cannot be deployed to dev"):
        wanted_service(row(is_published=False))
