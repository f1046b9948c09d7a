"""Builds that fail, are cancelled or killed, or fill the disk: told in one sentence, and the next one ends right."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from constellation_docker.engine import BuildCancelled, BuildFailed, DiskFull, Engine
from constellation_docker.packaging.base_image import BaseImage
from constellation_docker.packaging.image import (
    build_image,
)
from constellation_docker.packaging.source import Source
from constellation_docker.settings import IndexSettings, Settings
from constellation_docker_tests.fixtures.deadline import wait_for
from constellation_docker_tests.fixtures.engine import PrivateEngine
from constellation_docker_tests.packaging.images import (
    Build,
    ignore,
    make_card,
    make_lock,
    make_recipe,
    make_source,
    own_recipe,
)
from constellation_docker_tests.packaging.package_index import (
    INDEX_LOGIN,
    locked,
    make_broken_sdist,
    serve_index,
)


def test_a_package_that_needs_a_compiler_is_named(
    python_base: BaseImage,
    source: Source,
    build_settings: Settings,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("INDEX_LOGIN", INDEX_LOGIN)
    name, content = make_broken_sdist("needsgcc", "3.1")
    lock = make_lock(
        locked("needsgcc", "3.1", content), ({"name": "needsgcc", "version": "3.1", "required_by": ()},)
    )
    with serve_index({name: content}) as address, pytest.raises(BuildFailed) as caught:
        index = IndexSettings(
            url=address, credentials={"127.0.0.1": "env:INDEX_LOGIN"}, wheelhouse=None, ca_bundle=None
        )
        build_image(
            make_recipe(python_base, source, lock=lock),
            engine,
            settings=build_settings.model_copy(update={"index": index}),
            on_line=ignore,
        )
    assert "tests/stand-in@1.0" in caught.value.message
    assert "needsgcc 3.1 has no wheel for this Python" in caught.value.message
    assert "no compiler" in caught.value.message
    assert any("gcc" in line for line in caught.value.log_tail)


def test_a_package_that_the_index_lacks_is_named(
    python_base: BaseImage,
    source: Source,
    build_settings: Settings,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("INDEX_LOGIN", INDEX_LOGIN)
    lock = make_lock(
        locked("gonething", "1.0", b"x"), ({"name": "gonething", "version": "1.0", "required_by": ()},)
    )
    with (
        serve_index({}) as address,
        pytest.raises(BuildFailed, match=r"tests/stand-in@1\.0 cannot be built") as caught,
    ):
        index = IndexSettings(
            url=address, credentials={"127.0.0.1": "env:INDEX_LOGIN"}, wheelhouse=None, ca_bundle=None
        )
        build_image(
            make_recipe(python_base, source, lock=lock),
            engine,
            settings=build_settings.model_copy(update={"index": index}),
            on_line=ignore,
        )
    assert any("gonething" in line for line in caught.value.log_tail)


def test_a_cancelled_build_ends_and_the_next_one_ends_right(
    python_base: BaseImage, engine: Engine, build_settings: Settings, built: Build, tmp_path: Path
) -> None:
    dockerfile = f"FROM {python_base.reference}\nRUN echo begun && sleep 60\n"
    begun: list[bool] = []

    def follow(line: str) -> None:
        if line.endswith("begun"):
            begun.append(True)

    with pytest.raises(BuildCancelled):
        build_image(
            own_recipe(python_base, tmp_path / "slow", dockerfile),
            engine,
            settings=build_settings,
            on_line=follow,
            is_cancelled=lambda: bool(begun),
        )
    quick = f"FROM {python_base.reference}\nCOPY server.py /srv/\n"
    assert built(own_recipe(python_base, tmp_path / "quick", quick)).size_bytes > 0


def test_a_build_killed_with_sigkill_leaves_nothing_that_is_taken_for_an_image(
    python_base: BaseImage, engine: Engine, build_settings: Settings, built: Build, tmp_path: Path
) -> None:
    source = make_source(tmp_path / "repository", {"model.onnx": os.urandom(1024)})
    lock = make_lock(f"# {os.getpid()}\n")  # an environment of its own
    recipe = make_recipe(python_base, source, make_card("tests/killed"), lock=lock)
    (tmp_path / "recipe.json").write_text(recipe.model_dump_json())
    (tmp_path / "settings.json").write_text(build_settings.model_dump_json())
    program = (
        "import sys\n"
        "from constellation_docker.engine import Engine\n"
        "from constellation_docker.packaging.image import build_image\n"
        "from constellation_docker.packaging.recipe import ImageRecipe\n"
        "from constellation_docker.settings import Settings\n"
        f"recipe = ImageRecipe.model_validate_json(open({str(tmp_path / 'recipe.json')!r}).read())\n"
        f"settings = Settings.model_validate_json(open({str(tmp_path / 'settings.json')!r}).read())\n"
        f"build_image(recipe, Engine.connect({engine.url!r}), settings=settings,\n"
        "            on_line=lambda line: print(line, flush=True))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "RUN" in line:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert engine.list_images({"constellation.recipe": recipe.digest}) == ()
    image = built(recipe)
    assert not image.is_cached
    assert built(recipe).is_cached


def test_a_full_disk_is_told_of_and_the_next_build_ends_right(
    python_base: BaseImage,
    engine: Engine,
    small_engine: PrivateEngine,
    build_settings: Settings,
    tmp_path: Path,
) -> None:
    small = small_engine.connect()
    small.load_image(engine.save_image(python_base.reference))
    disk = small_engine.folder / "data"
    free_before = shutil.disk_usage(disk).free
    else_there = disk / "something-else"
    else_there.write_bytes(bytes(10 * 1024 * 1024))
    large = make_source(tmp_path / "large", {"model.onnx": os.urandom(150 * 1024 * 1024)})
    with pytest.raises(DiskFull, match="is full"):
        build_image(
            make_recipe(python_base, large, make_card("tests/large")),
            small,
            settings=build_settings,
            on_line=ignore,
        )
    # What the error says to do: free space. The build's own leftovers are in the engine's cache, whose index grows
    # when it is pruned: on a disk without a free byte the engine cannot even do that.
    else_there.unlink()
    with httpx.Client(transport=httpx.HTTPTransport(uds=small.url.removeprefix("unix://"))) as client:

        def pruned() -> bool:  # not before the engine has let go of what the failed build held
            client.post("http://engine/build/prune?all=1", timeout=60)
            return shutil.disk_usage(disk).free > free_before * 0.9

        wait_for(pruned, seconds=60, what="the pruned build cache")
    fitting = make_source(tmp_path / "fitting", {"model.onnx": b"x"})
    recipe = make_recipe(python_base, fitting, make_card("tests/fitting"))
    assert build_image(recipe, small, settings=build_settings, on_line=ignore).size_bytes > 0
