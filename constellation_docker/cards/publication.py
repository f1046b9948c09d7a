"""What packaging learned of a model version: the image that may be deployed."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict


class Publication(BaseModel):
    """A verified image, and where everything in it came from.

    Args:
        model_id: The row's id.
        commit: The repository's commit (for a directory, its content digest).
        source_digest: `sha256:…` over the repository's files.
        lock_digest: `sha256:…` of the dependency lock; None where the image brings its own environment.
        image: What to run: `repository@sha256:…` once pushed, else the engine's image id `sha256:…`.
        image_digest: The manifest's digest in the registry; None where nothing was pushed.
        image_size_bytes: Size of the unpacked image, in bytes.
        runtime: onnx, transformers, custom, dockerfile or image.
        task: The task that is served, if known.
        port: Port on which the container listens.
        health_path: Answers 200 while the server lives.
        ready_path: Answers 200 once the model can answer.
        server_version: Version of our inference server inside; None where it is somebody else's.
        is_pushed: Whether the image lies in a registry.
        published_at: When it was published (UTC).
    """

    # Unknown fields are left alone: an older process must be able to read what a newer one wrote.
    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())

    model_id: str
    commit: str
    source_digest: str
    lock_digest: str | None = None
    image: str
    image_digest: str | None = None
    image_size_bytes: int
    runtime: str
    task: str | None = None
    port: int = 8080
    health_path: str = "/health"
    ready_path: str = "/ready"
    server_version: str | None = None
    is_pushed: bool = False
    published_at: datetime
