"""Wanted services for tests."""

from __future__ import annotations

from typing import Any

from constellation_docker.compose import WantedService

BALANCER_IMAGE = "haproxy@sha256:" + "1" * 64


def wanted(name: str = "acme/sentiment", **changes: Any) -> WantedService:
    """A service as a card with few fields asks for."""
    slug = name.replace("/", "-")
    facts: dict[str, Any] = {
        "model_name": name,
        "slug": slug,
        "model_version": "1.0",
        "model_id": "0b9b4a64-0000-4000-8000-000000000001",
        "image": f"registry.example/models/{slug}@sha256:" + "a" * 64,
    }
    return WantedService.model_validate(facts | changes)
