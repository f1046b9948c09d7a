"""Building images on a real engine: the same inputs give the same layers, and bad days end well."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from constellation_docker.engine import Engine
from constellation_docker.packaging.base_image import BaseImage
from constellation_docker.packaging.context import plan_whole_context, stream_context
from constellation_docker.packaging.image import (
    BuiltImage,
    build_image,
)
from constellation_docker.packaging.materials import gather_materials
from constellation_docker.packaging.recipe import ImageRecipe
from constellation_docker.packaging.source import Source
from constellation_docker.settings import IndexSettings, Settings
from constellation_docker_tests.fixtures.engine import PrivateEngine, build_context
from constellation_docker_tests.packaging.images import (
    IMAGE_PREFIX,
    Build,
    ignore,
    make_card,
    make_lock,
    make_recipe,
    make_source,
)
from constellation_docker_tests.packaging.package_index import (
    INDEX_LOGIN,
    locked,
    make_wheel,
    serve_index,
)


@pytest.fixture
def wheel_recipe(
    python_base: BaseImage, source: Source, build_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[ImageRecipe, Settings]]:
    """A recipe whose one package comes from an index with a password."""
    monkeypatch.setenv("INDEX_LOGIN", INDEX_LOGIN)
    name, content = make_wheel("tinything", "1.2")
    lock = make_lock(
        locked("tinything", "1.2", content), ({"name": "tinything", "version": "1.2", "required_by": ()},)
    )
    with serve_index({name: content}) as address:
        settings = build_settings.model_copy(
            update={
                "index": IndexSettings(
                    url=address, credentials={"127.0.0.1": "env:INDEX_LOGIN"}, wheelhouse=None, ca_bundle=None
                )
            }
        )
        yield make_recipe(python_base, source, make_card("tests/wheel"), lock=lock), settings


def content_layers(image: BuiltImage) -> dict[str, str]:
    return {layer.name: layer.digest for layer in image.layers if layer.name != "base"}


def test_an_unchanged_model_is_not_built_again(
    stand_in_image: BuiltImage, python_base: BaseImage, built: Build, tmp_path: Path
) -> None:
    source = make_source(tmp_path / "r", {"config.json": "{}", "model.onnx": b"\x02"})
    recipe = make_recipe(python_base, source, make_card("tests/unchanged"))
    first = built(recipe)
    again = built(recipe)
    assert not first.is_cached
    assert again.is_cached
    assert again.image_id == first.image_id
    assert again.steps == ()
    assert again.recipe_digest == first.recipe_digest == first.labels["constellation.recipe"]


def test_an_image_that_somebody_built_upon_ours_is_not_taken_for_ours(
    python_base: BaseImage, built: Build, engine: Engine, tmp_path: Path
) -> None:
    recipe = make_recipe(
        python_base, make_source(tmp_path / "r", {"model.onnx": b"\x03"}), make_card("tests/ours")
    )
    first = built(recipe)
    theirs = engine.build(
        build_context({"Dockerfile": f"FROM {first.tag}\nENV THEIRS=1\n"}), tag=f"{IMAGE_PREFIX}/theirs:1"
    )
    try:
        assert built(recipe).image_id == first.image_id
    finally:
        engine.remove_image(theirs.image_id, force=True)


def test_the_same_inputs_give_the_same_layers_from_an_empty_cache(
    wheel_recipe: tuple[ImageRecipe, Settings], built: Build, engine: Engine
) -> None:
    recipe, settings = wheel_recipe
    first = built(recipe, settings=settings, is_fresh=True)
    second = built(recipe, settings=settings, is_fresh=True)
    assert list(content_layers(first)) == ["environment", "server", "model", "card"]
    assert content_layers(first) == content_layers(second)
    assert not any(step.is_cached for step in second.steps if "RUN" in step.name)
    engine.remove_image(first.image_id, force=True)


def test_the_same_inputs_give_the_same_layers_on_another_engine(
    wheel_recipe: tuple[ImageRecipe, Settings],
    built: Build,
    engine: Engine,
    second_engine: PrivateEngine,
) -> None:
    recipe, settings = wheel_recipe
    here = built(recipe, settings=settings)
    there_engine = second_engine.connect()
    there_engine.load_image(engine.save_image(recipe.base.reference))
    there = build_image(recipe, there_engine, settings=settings, on_line=ignore)
    assert [layer.digest for layer in there.layers] == [layer.digest for layer in here.layers]


def test_the_dockerfile_alone_gives_the_same_layers(
    wheel_recipe: tuple[ImageRecipe, Settings], built: Build, engine: Engine
) -> None:
    """As `docker buildx build` on a written-out context: one build, and no argument that names an environment."""
    recipe, settings = wheel_recipe
    assert recipe.lock is not None
    image = built(recipe, settings=settings)
    materials = gather_materials(
        recipe.lock,
        settings.index,
        architecture=engine.version.architecture,
        store=settings.home,
        on_line=ignore,
    )
    alone = engine.build(
        stream_context(plan_whole_context(recipe, materials)), tag=f"{IMAGE_PREFIX}/alone:1", network="host"
    )
    facts = engine.require_image(alone.image_id)
    engine.remove_image(alone.image_id, force=True)
    assert list(facts.layers) == [layer.digest for layer in image.layers]
    assert facts.labels.items() <= image.labels.items()


def test_models_with_the_same_lock_share_the_environment_layer(
    python_base: BaseImage, built: Build, stand_in_image: BuiltImage, tmp_path: Path
) -> None:
    source = make_source(tmp_path / "r", {"model.onnx": b"others"})
    other = built(make_recipe(python_base, source, make_card("tests/other", "2.0")))
    ours, theirs = content_layers(stand_in_image), content_layers(other)
    assert ours["environment"] == theirs["environment"]
    assert ours["server"] == theirs["server"]
    assert ours["model"] != theirs["model"]
    assert not any("environment" in step.name and "RUN" in step.name for step in other.steps)


def test_sizes_of_layers_add_up(stand_in_image: BuiltImage) -> None:
    assert sum(layer.size_bytes for layer in stand_in_image.layers) == stand_in_image.size_bytes
    assert next(layer for layer in stand_in_image.layers if layer.name == "model").size_bytes >= 4096


def test_an_image_says_what_it_is(stand_in_image: BuiltImage, engine: Engine) -> None:
    facts = engine.require_image(stand_in_image.tag)
    assert facts.labels["org.opencontainers.image.title"] == "tests/stand-in"
    assert facts.labels["constellation.role"] == "model"
    assert facts.config["User"] == "65532:65532"
    assert facts.config["Healthcheck"]["Test"][0] == "CMD"
    assert facts.config["ExposedPorts"] == {"8080/tcp": {}}
    assert facts.config["StopSignal"] == "SIGTERM"


def unpacked(archive: bytes) -> bytes:
    """All files of a saved image; engines that use containerd's store save layers compressed."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
        files = [packed.extractfile(member) for member in packed if member.isfile()]
        contents = [file.read() for file in files if file is not None]
    return b"".join(gzip.decompress(item) if item.startswith(b"\x1f\x8b") else item for item in contents)


