"""Every setting, with its default and its unit. `docs/configuration.md` is generated from this package.

Values come, strongest first, from the environment (`CONSTELLATION_SOURCE__ALLOWED_HOSTS='["git.example"]'`),
then from the TOML file that `CONSTELLATION_CONFIG` names, then from the defaults below. Secrets are never
values here: they are references (`env:NAME` or `file:/path`) that are resolved at the last moment.
"""

from constellation_docker.settings.gateway import GatewaySettings, RateLimitSettings, TokenSettings
from constellation_docker.settings.packaging import (
    BaseImageSettings,
    BuildSettings,
    IndexSettings,
    RegistrySettings,
    SourceSettings,
    VerificationSettings,
)
from constellation_docker.settings.rollout import EnvironmentSettings, RolloutSettings
from constellation_docker.settings.secret import SecretReference, resolve_secret
from constellation_docker.settings.section import GIBIBYTE, MEBIBYTE
from constellation_docker.settings.settings import Settings, load_settings
from constellation_docker.settings.upkeep import (
    HealingSettings,
    NotificationSettings,
    ReapingSettings,
    ReconcileSettings,
)

__all__ = [
    "GIBIBYTE",
    "MEBIBYTE",
    "BaseImageSettings",
    "BuildSettings",
    "EnvironmentSettings",
    "GatewaySettings",
    "HealingSettings",
    "IndexSettings",
    "NotificationSettings",
    "RateLimitSettings",
    "ReapingSettings",
    "ReconcileSettings",
    "RegistrySettings",
    "RolloutSettings",
    "SecretReference",
    "Settings",
    "SourceSettings",
    "TokenSettings",
    "VerificationSettings",
    "load_settings",
    "resolve_secret",
]
