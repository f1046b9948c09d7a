"""Building the image of a recipe, unless the engine has it already."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from constellation_docker.engine import (
    BuildFailed,
    BuildResult,
    BuildStep,
    Engine,
    ImageFacts,
    NotFound,
)
from constellation_docker.packaging.base_image import BaseImage
from constellation_docker.packaging.context import (
    ContextFile,
    plan_environment_context,
    plan_model_context,
    plan_repository_context,
    stream_context,
)
from constellation_docker.packaging.dockerfile import SERVED_BY, render_adoption
from constellation_docker.packaging.materials import gather_materials
from constellation_docker.packaging.recipe import ImageRecipe
from constellation_docker.packaging.registry import pull_image
from constellation_docker.packaging.runtime import Runtime
from constellation_docker.settings import Settings

RECIPE_LABEL = "constellation.recipe"
ROLE_LABEL = "constellation.role"
ENVIRONMENT_LABEL = "constellation.environment"
EXPIRES_LABEL = "constellation.expires"
"""On containers that a trial makes: when whoever finds one may remove it, in seconds since 1970."""
_LAYERS = ("environment", "server", "model", "card")
_SHELL_TOOLS = (
    ("/usr/bin/curl", ["-fsS", "-o", "/dev/null", "{url}"]),
    ("/usr/bin/wget", ["-q", "-O", "/dev/null", "{url}"]),
    ("/bin/wget", ["-q", "-O", "/dev/null", "{url}"]),
)
_PYTHONS = ("/env/bin/python", "/usr/local/bin/python3", "/usr/bin/python3", "/opt/venv/bin/python")
_PYTHON_PROBE = "import sys,urllib.request as u; u.build_opener(u.ProxyHandler({{}})).open('{url}',timeout=4)"


class ImageLayer(BaseModel):
    """One layer: what it holds, its digest (of its unpacked content) and its size in bytes."""

    model_config = ConfigDict(frozen=True)

    name: str
    digest: str
    size_bytes: int


class ImageStep(BaseModel):
    """One step of a build, and whether it came from the cache."""

    model_config = ConfigDict(frozen=True)

    name: str
    seconds: float
    is_cached: bool


class BuiltImage(BaseModel):
    """An image on the engine.

    Attributes:
        model: `name@version`.
        image_id: Its id on the engine that built it.
        tag: Its name there.
        runtime: How it serves.
        has_own_server: Whether it brings a server that is not ours.
        port: Where it listens.
        ready_path: Where a server that can answer says 2xx.
        server_version: Version of our server in it, or None.
        base: The base image, whose Python speaks to the container while it is verified.
        size_bytes: Size of all layers, unpacked.
        layers: Its layers, bottom first.
        steps: What was done, in order; empty where nothing was.
        is_cached: Whether the engine had the image already.
        seconds: How long it took in all.
        dockerfile: The Dockerfile of its last stage.
        recipe_digest: Content address of all that went into it.
        labels: Its labels.
    """

    model_config = ConfigDict(frozen=True)

    model: str
    image_id: str
    tag: str
    runtime: Runtime
    has_own_server: bool
    port: int
    ready_path: str
    server_version: str | None
    base: BaseImage
    size_bytes: int
    layers: tuple[ImageLayer, ...]
    steps: tuple[ImageStep, ...]
    is_cached: bool
    seconds: float
    dockerfile: str
    recipe_digest: str
    labels: dict[str, str]


@dataclass(frozen=True)
class _Workshop:
    """What every build of one image shares."""

    recipe: ImageRecipe
    engine: Engine
    settings: Settings
    on_line: Callable[[str], None]
    is_cancelled: Callable[[], bool]

    @property
    def prefix(self) -> str:
        return self.settings.build.image_prefix

    @property
    def tag(self) -> str:
        return f"{self.prefix}/{self.recipe.name}"

    def build(
        self,
        files: Sequence[ContextFile],
        tag: str,
        labels: dict[str, str],
        *,
        dockerfile: str = "Dockerfile",
        target: str | None = None,
        build_args: dict[str, str] | None = None,
        is_fresh: bool = False,
    ) -> BuildResult:
        """Build, and name the model in whatever goes wrong."""
        try:
            return self.engine.build(
                stream_context(files),
                tag=tag,
                dockerfile=dockerfile,
                target=target,
                build_args=build_args or {},
                labels=labels,
                platform=self.engine.version.platform,
                network=self.settings.build.network,
                no_cache=is_fresh,
                on_line=self.on_line,
                is_cancelled=self.is_cancelled,
                timeout_seconds=self.settings.build.timeout_seconds,
            )
        except BuildFailed as error:
            raise _explained(error, self.recipe.model) from error


def build_image(
    recipe: ImageRecipe,
    engine: Engine,
    *,
    settings: Settings,
    on_line: Callable[[str], None],
    is_cancelled: Callable[[], bool] = lambda: False,
    is_fresh: bool = False,
) -> BuiltImage:
    """Build the image of a recipe; one that the engine has already is used as it is.

    Args:
        recipe: What to build.
        engine: Where.
        settings: All settings: package indexes, build network, deadlines, the prefix of names.
        on_line: Called with every line of output as it comes.
        is_cancelled: Asked all along; when true the engine stops the build.
        is_fresh: Build everything anew, even what the engine has, without its cache.

    Raises:
        BuildFailed: A step failed. The message names the model and the step and ends with the step's own
            last words; `log_tail` holds its last lines.
        BuildCancelled, DiskFull, EngineUnreachable: As they say.
        ContextChanged: A file changed while it was sent.
        UvUnavailable: There is no uv for the engine's platform.
        RegistryError: A ready-made image cannot be pulled.
    """
    started = time.monotonic()
    workshop = _Workshop(recipe, engine, settings, on_line, is_cancelled)
    known = None if is_fresh else find_built_image(recipe, engine, prefix=workshop.prefix)
    steps: tuple[BuildStep, ...] = ()
    text = recipe.dockerfile
    if known is not None:
        on_line(f"The engine has the image of {recipe.model} already ({recipe.digest[:19]}).")
        engine.tag(known.id, workshop.tag)
        facts = known
    elif recipe.has_own_server:
        steps, text = _adopt(workshop)
        facts = engine.require_image(workshop.tag)
    else:
        steps = _assemble(workshop, is_fresh=is_fresh)
        facts = engine.require_image(workshop.tag)
    layers = _layers(facts, engine, is_ours=not recipe.has_own_server)
    return BuiltImage(
        model=recipe.model,
        image_id=facts.id,
        tag=workshop.tag,
        runtime=recipe.runtime,
        has_own_server=recipe.has_own_server,
        port=recipe.port,
        ready_path=recipe.ready_path,
        server_version=recipe.server.version if recipe.server else None,
        base=recipe.base,
        # An engine with containerd's image store counts the compressed layers too in its own figure.
        size_bytes=sum(layer.size_bytes for layer in layers) or facts.size_bytes,
        layers=layers,
        steps=tuple(
            ImageStep(name=step.name, seconds=step.seconds, is_cached=step.is_cached) for step in steps
        ),
        is_cached=known is not None,
        seconds=round(time.monotonic() - started, 3),
        dockerfile=text,
        recipe_digest=recipe.digest,
        labels=facts.labels,
    )


def find_built_image(recipe: ImageRecipe, engine: Engine, *, prefix: str) -> ImageFacts | None:
    """The image that was built from this very recipe, if the engine has it.

    Only under a name of the model's own: what somebody builds upon our image inherits its labels.
    """
    repository = f"{prefix}/{recipe.name.partition(':')[0]}"
    for image in engine.list_images({RECIPE_LABEL: recipe.digest, ROLE_LABEL: "model"}):
        if any(tag.rpartition(":")[0] == repository for tag in image.tags):
            return engine.image(image.id)
    return None


def _assemble(workshop: _Workshop, *, is_fresh: bool) -> tuple[BuildStep, ...]:
    """Environment first, under a name of its own: models with the same lock share it, wherever BuildKit's
    cache went, and neither uv nor wheels nor credentials are sent again."""
    recipe, engine = workshop.recipe, workshop.engine
    environment = f"{workshop.prefix}/environment:{recipe.environment_digest.partition(':')[2][:24]}"
    steps: tuple[BuildStep, ...] = ()
    if is_fresh or engine.image(environment) is None:
        assert recipe.lock is not None
        materials = gather_materials(
            recipe.lock,
            workshop.settings.index,
            architecture=engine.version.architecture,
            store=workshop.settings.home,
            on_line=workshop.on_line,
        )
        built = workshop.build(
            plan_environment_context(recipe, materials),
            environment,
            {
                ROLE_LABEL: "environment",
                ENVIRONMENT_LABEL: recipe.environment_digest,
                "constellation.lock-digest": recipe.lock.digest,
            },
            target="environment-built",
            is_fresh=is_fresh,
        )
        steps = built.steps
    built = workshop.build(
        plan_model_context(recipe),
        workshop.tag,
        {RECIPE_LABEL: recipe.digest, ENVIRONMENT_LABEL: recipe.environment_digest},
        build_args={"ENVIRONMENT": environment},
        is_fresh=is_fresh,
    )
    return steps + built.steps


def _adopt(workshop: _Workshop) -> tuple[tuple[BuildStep, ...], str]:
    """Make one of ours of an image with a server of its own: labels, a user, a health check where it has none."""
    recipe, engine = workshop.recipe, workshop.engine
    steps: tuple[BuildStep, ...] = ()
    if recipe.own_dockerfile:
        adopted = f"{workshop.prefix}/own:{recipe.digest.partition(':')[2][:24]}"
        steps = workshop.build(
            plan_repository_context(recipe), adopted, {ROLE_LABEL: "own"}, dockerfile=recipe.own_dockerfile
        ).steps
        facts = engine.require_image(adopted)
    else:
        assert recipe.image is not None
        facts = engine.image(recipe.image) or pull_image(
            recipe.image, engine, registry=workshop.settings.registry, on_line=workshop.on_line
        )
        adopted = recipe.image
    text = render_adoption(
        image=adopted,
        labels=recipe.labels,
        port=recipe.port,
        user=SERVED_BY if runs_as_root(facts) else None,
        health=None if has_health_check(facts) else _health_command(workshop, facts),
    )
    try:
        built = workshop.build(
            [ContextFile.of_content("Dockerfile", text.encode())], workshop.tag, {RECIPE_LABEL: recipe.digest}
        )
    finally:
        if recipe.own_dockerfile:
            engine.remove_image(adopted)
    return steps + built.steps, text


def runs_as_root(facts: ImageFacts) -> bool:
    """Whether an image's own user is root."""
    return str(facts.config.get("User") or "0").partition(":")[0] in {"0", "root"}