def test_nothing_of_the_build_stays_in_the_image(
    wheel_recipe: tuple[ImageRecipe, Settings], built: Build, engine: Engine
) -> None:
    recipe, settings = wheel_recipe
    lines: list[str] = []
    image = built(recipe, settings=settings, is_fresh=True, on_line=lines.append)
    password = INDEX_LOGIN.partition(":")[2]
    archive = unpacked(b"".join(engine.save_image(image.image_id)))
    assert b"VERSION = '1.2'" in archive
    assert password.encode() not in archive
    assert password not in json.dumps(engine.image_history(image.image_id)) + "\n".join(lines)
    assert password not in image.model_dump_json() + recipe.model_dump_json()
    found = _run(
        engine,
        image.image_id,
        "import os, json, pathlib\n"
        "print(json.dumps([p for p in ('/build', '/var/cache/uv', '/root/.cache', '/usr/bin/gcc', '/env/bin/pip', '/env/bin/uv')"
        " if os.path.exists(p)] + [str(p) for p in pathlib.Path('/env').rglob('pip')]))",
    )
    assert json.loads(found) == []


def test_everything_is_compiled_and_sealed(
    wheel_recipe: tuple[ImageRecipe, Settings], built: Build, engine: Engine
) -> None:
    recipe, settings = wheel_recipe
    image = built(recipe, settings=settings)
    found = json.loads(
        _run(
            engine,
            image.image_id,
            "import importlib.util, json, os, pathlib, tinything\n"
            "roots = [pathlib.Path(p) for p in ('/env', '/server', '/model', '/card')]\n"
            "paths = [p for root in roots for p in [root, *root.rglob('*')]]\n"
            "sources = [p for root in roots[:2] for p in root.rglob('*.py')]\n"
            "bare = [str(p) for p in sources if not os.path.exists(importlib.util.cache_from_source(str(p)))]\n"
            "flags = {open(importlib.util.cache_from_source(str(p)), 'rb').read(8)[4] for p in sources}\n"
            "print(json.dumps({'version': tinything.VERSION, 'bare': bare, 'flags': sorted(flags),\n"
            "  'times': sorted({p.lstat().st_mtime for p in paths}), 'owners': sorted({p.lstat().st_uid for p in paths}),\n"
            "  'writable': [str(p) for p in paths if not p.is_symlink() and p.stat().st_mode & 0o022]}))",
        )
    )
    assert found["version"] == "1.2"
    assert found["bare"] == []
    assert found["flags"] == [1]  # a hash that is not checked: PEP 552
    assert len(found["times"]) == 1
    assert found["owners"] == [0]
    assert found["writable"] == []


def _run(engine: Engine, image: str, program: str) -> str:
    """What a program prints that the image's own Python runs."""
    config = {
        "Image": image,
        "Entrypoint": ["/env/bin/python", "-c", program],
        "Labels": {"constellation.test": "packaging"},
        "HostConfig": {"NetworkMode": "none"},
    }
    with engine.temporary_container(f"constellation-test-look-{os.getpid()}", config) as container:
        engine.start(container)
        code = engine.wait(container, timeout_seconds=60)
        log = engine.logs(container)
        assert code == 0, log
        return log
