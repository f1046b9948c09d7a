"""Versions of an example, and our own packaging of them without Dagster, step by step."""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

from benchmarks.naive_build import LABELS
from constellation_docker.cards import ModelCard
from constellation_docker.engine import Engine
from constellation_docker.packaging.base_image import BaseImage, ensure_base_image
from constellation_docker.packaging.context import (
    plan_environment_context,
    plan_model_context,
    stream_context,
)
from constellation_docker.packaging.image import ENVIRONMENT_LABEL, ROLE_LABEL, BuiltImage, build_image
from constellation_docker.packaging.lock import DependencyLock, resolve_lock
from constellation_docker.packaging.materials import gather_materials
from constellation_docker.packaging.recipe import ImageRecipe, plan_image
from constellation_docker.packaging.runtime import choose_runtime
from constellation_docker.packaging.source import fetch_source
from constellation_docker.settings import (
    Settings,
    SourceSettings,
    load_settings,
)
from examples.make_version import commit_repository, write_version

PREFIX: Final = "constellation-benchmark"
MODEL: Final = "benchmark-sentiment"

Say = Callable[[str], None]


def say_nothing(line: str) -> None:
    """For output that nobody reads."""


@dataclass(frozen=True)
class Packaged:
    """One version that was packaged by us.

    Attributes:
        image: The image.
        source_seconds, lock_seconds, build_seconds: How long the steps took.
        seconds: The whole, from the row to the image.
    """

    image: BuiltImage
    source_seconds: float
    lock_seconds: float
    build_seconds: float
    seconds: float


@dataclass(frozen=True)
class LaunchTimes:
    """One launch through Dagster.

    Attributes:
        seconds: From submitting it to the materialized `model_image`, without its checks.
        start_seconds: Of these, until the first step began: Dagster's queue and the start of its process.
    """

    seconds: float
    start_seconds: float


