"""Images on the engine: looking, tagging, loading, saving, removing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import requests

from constellation_docker.engine.build import ignore_line
from constellation_docker.engine.client import EngineClient
from constellation_docker.engine.connection import Connection
from constellation_docker.engine.errors import (
    EngineError,
    ImageNotFound,
    NotFound,
    choose_engine_error,
)
from constellation_docker.engine.reference import ImageReference
from constellation_docker.engine.stream import never, read_chunks, read_messages
from constellation_docker.engine.upload import Archive, read_pieces


@dataclass(frozen=True)
class ImageSummary:
    """One image, as lists tell of it. `created` is in seconds since 1970."""

    id: str
    tags: tuple[str, ...]
    repo_digests: tuple[str, ...]
    size_bytes: int
    labels: dict[str, str]
    created: float


@dataclass(frozen=True)
class ImageFacts:
    """One image.

    Attributes:
        id: Its id on this engine. Do not compare ids across engines: image stores compute them differently.
        tags: `repository:tag`s that name it.
        repo_digests: `repository@sha256:…` under which registries have it.
        size_bytes: Size of its layers, unpacked.
        layers: Digests of its unpacked layers, bottom first; equal content gives equal digests on any engine.
        labels: Its labels.
        created: RFC 3339 time.
        architecture, os, variant: Its platform.
        config: The engine's `Config` of it (`Env`, `Cmd`, `User`, `Healthcheck`, …).
    """

    id: str
    tags: tuple[str, ...]
    repo_digests: tuple[str, ...]
    size_bytes: int
    layers: tuple[str, ...]
    labels: dict[str, str]
    created: str
    architecture: str
    os: str
    variant: str
    config: dict[str, Any] = field(repr=False)

    @property
    def platform(self) -> str:
        """As `linux/amd64`."""
        return f"{self.os}/{self.architecture}"

    def digest_in(self, repository: str) -> str | None:
        """The digest under which `repository` has it, if the engine knows one."""
        for name in self.repo_digests:
            repo, _, digest = name.partition("@")
            if repo == repository:
                return digest
        return None


def label_filter(labels: Mapping[str, str | None]) -> list[str]:
    """The engine's `label` filter: `key=value`, or `key` where the value does not matter."""
    return [key if value is None else f"{key}={value}" for key, value in sorted(labels.items())]


def image_facts(answer: Mapping[str, Any]) -> ImageFacts:
    """The facts in the engine's `GET /images/{name}/json`."""
    config = dict(answer.get("Config") or {})
    return ImageFacts(
        id=str(answer["Id"]),
        tags=tuple(answer.get("RepoTags") or ()),
        repo_digests=tuple(answer.get("RepoDigests") or ()),
        size_bytes=int(answer.get("Size") or 0),
        layers=tuple((answer.get("RootFS") or {}).get("Layers") or ()),
        labels=dict(config.get("Labels") or {}),
        created=str(answer.get("Created") or ""),
        architecture=str(answer.get("Architecture") or ""),
        os=str(answer.get("Os") or ""),
        variant=str(answer.get("Variant") or ""),
        config=config,
    )


