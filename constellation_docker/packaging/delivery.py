"""Bringing a published image to the engine that is to run it."""

from __future__ import annotations

from collections.abc import Callable

from constellation_docker.cards import Publication
from constellation_docker.engine import Engine, ImageNotFound
from constellation_docker.packaging.registry import pull_image
from constellation_docker.settings import RegistrySettings


def deliver_image(
    publication: Publication,
    *,
    to: Engine,
    built_on: Engine,
    registry: RegistrySettings,
    on_line: Callable[[str], None],
) -> None:
    """Make sure that an engine has a published image: as it is, from the registry, or from the building engine.

    Args:
        publication: The image.
        to: The engine that is to run it.
        built_on: The engine that built it.
        registry: Credentials and tries, for an image in a registry.
        on_line: Told of what is done.

    Raises:
        ImageNotFound: Neither engine has it, and it is in no registry.
        RegistryError, EngineUnreachable: As for `pull_image`.
    """
    if to.image(publication.image) is not None:
        return
    if publication.is_pushed:
        pull_image(publication.image, to, registry=registry, on_line=on_line)
    elif built_on.image(publication.image) is not None:
        on_line(f"No registry holds the image: copying it from {built_on.url} to {to.url}.")
        to.load_image(built_on.save_image(publication.image))
        if to.image(publication.image) is None:
            raise ImageNotFound(
                f"The engine at {to.url} stores images in another way than {built_on.url} does, so the same image has "
                "another id there.",
                remedy="Publish images to a registry (registry.repository), which gives them one name for all engines.",
                image=publication.image,
            )
    else:
        raise ImageNotFound(
            f"The image {publication.image[:19]}… is gone from {to.url}, and no registry holds it.",
            remedy="Package the version again: launch the job package_model for it.",
            image=publication.image,
        )
