"""Volumes on the engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from constellation_docker.engine.connection import Connection
from constellation_docker.engine.errors import NotFound
from constellation_docker.engine.images import label_filter


class Volumes(Connection):
    """Volumes on the engine."""

    def create_volume(
        self,
        name: str,
        *,
        labels: Mapping[str, str] | None = None,
        driver: str = "local",
        options: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Create a volume; the one there is returned where the name is taken.

        Args:
            name: Its name.
            labels: Its labels.
            driver: Volume driver.
            options: The driver's options.
        """
        with self._calling(f"creating volume {name}") as client:
            return dict(
                client.create_volume(
                    name, driver=driver, driver_opts=dict(options or {}), labels=dict(labels or {})
                )
            )

    def volume(self, name: str) -> dict[str, Any] | None:
        """What the engine knows of a volume; None where it has none."""
        try:
            with self._calling(f"inspecting volume {name}") as client:
                return dict(client.inspect_volume(name))
        except NotFound:
            return None

    def list_volumes(self, labels: Mapping[str, str | None] | None = None) -> list[dict[str, Any]]:
        """The volumes with these labels (a value of None: any)."""
        with self._calling("listing volumes") as client:
            answer = client.volumes(filters={"label": label_filter(labels or {})})
        return list(answer.get("Volumes") or [])

    def remove_volume(self, name: str, *, force: bool = False) -> bool:
        """Remove a volume and what is in it.

        Returns:
            False where there was none.
        """
        try:
            with self._calling(f"removing volume {name}") as client:
                client.remove_volume(name, force=force)
        except NotFound:
            return False
        return True
