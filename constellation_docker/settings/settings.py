"""All settings together, and how they are read."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from constellation_docker.errors import InvalidInput
from constellation_docker.settings.gateway import GatewaySettings
from constellation_docker.settings.packaging import (
    BaseImageSettings,
    BuildSettings,
    IndexSettings,
    RegistrySettings,
    SourceSettings,
    VerificationSettings,
)
from constellation_docker.settings.rollout import EnvironmentSettings, RolloutSettings
from constellation_docker.settings.secret import SecretReference
from constellation_docker.settings.upkeep import (
    HealingSettings,
    NotificationSettings,
    ReapingSettings,
    ReconcileSettings,
)


class Settings(BaseSettings):
    """All settings of the product."""

    model_config = SettingsConfigDict(
        env_prefix="CONSTELLATION_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    home: Path = Field(
        Path(".constellation"), description="Directory for the SQLite store, fetched sources and locks."
    )
    database_url: str | None = Field(
        None,
        description="Card store: a SQLAlchemy URL. Default: SQLite in `home`. `postgresql://…` works for PostgreSQL and Supabase.",
    )
    database_password: SecretReference | None = Field(
        None, description="Reference to the password, kept out of the URL."
    )
    source: SourceSettings = SourceSettings()
    index: IndexSettings = Field(default_factory=IndexSettings)
    base_image: BaseImageSettings = BaseImageSettings()
    build: BuildSettings = BuildSettings()
    verification: VerificationSettings = VerificationSettings()
    registry: RegistrySettings = RegistrySettings()
    environments: dict[str, EnvironmentSettings] = Field(
        default_factory=lambda: {"dev": EnvironmentSettings()}, description="The environments, by name."
    )
    rollout: RolloutSettings = RolloutSettings()
    gateway: GatewaySettings = GatewaySettings()
    notifications: NotificationSettings = NotificationSettings()
    reconcile: ReconcileSettings = ReconcileSettings()
    healing: HealingSettings = HealingSettings()
    reaping: ReapingSettings = ReapingSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        sources: list[Any] = [init_settings, env_settings]
        if config := os.environ.get("CONSTELLATION_CONFIG"):
            sources.append(TomlConfigSettingsSource(settings_cls, toml_file=config))
        return tuple(sources)

    @cached_property
    def store_url(self) -> str:
        """The card store's SQLAlchemy URL, without the password."""
        return self.database_url or f"sqlite:///{(self.home / 'cards.db').absolute()}"

    def environment(self, name: str) -> EnvironmentSettings:
        """The settings of one environment.

        Raises:
            InvalidInput: There is no environment of that name.
        """
        if name not in self.environments:
            known = ", ".join(sorted(self.environments)) or "none"
            raise InvalidInput(
                f"There is no environment named {name!r}.",
                remedy=f"Use one of: {known}; or add it to the `environments` setting.",
                environment=name,
            )
        found = self.environments[name]
        if found.tls is None or found.tls.folder is not None:
            return found
        folder = self.home.absolute() / "environments" / name / "tls"
        return found.model_copy(update={"tls": found.tls.model_copy(update={"folder": folder})})


def load_settings() -> Settings:
    """Read the settings from the environment and the configuration file.

    Raises:
        InvalidInput: A setting is unknown or has a wrong type; the message names it.
    """
    config = os.environ.get("CONSTELLATION_CONFIG")
    if config and not Path(config).is_file():
        raise InvalidInput(
            f"CONSTELLATION_CONFIG names {config}, which is not a file.",
            remedy="Create it, or unset the variable.",
        )
    try:
        return Settings()
    except ValueError as error:
        from pydantic import ValidationError

        if not isinstance(error, ValidationError):
            raise InvalidInput(
                f"The settings cannot be read: {error}.", remedy="See docs/configuration.md."
            ) from error
        first = error.errors(include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(
            f"The setting {where} is wrong: {first['msg']}.",
            remedy="See docs/configuration.md.",
            setting=where,
        ) from error