def has_health_check(facts: ImageFacts) -> bool:
    """Whether an image has a health check of its own."""
    test = (facts.config.get("Healthcheck") or {}).get("Test") or ["NONE"]
    return bool(test[0] != "NONE")


def _health_command(workshop: _Workshop, facts: ImageFacts) -> list[str] | None:
    """A health check out of the programs that the image has; None where it has none of them."""
    url = f"http://127.0.0.1:{workshop.recipe.port}{workshop.recipe.ready_path}"
    container = workshop.engine.create_container(
        f"constellation-look-{workshop.recipe.digest.partition(':')[2][:12]}-{time.monotonic_ns()}",
        {
            "Image": facts.id,
            "Labels": {ROLE_LABEL: "verification", EXPIRES_LABEL: f"{time.time() + 600:.0f}"},
            "Entrypoint": ["/"],
            "Cmd": [],
        },
    )
    try:
        for program, arguments in _SHELL_TOOLS:
            if _has_file(workshop.engine, container, program):
                return [program, *(argument.format(url=url) for argument in arguments)]
        for python in _PYTHONS:
            if _has_file(workshop.engine, container, python):
                return [python, "-c", _PYTHON_PROBE.format(url=url)]
    finally:
        workshop.engine.remove(container, force=True)
    workshop.on_line(
        f"The image of {workshop.recipe.model} has nothing to check its health with; it gets no HEALTHCHECK."
    )
    return None


