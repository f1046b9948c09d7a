"""Model cards: what they say, and the store of what is wanted.

May touch: files that people name, and the store's database. Imports no Dagster, no Docker.

* `model_card`: `ModelCard`, from a registration, a file or a row; `serving_options`, `widget`, `slug`,
  `front_matter`, `tasks` are its parts, `rendering` its text.
* `store`: `CardStore`, the rows of what is wanted; `rows` are what it returns, `tables` and `migrations` its
  public schema.
"""

from typing import TYPE_CHECKING, Any

from constellation_docker.cards.errors import (
    CardChanged,
    CardNotFound,
    DeploymentNotFound,
    InvalidCard,
    LeaseHeld,
    LeaseLost,
    ModelIdTaken,
    ReleaseNotFound,
    SlugTaken,
    StoreRefused,
    StoreUnavailable,
    VersionPublished,
)
from constellation_docker.cards.model_card import ModelCard
from constellation_docker.cards.publication import Publication
from constellation_docker.cards.quantities import byte_count, duration_seconds
from constellation_docker.cards.serving_options import (
    DeployOptions,
    RateLimit,
    Reservations,
    Resources,
    ServingOptions,
)
from constellation_docker.cards.slug import image_tag_of, slug_of
from constellation_docker.cards.tasks import KNOWN_TASKS
from constellation_docker.cards.widget import WidgetExample

if TYPE_CHECKING:
    from constellation_docker.cards.leases import Lease
    from constellation_docker.cards.rows import DeploymentRow, InvalidRow, ModelRow, Release
    from constellation_docker.cards.store import CardStore

__all__ = [
    "KNOWN_TASKS",
    "CardChanged",
    "CardNotFound",
    "CardStore",
    "DeployOptions",
    "DeploymentNotFound",
    "DeploymentRow",
    "InvalidCard",
    "InvalidRow",
    "Lease",
    "LeaseHeld",
    "LeaseLost",
    "ModelCard",
    "ModelIdTaken",
    "ModelRow",
    "Publication",
    "RateLimit",
    "Release",
    "ReleaseNotFound",
    "Reservations",
    "Resources",
    "ServingOptions",
    "SlugTaken",
    "StoreRefused",
    "StoreUnavailable",
    "VersionPublished",
    "WidgetExample",
    "byte_count",
    "duration_seconds",
    "image_tag_of",
    "slug_of",
]

# SQLAlchemy takes half a second to import; whoever only reads cards does not pay for it.
_LATER = {
    "CardStore": "store",
    "Lease": "leases",
    "DeploymentRow": "rows",
    "InvalidRow": "rows",
    "ModelRow": "rows",
    "Release": "rows",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