class Images(Connection):
    """Images on the engine."""

    def image(self, reference: str) -> ImageFacts | None:
        """The image of that name, digest or id; None where the engine has none."""
        try:
            with self._calling(f"inspecting image {reference}") as client:
                return image_facts(client.ask("GET", "/images/{0}/json", reference))
        except NotFound:
            return None

    def require_image(self, reference: str) -> ImageFacts:
        """The image of that name, digest or id.

        Raises:
            ImageNotFound: The engine has none.
        """
        facts = self.image(reference)
        if facts is None:
            raise ImageNotFound(
                f"The Docker engine at {self.url} has no image {reference}.",
                remedy="Build or pull it first.",
                reference=reference,
                engine=self.url,
            )
        return facts

    def image_history(self, reference: str) -> list[dict[str, Any]]:
        """How the image's layers were made, newest first (`CreatedBy`, `Size` in bytes, `Comment`…)."""
        with self._calling(f"reading the history of image {reference}") as client:
            return list(client.ask("GET", "/images/{0}/history", reference))

    def list_images(self, labels: Mapping[str, str | None] | None = None) -> tuple[ImageSummary, ...]:
        """The images with these labels (a value of None: any); without labels, all."""
        with self._calling("listing images") as client:
            rows = client.images(filters={"label": label_filter(labels or {})})
        return tuple(
            ImageSummary(
                id=row["Id"],
                tags=tuple(tag for tag in row.get("RepoTags") or () if tag != "<none>:<none>"),
                repo_digests=tuple(
                    item for item in row.get("RepoDigests") or () if not item.startswith("<none>")
                ),
                size_bytes=int(row.get("Size") or 0),
                labels=dict(row.get("Labels") or {}),
                created=float(row.get("Created") or 0),
            )
            for row in rows
        )

    def tag(self, reference: str, new_reference: str) -> None:
        """Give an image another name, `repository[:tag]`; whatever had that name loses it.

        Raises:
            ImageNotFound: There is no image `reference`.
        """
        new = ImageReference.parse(new_reference)
        with self._calling(f"naming image {reference} {new_reference}") as client:
            client.tag(reference, new.repository, new.tag or "latest", force=True)

    def remove_image(self, reference: str, *, force: bool = False) -> bool:
        """Remove a name of an image, and the image with its last name.

        Returns:
            False where there was none.

        Raises:
            Conflict: A container uses it.
        """
        try:
            with self._calling(f"removing image {reference}") as client:
                client.remove_image(reference, force=force)
        except NotFound:
            return False
        return True

    def load_image(
        self,
        archive: Archive,
        *,
        on_line: Callable[[str], None] = ignore_line,
        is_cancelled: Callable[[], bool] = never,
    ) -> tuple[str, ...]:
        """Load images from an archive that `save_image` or `docker save` wrote.

        Returns:
            The names (or ids, of nameless ones) of the images loaded.
        """
        loaded: list[str] = []
        for line in self._upload(
            "loading images", "/images/load", {"quiet": "1"}, archive, is_cancelled=is_cancelled
        ):
            on_line(line)
            for start in ("Loaded image: ", "Loaded image ID: "):
                if line.startswith(start):
                    loaded.append(line.removeprefix(start).strip())
        if not loaded:
            raise EngineError(
                f"The Docker engine at {self.url} found no image in the archive.",
                remedy="Check that `docker save` or save_image wrote it.",
                engine=self.url,
            )
        return tuple(loaded)

    def save_image(self, *references: str, is_cancelled: Callable[[], bool] = never) -> Iterator[bytes]:
        """Yield an archive of images, for `load_image` elsewhere."""
        yield from self._streaming(
            f"saving {', '.join(references)}",
            lambda client, _: client.call(
                "GET", "/images/get", params={"names": list(references)}, is_stream=True
            ),
            read_chunks,
            is_cancelled=is_cancelled,
        )

    def _upload(
        self,
        doing: str,
        path: str,
        parameters: Mapping[str, Any],
        archive: Archive,
        *,
        is_cancelled: Callable[[], bool],
    ) -> list[str]:
        def send(client: EngineClient, has_left: Callable[[], bool]) -> requests.Response:
            return client.call(
                "POST", path, params=parameters, data=read_pieces(archive, has_left), is_stream=True
            )

        lines: list[str] = []
        for message in self._streaming(doing, send, read_messages, is_cancelled=is_cancelled):
            if "errorDetail" in message or "error" in message:
                text = (message.get("errorDetail") or {}).get("message") or message.get("error")
                raise choose_engine_error(None, str(text), doing=doing, url=self.url)
            text = str(message.get("stream") or message.get("status") or "")
            lines += [line for line in text.splitlines() if line.strip()]
        return lines
