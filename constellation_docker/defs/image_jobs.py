"""Jobs for any image: pull_image and push_image."""

import dagster as dg
from pydantic import Field

from constellation_docker.defs import metadata, tags
from constellation_docker.defs.failures import explained
from constellation_docker.defs.resources import EngineResource, SettingsResource
from constellation_docker.packaging import pull_image as pull
from constellation_docker.packaging import push_image as push


class PullConfig(dg.Config):
    """Which image to pull."""

    repository: str = Field(description="Repository, with its registry: `registry.example/models/sentiment`.")
    tag: str = Field("latest", description="Tag, or digest as `sha256:…`.")


class PushConfig(dg.Config):
    """Which image to push, and where to."""

    image_name: str = Field(description="An image on the building engine: a name without its tag.")
    tag: str = Field("latest", description="The tag that it has, and gets.")
    repository: str = Field(description="Repository to push to, with its registry.")


@dg.op(tags={"kind": "docker"})
def pull_image_op(
    context: dg.OpExecutionContext, config: PullConfig, settings: SettingsResource, engines: EngineResource
) -> None:
    """Pull an image to the building engine, with the configured registry's credentials where it is that registry."""
    separator = "@" if config.tag.startswith("sha256:") else ":"
    reference = f"{config.repository}{separator}{config.tag}"
    known = settings.load()
    tags.identify_run(context, {tags.IMAGE: f"{config.repository}:{config.tag}"})
    with explained(context, reference, "pulling the image"):
        pulled = pull(
            reference,
            engines.building(),
            registry=known.registry,
            on_line=context.log.info,
        )
    context.add_output_metadata(
        {
            "reference": reference,
            "image id": pulled.id,
            "size (MB)": metadata.megabytes(pulled.size_bytes),
            "digests": ", ".join(pulled.repo_digests) or "(none)",
        }
    )


@dg.op(tags={"kind": "docker"})
def push_image_op(
    context: dg.OpExecutionContext, config: PushConfig, settings: SettingsResource, engines: EngineResource
) -> None:
    """Tag an image of the building engine for a repository and push it there."""
    source = f"{config.image_name}:{config.tag}"
    target = f"{config.repository}:{config.tag}"
    known = settings.load()
    tags.identify_run(context, {tags.IMAGE: f"{source} to {config.repository}"})
    with explained(context, source, f"pushing the image to {config.repository}"):
        digest = push(
            source,
            target,
            engines.building(),
            registry=known.registry,
            on_line=context.log.info,
        )
    context.add_output_metadata(
        {"reference": f"{config.repository}@{digest}", "tag": config.tag, "digest": digest}
    )


@dg.job(
    tags={tags.ACTION: "pull"}, description="Pull any image to the building engine. Config: repository, tag."
)
def pull_image() -> None:
    """Pull any image to the building engine."""
    pull_image_op()


@dg.job(tags={tags.ACTION: "push"}, description="Push any image of the building engine to a registry.")
def push_image() -> None:
    """Push any image of the building engine to a registry."""
    push_image_op()
