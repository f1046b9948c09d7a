"""Building images on a real engine: the same inputs give the same layers, and bad days end well."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from constellation_docker.engine import BuildCancelled, BuildFailed, DiskFull, Engine
from constellation_docker.packaging.base_image import BaseImage
from constellation_docker.packaging.context import plan_whole_context, stream_context
from constellation_docker.packaging.image import (
    ENVIRONMENT_LABEL,
    ROLE_LABEL,
    BuiltImage,
    build_image,
    remove_unused_environments,
)
from constellation_docker.packaging.materials import gather_materials
from constellation_docker.packaging.recipe import ImageRecipe
from constellation_docker.packaging.runtime import Runtime
from constellation_docker.packaging.source import Source
from constellation_docker.packaging.verification import verify_image
from constellation_docker.settings import IndexSettings, Settings, VerificationSettings
from constellation_docker_tests.fixtures.deadline import wait_for
from constellation_docker_tests.fixtures.engine import PrivateEngine, build_context
from constellation_docker_tests.packaging.images import (
    IMAGE_PREFIX,
    TRIAL_ID,
    make_card,
    make_choice,
    make_lock,
    make_recipe,
    make_source,
)
from constellation_docker_tests.packaging.package_index import (
    INDEX_LOGIN,
    locked,
    make_broken_sdist,
    make_wheel,
    serve_index,
)

Build = Callable[..., BuiltImage]


def ignore(_: str) -> None:
    """An `on_line`."""


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return make_source(tmp_path / "repository", {"config.json": "{}", "model.onnx": b"\x01" * 2048})


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


OWN_SERVER = """
import http.server, json, signal, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"fine")
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200); self.send_header("Content-Type", "application/json"); self.end_headers()
        self.wfile.write(json.dumps([[{"label": "POSITIVE", "score": 0.8}]]).encode())
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
http.server.ThreadingHTTPServer(("0.0.0.0", 9000), Handler).serve_forever()
"""


def own_recipe(base: BaseImage, folder: Path, dockerfile: str, **serving: Any) -> ImageRecipe:
    source = make_source(folder, {"docker/Dockerfile": dockerfile, "server.py": OWN_SERVER})
    card = make_card(
        "tests/own",
        constellation={
            "runtime": "dockerfile",
            "dockerfile": "docker/Dockerfile",
            "port": 9000,
            "health_path": "/up",
            **serving,
        },
    )
    return make_recipe(base, source, card, choice=make_choice(Runtime.DOCKERFILE), lock=None)


@pytest.fixture(scope="module")
def own_image(python_base: BaseImage, built: Build, tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    dockerfile = (
        f"FROM {python_base.reference}\nCOPY server.py /srv/\n"
        f'CMD ["{python_base.python_path}", "/srv/server.py"]\n'
    )
    return built(own_recipe(python_base, tmp_path_factory.mktemp("own"), dockerfile))


def test_a_repositorys_own_dockerfile_is_honoured(own_image: BuiltImage, engine: Engine) -> None:
    facts = engine.require_image(own_image.tag)
    assert own_image.has_own_server
    assert facts.config["Cmd"][-1] == "/srv/server.py"
    assert facts.config["User"] == "65532:65532"
    assert "http://127.0.0.1:9000/up" in " ".join(facts.config["Healthcheck"]["Test"])
    assert facts.labels["constellation.port"] == "9000"
    assert facts.labels["constellation.runtime"] == "dockerfile"
    left = [name for image in engine.list_images({ROLE_LABEL: "own"}) for name in image.tags]
    assert not [name for name in left if name.startswith(f"{IMAGE_PREFIX}/")]


def test_an_image_with_a_server_of_its_own_is_verified_too(own_image: BuiltImage, engine: Engine) -> None:
    card = make_card("tests/own", constellation={"runtime": "dockerfile", "port": 9000, "health_path": "/up"})
    report = verify_image(
        own_image, card, engine, model_id=TRIAL_ID, settings=VerificationSettings(), on_line=ignore
    )
    assert report.passed, [check.message for check in report.failures]
    assert report.check("rejects_malformed_input").is_skipped
    assert "POSITIVE" in report.check("answers_examples").received


def test_a_dockerfile_that_fails_ends_with_its_step_and_its_last_lines(
    python_base: BaseImage, engine: Engine, build_settings: Settings, tmp_path: Path
) -> None:
    dockerfile = f"FROM {python_base.reference}\nRUN echo first line >&2 && echo the reason >&2 && exit 4\n"
    with pytest.raises(BuildFailed) as caught:
        build_image(
            own_recipe(python_base, tmp_path, dockerfile), engine, settings=build_settings, on_line=ignore
        )
    assert caught.value.message.startswith("The image of tests/own@1.0 cannot be built")
    assert "RUN echo first line" in caught.value.message
    assert "the reason" in caught.value.message
    assert list(caught.value.log_tail) == ["first line", "the reason"]


def test_a_ready_made_image_is_adopted(
    python_base: BaseImage, own_image: BuiltImage, built: Build, engine: Engine
) -> None:
    card = make_card(
        "tests/ready-made",
        constellation={"runtime": "image", "image": own_image.tag, "port": 9000, "health_path": "/up"},
    )
    recipe = make_recipe(python_base, None, card, choice=make_choice(Runtime.IMAGE), lock=None)
    image = built(recipe)
    labels = engine.require_image(image.tag).labels
    assert labels["constellation.model"] == "tests/ready-made"
    assert labels["constellation.runtime"] == "image"
    assert (
        image.layers[: len(own_image.layers)] == own_image.layers or image.size_bytes == own_image.size_bytes
    )


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
    large = make_source(tmp_path / "large", {"model.onnx": os.urandom(150 * 1024 * 1024)})
    with pytest.raises(DiskFull, match="is full"):
        build_image(
            make_recipe(python_base, large, make_card("tests/large")),
            small,
            settings=build_settings,
            on_line=ignore,
        )
    # What the error says to do: free space. The build's own leftovers are in the engine's cache.
    with httpx.Client(transport=httpx.HTTPTransport(uds=small.url.removeprefix("unix://"))) as client:

        def pruned() -> bool:  # not before the engine has let go of what the failed build held
            client.post("http://engine/build/prune?all=1", timeout=60).raise_for_status()
            return shutil.disk_usage(disk).free > free_before * 0.9

        wait_for(pruned, seconds=60, what="the pruned build cache")
    fitting = make_source(tmp_path / "fitting", {"model.onnx": b"x"})
    recipe = make_recipe(python_base, fitting, make_card("tests/fitting"))
    assert build_image(recipe, small, settings=build_settings, on_line=ignore).size_bytes > 0


def test_environments_that_no_model_uses_are_removed(
    python_base: BaseImage, engine: Engine, build_settings: Settings, tmp_path: Path
) -> None:
    prefix = f"{IMAGE_PREFIX}-{os.getpid()}"
    settings = build_settings.model_copy(
        update={"build": build_settings.build.model_copy(update={"image_prefix": prefix})}
    )
    source = make_source(tmp_path / "r", {"model.onnx": b"x"})
    recipe = make_recipe(python_base, source, make_card("tests/gone"), lock=make_lock(f"# {prefix}\n"))
    image = build_image(recipe, engine, settings=settings, on_line=ignore)
    (name,) = engine.list_images({ENVIRONMENT_LABEL: recipe.environment_digest, ROLE_LABEL: "environment"})[
        0
    ].tags
    assert name not in remove_unused_environments(engine, prefix=prefix)
    engine.remove_image(image.tag)
    assert name in remove_unused_environments(engine, prefix=prefix)
    assert engine.image(name) is None


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