@dataclass
class Workbench:
    """An engine, a store of its own in a temporary directory, and the versions that were made there.

    Every version's files differ from those of all other versions and runs, so nothing is found in a cache that a
    real second version would not find there.
    """

    engine: Engine
    settings: Settings
    base: BaseImage
    home: Path
    say: Say
    tags: list[str] = field(default_factory=list)
    _made: int = 0

    def new_version(self) -> tuple[str, Path]:
        """The name and the Git repository of a further version of the sentiment example."""
        self._made += 1
        version = f"1.0.{self._made}"
        repository = write_version(self.home / "repositories" / version, version=1 + self._made)
        with (repository / "README.md").open("a", encoding="utf-8") as readme:
            readme.write(f"\nVersion {version} of the run {secrets.token_hex(8)}.\n")
        commit_repository(repository, f"Version {version}")
        return version, repository

    def new_tag(self, name: str) -> str:
        """A name for an image, which is removed in the end."""
        tag = f"{PREFIX}/{name}:{secrets.token_hex(6)}"
        self.tags.append(tag)
        return tag

    def card_of(self, version: str, repository: Path, *, runtime: str) -> ModelCard:
        """The card that registers a version, with its runtime given."""
        return ModelCard.from_registration(
            {
                "model_name": MODEL,
                "model_version": version,
                "repo_url": repository.as_uri(),
                "branch": "main",
                "model_card": {
                    "description": "A version of the sentiment example.",
                    "data_used": "",
                    "dependencies": [],
                    "constellation": {"runtime": runtime},
                },
            }
        )

    def local_versions(self, runtime: str) -> dict[str, str]:
        """Packages that our lock takes in a site's own build (`2.13.0+cpu`), by name."""
        recipe, _, _ = self._plan(*self.new_version(), runtime)
        return {
            package.name: package.version for package in _lock_of(recipe).packages if "+" in package.version
        }

    def package(self, version: str, repository: Path, *, runtime: str, is_fresh: bool = False) -> Packaged:
        """Package a version as the assets do, without Dagster.

        Args:
            version: Its name.
            repository: Its Git repository.
            runtime: `onnx` or `transformers`.
            is_fresh: Resolve the lock anew, and build without the engine's cache.
        """
        began = time.monotonic()
        recipe, source_seconds, lock_seconds = self._plan(version, repository, runtime, refresh=is_fresh)
        image = build_image(
            recipe, self.engine, settings=self.settings, on_line=say_nothing, is_fresh=is_fresh
        )
        self.tags.append(image.tag)
        return Packaged(image, source_seconds, lock_seconds, image.seconds, time.monotonic() - began)

    def build_barely(self, version: str, repository: Path, *, runtime: str, is_fresh: bool = False) -> float:
        """Seconds that the engine takes for the very contexts that we would send, and nothing else."""
        recipe, _, _ = self._plan(version, repository, runtime)
        seconds = 0.0
        environment = self._environment_of(recipe)
        if is_fresh or environment is None:
            environment = self.new_tag("bare-environment")
            materials = gather_materials(
                _lock_of(recipe),
                self.settings.index,
                architecture=self.engine.version.architecture,
                store=self.home,
                on_line=say_nothing,
            )
            seconds += self.engine.build(
                stream_context(plan_environment_context(recipe, materials)),
                tag=environment,
                labels=LABELS,
                target="environment-built",
                no_cache=is_fresh,
                network=self.settings.build.network,
            ).seconds
        return (
            seconds
            + self.engine.build(
                stream_context(plan_model_context(recipe)),
                tag=self.new_tag("bare"),
                labels=LABELS,
                build_args={"ENVIRONMENT": environment},
                no_cache=is_fresh,
            ).seconds
        )

    def remove_images(self) -> None:
        """Remove every image that was made here. The engine's build cache stays."""
        for image in self.engine.list_images({ROLE_LABEL: "environment"}):
            self.tags += [tag for tag in image.tags if tag.startswith(f"{PREFIX}/")]
        for tag in dict.fromkeys(self.tags):
            self.engine.remove_image(tag, force=True)

    def _plan(
        self, version: str, repository: Path, runtime: str, *, refresh: bool = False
    ) -> tuple[ImageRecipe, float, float]:
        card = self.card_of(version, repository, runtime=runtime)
        source = fetch_source(
            card.repo_url,
            card.branch,
            settings=self.settings.source,
            ca_bundle=self.settings.index.ca_bundle,
            store=self.home,
            model=card.key,
            on_line=say_nothing,
        )
        card = card.merged_with(source.readme or "")
        choice = choose_runtime(source, card)
        lock = resolve_lock(
            source,
            card,
            choice,
            base=self.base,
            settings=self.settings.index,
            store=self.home,
            on_line=say_nothing,
            refresh=refresh,
        )
        recipe = plan_image(card, source, lock, choice, self.base, model_id=secrets.token_hex(16))
        return recipe, source.seconds, lock.seconds

    def _environment_of(self, recipe: ImageRecipe) -> str | None:
        found = self.engine.list_images(
            {ROLE_LABEL: "environment", ENVIRONMENT_LABEL: recipe.environment_digest}
        )
        names = [tag for image in found for tag in image.tags]
        return names[0] if names else None


@contextmanager
def open_workbench(*, say: Say, engine_url: str | None = None) -> Iterator[Workbench]:
    """A workbench on a real engine; its images and files are removed at the end, whatever happened.

    Args:
        say: Told what is going on.
        engine_url: The engine's address; None: as the command line finds it.
    """
    engine = Engine.connect(engine_url)
    home = Path(mkdtemp(prefix="constellation-benchmark-"))
    given = load_settings()
    settings = given.model_copy(
        update={
            "home": home,
            "source": SourceSettings(allowed_schemes=("file",)),
            "build": given.build.model_copy(update={"image_prefix": PREFIX}),
        }
    )
    say("Base image")
    base = ensure_base_image(engine, "python", settings.base_image, say_nothing)
    bench = Workbench(engine=engine, settings=settings, base=base, home=home, say=say)
    try:
        yield bench
    finally:
        say("Removing the images that were made")
        bench.remove_images()
        _remove_tree(home)


def _lock_of(recipe: ImageRecipe) -> DependencyLock:
    assert recipe.lock is not None
    return recipe.lock


def _remove_tree(path: Path) -> None:
    """Remove a directory whose sources are kept read-only."""
    for directory in [
        path,
        *(entry for entry in path.rglob("*") if entry.is_dir() and not entry.is_symlink()),
    ]:
        directory.chmod(0o700)
    shutil.rmtree(path)