def _has_file(engine: Engine, container: str, path: str) -> bool:
    try:
        engine.get_archive(container, path)
    except NotFound:
        return False
    return True


def _layers(facts: ImageFacts, engine: Engine, *, is_ours: bool) -> tuple[ImageLayer, ...]:
    """The layers with names and sizes: history lists all instructions, and those without a layer have size 0."""
    history = [entry for entry in reversed(engine.image_history(facts.id)) if entry.get("Size")]
    names = [str(entry.get("CreatedBy", ""))[:80] for entry in history]
    sizes = [int(entry["Size"]) for entry in history]
    if len(history) != len(facts.layers):
        names, sizes = [""] * len(facts.layers), [0] * len(facts.layers)
    if is_ours and len(facts.layers) > len(_LAYERS):
        names = ["base"] * (len(facts.layers) - len(_LAYERS)) + list(_LAYERS)
    return tuple(
        ImageLayer(name=name, digest=digest, size_bytes=size)
        for name, digest, size in zip(names, facts.layers, sizes, strict=True)
    )


def _explained(error: BuildFailed, model: str) -> BuildFailed:
    words = [line.strip() for line in error.log_tail if line.strip()]
    said = f"{error.step} said: {words[-1]}" if error.step and words else error.message
    return type(error)(
        f"The image of {model} cannot be built: {said}",
        step=error.step,
        log_tail=error.log_tail,
        remedy=error.remedy,
    )
