"""What carries our labels on an engine and belongs to nothing any more: found, then removed.

Several installations may share an engine, so a label alone is no proof. Only this is touched: what a trial left behind
after its own deadline, objects of our environments' Compose projects, images of models that our card store knows, and
names below our own image prefix. Deciding is pure; what is younger than a limit, or what a live run may be working on,
is never chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from constellation_docker.compose import labels
from constellation_docker.engine import Conflict, Engine, ImageSummary

EXPIRES = "constellation.expires"
"""On containers of trials: when whoever finds one may remove it, in seconds since 1970."""
RESOLVER = "constellation.resolver"
"""On containers that resolve dependencies."""
IMAGE_ENVIRONMENT = "constellation.environment"
"""On images: the digest of the environment that they are, or are built upon."""
LOCK_DIGEST = "constellation.lock-digest"

Sort = Literal["container", "image", "network", "cache"]


@dataclass(frozen=True)
class Leftover:
    """One thing that belongs to nothing.

    Attributes:
        sort: What it is.
        id: By which it is removed; of an image its id.
        name: What people call it.
        cause: Why it may go.
        names: The names of an image that go; none: it has none.
        size_bytes: What removing it frees, as far as that is known beforehand.
    """

    sort: Sort
    id: str
    name: str
    cause: str
    names: tuple[str, ...] = ()
    size_bytes: int = 0


@dataclass(frozen=True)
class Holdings:
    """What an engine has.

    Attributes:
        containers: Rows of `GET /containers/json`: all, because any may use an image.
        images: All images.
        networks: Rows of `GET /networks` of Compose projects.
    """

    containers: Sequence[Mapping[str, Any]] = ()
    images: Sequence[ImageSummary] = ()
    networks: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Claims:
    """What is in use, or may be soon.

    Attributes:
        projects: Compose projects of our environments on this engine.
        model_ids: Ids of all model versions that the card store knows, deleted ones too.
        images: References and ids of images that stay: what is wanted, what can be returned to, what exists nowhere else.
        busy_models: Names of models that a run is working on now.
        is_building: Whether a run may be building images here now.
        prefix: The repository prefix of our images.
        repository: Where our images are in a registry; None: nowhere.
    """

    projects: frozenset[str] = frozenset()
    model_ids: frozenset[str] = frozenset()
    images: frozenset[str] = frozenset()
    busy_models: frozenset[str] = frozenset()
    is_building: bool = False
    prefix: str = "constellation"
    repository: str | None = None


@dataclass(frozen=True)
class ReapReport:
    """What was, or would be, removed.

    Attributes:
        removed: Each thing.
        kept: What could not be removed, with the reason.
    """

    removed: tuple[Leftover, ...] = ()
    kept: Mapping[str, str] = field(default_factory=dict)

    @property
    def freed_bytes(self) -> int:
        """What that frees."""
        return sum(item.size_bytes for item in self.removed)


def take_stock(engine: Engine) -> Holdings:
    """List what an engine has, in three calls."""
    return Holdings(
        tuple(engine.list_containers()),
        engine.list_images(),
        tuple(engine.list_networks({labels.COMPOSE_PROJECT: None})),
    )


def plan_reaping(
    holdings: Holdings, claims: Claims, *, now: float, min_age_seconds: float
) -> tuple[Leftover, ...]:
    """What may go.

    Args:
        holdings: What an engine has.
        claims: What is in use.
        now: Seconds since 1970, by the engine's clock.
        min_age_seconds: What is younger stays.
    """
    old = _OldEnough(now, min_age_seconds)
    containers = [found for row in holdings.containers if (found := _judge_container(row, claims, old))]
    gone = {item.id for item in containers}
    used = {row.get("ImageID") for row in holdings.containers if row["Id"] not in gone}
    models = [
        found
        for image in holdings.images
        if image.id not in used and (found := _judge_model(image, claims, old))
    ]
    fading = {item.id for item in models}
    staying = [image for image in holdings.images if image.id not in fading]
    parts = [] if claims.is_building else list(_judge_parts(staying, used, claims, old))
    networks = _judge_networks(holdings, claims)
    return (*containers, *models, *parts, *networks)


def measure(engine: Engine, leftovers: Sequence[Leftover]) -> tuple[Leftover, ...]:
    """Say what removing each image frees: its layers that no staying image has, each counted once."""
    gone = {item.id for item in leftovers if item.sort == "image"}
    if not gone:
        return tuple(leftovers)
    staying: set[str] = set()
    for image in engine.list_images():
        if image.id not in gone and (facts := engine.image(image.id)) is not None:
            staying.update(facts.layers)
    measured = []
    for item in leftovers:
        layers = _layers_of(engine, item.id) if item.sort == "image" else {}
        size = sum(size for layer, size in layers.items() if layer not in staying)
        staying.update(layers)
        measured.append(replace(item, size_bytes=size) if item.sort == "image" else item)
    return tuple(measured)


def reap(
    engine: Engine, leftovers: Iterable[Leftover], *, on_line: Callable[[str], None] = lambda line: None
) -> ReapReport:
    """Remove what was chosen. What somebody has begun to use meanwhile stays.

    Args:
        engine: The engine.
        leftovers: What may go.
        on_line: Told of each.
    """
    removed, kept = [], {}
    for item in leftovers:
        try:
            is_gone = _remove(engine, item)
        except Conflict as conflict:
            kept[item.name] = conflict.message
            continue
        if is_gone:
            on_line(f"removed {item.sort} {item.name}: {item.cause}")
            removed.append(item)
    return ReapReport(tuple(removed), kept)


@dataclass(frozen=True)
class _OldEnough:
    now: float
    min_age_seconds: float

    def __call__(self, created: float) -> bool:
        return self.now - created >= self.min_age_seconds


def _judge_container(row: Mapping[str, Any], claims: Claims, old: _OldEnough) -> Leftover | None:
    found: Mapping[str, str] = row.get("Labels") or {}
    created = float(row.get("Created") or 0)
    cause = ""
    if EXPIRES in found and labels.COMPOSE_PROJECT not in found:
        # Its own deadline is the age limit: no trial lasts longer.
        cause = "its trial was killed" if float(found[EXPIRES] or 0) < old.now else ""
    elif RESOLVER in found and old(created):
        cause = "the resolution that it was for was killed"
    elif found.get(labels.ROLE) == labels.LOCK_ROLE and old(created):
        is_ours = found.get(labels.COMPOSE_PROJECT) in claims.projects
        cause = "its rollout was killed" if is_ours else ""
    return Leftover("container", row["Id"], _name(row), cause) if cause else None


def _judge_model(image: ImageSummary, claims: Claims, old: _OldEnough) -> Leftover | None:
    """An image of a model version that nobody needs."""
    model_id = image.labels.get(labels.MODEL_ID)
    is_ours = image.labels.get(labels.ROLE) == labels.MODEL_ROLE or not image.tags
    if not is_ours or model_id not in claims.model_ids or not old(image.created):
        return None
    is_claimed = not claims.images.isdisjoint({image.id, *image.tags, *image.repo_digests})
    if is_claimed or image.labels.get(labels.MODEL, "") in claims.busy_models:
        return None
    names = (*image.tags, *image.repo_digests)
    if not all(_is_below(name, claims.prefix, claims.repository) for name in names):
        return None  # somebody gave it a name of their own
    title = f"{image.labels.get(labels.MODEL, '')}@{image.labels.get(labels.VERSION, '')}"
    cause = "no environment and no release that can be returned to needs it"
    return Leftover("image", image.id, names[0] if names else f"{title} ({image.id[7:19]})", cause, names)


def _judge_parts(
    staying: Sequence[ImageSummary], used: Collection[Any], claims: Claims, old: _OldEnough
) -> Iterable[Leftover]:
    """Environments, exporters and half-made images that no model's image is built upon."""
    models = [image for image in staying if image.labels.get(labels.ROLE) == labels.MODEL_ROLE]
    environments = {image.labels.get(IMAGE_ENVIRONMENT) for image in models}
    locks = {image.labels.get(LOCK_DIGEST) for image in models}
    for image in staying:
        role = image.labels.get(labels.ROLE)
        needed = {
            "environment": image.labels.get(IMAGE_ENVIRONMENT) in environments,
            "exporter": image.labels.get(LOCK_DIGEST) in locks,
            "own": False,
        }.get(str(role), True)
        names = tuple(tag for tag in image.tags if tag.startswith(f"{claims.prefix}/{role}:"))
        if needed or image.id in used or not old(image.created) or (image.tags and not names):
            continue
        yield Leftover(
            "image",
            image.id,
            names[0] if names else f"{role} {image.id[7:19]}",
            "no model's image is built upon it",
            names,
        )


