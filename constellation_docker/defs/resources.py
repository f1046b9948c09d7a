"""What assets, sensors and jobs are handed: the settings, the card store, the engines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from constellation_docker.cards import CardStore
from constellation_docker.cards.store import open_store
from constellation_docker.engine import Engine
from constellation_docker.settings import Settings, load_settings


class SettingsResource(dg.ConfigurableResource[None]):
    """The settings, read afresh for every run and tick, so that a change needs no restart."""

    def load(self) -> Settings:
        """The settings as they are now."""
        return load_settings()


class CardStoreResource(dg.ConfigurableResource[None]):
    """The card store: what is wanted."""

    @contextmanager
    def open(self) -> Iterator[CardStore]:
        """A store that is closed again.

        Raises:
            StoreUnavailable: The database cannot be reached.
        """
        with open_store(load_settings()) as store:
            yield store


class EngineResource(dg.ConfigurableResource[None]):
    """The Docker engines: the one that builds, and one for each environment."""

    def building(self) -> Engine:
        """The engine that builds and verifies images.

        Raises:
            EngineUnreachable: No engine answers.
        """
        return Engine.connect(load_settings().build.engine_url)

    def of_environment(self, name: str) -> Engine:
        """The engine on which an environment runs.

        Raises:
            InvalidInput: There is no such environment.
            EngineUnreachable: Its engine does not answer.
        """
        settings = load_settings()
        return Engine.connect(settings.environment(name).engine_url or settings.build.engine_url)
