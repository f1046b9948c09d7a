"""Publishing: a verified image gets a name that never means anything else.

With a registry that is `repository@sha256:…`; without one the image stays on the engine, pinned by its id.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from pydantic import BaseModel, ConfigDict

from constellation_docker.cards import ModelCard
from constellation_docker.engine import Engine
from constellation_docker.packaging.image import BuiltImage
from constellation_docker.packaging.registry import push_image
from constellation_docker.settings import RegistrySettings


class PublishedImage(BaseModel):
    """An image under a name that never means anything else.

    Attributes:
        reference: `repository@sha256:…`, or the image's id where there is no registry.
        repository: The repository, as `host:port/prefix/slug`; on the engine only, its local name.
        tag: The tag: the model's version.
        digest: The manifest's digest in the registry; None where there is no registry.
        is_pushed: Whether a registry has it.
        seconds: How long it took.
    """

    model_config = ConfigDict(frozen=True)

    reference: str
    repository: str
    tag: str
    digest: str | None
    is_pushed: bool
    seconds: float


def publish_image(
    image: BuiltImage,
    card: ModelCard,
    engine: Engine,
    registry: RegistrySettings,
    on_line: Callable[[str], None],
) -> PublishedImage:
    """Push a verified image and pin it.

    Args:
        image: What to publish.
        card: Its card: the repository is named after the model's slug, the tag after its version.
        engine: Where the image is.
        registry: Where it goes. Without a repository it stays on the engine, pinned by its id.
        on_line: Told of progress and of every further try.

    Raises:
        RegistryUnreachable: The registry did not answer, in any of the tries (transient).
        RegistryDenied: It refuses the user.
        RegistryError: Another answer of the registry.
        ImageNotFound: The engine has lost the image.
        EngineUnreachable: The engine is gone (transient).
    """
    started = time.monotonic()
    tag = card.image_tag
    if registry.repository is None:
        facts = engine.require_image(image.image_id)
        on_line(
            f"No registry is configured: the image of {image.model} stays on the engine, pinned as {facts.id}."
        )
        return PublishedImage(
            reference=facts.id,
            repository=image.tag.rpartition(":")[0],
            tag=tag,
            digest=None,
            is_pushed=False,
            seconds=round(time.monotonic() - started, 3),
        )
    repository = f"{registry.repository.rstrip('/')}/{card.slug}"
    digest = push_image(image.image_id, f"{repository}:{tag}", engine, registry=registry, on_line=on_line)
    return PublishedImage(
        reference=f"{repository}@{digest}",
        repository=repository,
        tag=tag,
        digest=digest,
        is_pushed=True,
        seconds=round(time.monotonic() - started, 3),
    )