def _judge_networks(holdings: Holdings, claims: Claims) -> list[Leftover]:
    busy = {(row.get("Labels") or {}).get(labels.COMPOSE_PROJECT) for row in holdings.containers}
    return [
        Leftover("network", network["Id"], network["Name"], "its environment is empty")
        for network in holdings.networks
        if (project := (network.get("Labels") or {}).get(labels.COMPOSE_PROJECT)) in claims.projects
        and project not in busy
        and network["Name"] == f"{project}_default"
        and not claims.busy_models
    ]


def _remove(engine: Engine, item: Leftover) -> bool:
    if item.sort == "container":
        return engine.remove(item.id, force=True)
    if item.sort == "network":
        return engine.remove_network(item.id)
    if not item.names:
        return engine.remove_image(item.id)
    is_gone = False
    for name in item.names:
        is_gone = engine.remove_image(name) or is_gone
    return is_gone


def _layers_of(engine: Engine, image: str) -> dict[str, int]:
    """The sizes of an image's layers, in bytes, by digest; empty where the engine's history does not tell."""
    facts = engine.image(image)
    if facts is None:
        return {}
    sizes = [int(entry["Size"]) for entry in reversed(engine.image_history(image)) if entry.get("Size")]
    if len(sizes) != len(facts.layers):
        return dict.fromkeys(facts.layers, 0) | {facts.layers[-1]: facts.size_bytes} if facts.layers else {}
    return dict(zip(facts.layers, sizes, strict=True))


def _is_below(name: str, prefix: str, repository: str | None) -> bool:
    return name.startswith(f"{prefix}/") or (repository is not None and name.startswith(f"{repository}/"))


def _name(row: Mapping[str, Any]) -> str:
    with suppress(LookupError, TypeError):
        return str(row["Names"][0]).lstrip("/")
    return str(row["Id"])[:12]
