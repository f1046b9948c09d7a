"""Images of a stand-in server: quick to build, without any package, and as good or bad as a test wants."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from constellation_docker.cards import ModelCard
from constellation_docker.engine import Engine
from constellation_docker.packaging.base_image import BaseImage
from constellation_docker.packaging.image import BuiltImage, build_image
from constellation_docker.packaging.lock import DependencyLock
from constellation_docker.packaging.recipe import ImageRecipe, plan_image, read_server_tree
from constellation_docker.packaging.runtime import Runtime, RuntimeChoice
from constellation_docker.packaging.source import Source
from constellation_docker.packaging.tree import SourceFile
from constellation_docker.settings import BuildSettings, IndexSettings, Settings
from constellation_docker_tests.fixtures.engine import IMAGE_PREFIX

STAND_IN = Path(__file__).with_name("stand_in_server")
MODEL_ID = "0b5c1a52-6d7e-4a55-9a57-2f0f4b7f8f10"
TRIAL_ID = str(uuid.uuid4())
"""The row whose images are tried: one for each process, as tests in different ones share an engine."""

Build = Callable[..., BuiltImage]

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


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def make_source(folder: Path, files: Mapping[str, str | bytes]) -> Source:
    """A fetched repository with these files."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for path, content in sorted(files.items()):
        data = content.encode() if isinstance(content, str) else content
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
        rows.append(SourceFile(path=path, size_bytes=len(data), sha256=sha256(data)))
    return Source(
        kind="directory",
        url=f"file://{folder}",
        requested_revision=None,
        commit=sha256(repr(rows).encode())[:40],
        digest=f"sha256:{sha256(repr(rows).encode())}",
        path=folder,
        size_bytes=sum(row.size_bytes for row in rows),
        files=tuple(rows),
        readme=None,
        seconds=0.0,
    )


def make_card(name: str = "tests/stand-in", version: str = "1.0", **fields: Any) -> ModelCard:
    """A card; `constellation` and every other field as in a registration."""
    given = {
        "description": "Says good or bad.",
        "data_used": "",
        "dependencies": [],
        "pipeline_tag": "text-classification",
        "license": "apache-2.0",
        "widget": [{"text": "All good.", "output": [{"label": "POSITIVE", "score": 1.0}]}],
        **fields,
    }
    return ModelCard.from_registration(
        {
            "model_name": name,
            "model_version": version,
            "repo_url": "https://git.example/tests/stand-in",
            "branch": None,
            "model_card": given,
        }
    )


def make_lock(text: str = "# nothing\n", packages: tuple[Any, ...] = ()) -> DependencyLock:
    return DependencyLock(
        digest=f"sha256:{sha256(text.encode())}",
        text=text,
        packages=packages,
        python="3.11",
        platform="linux/amd64",
        inputs=(),
        seconds=0.0,
    )


def make_choice(runtime: Runtime = Runtime.ONNX, **fields: Any) -> RuntimeChoice:
    return RuntimeChoice(
        runtime=runtime, **{"reason": "The test says so.", "task": "text-classification", **fields}
    )


def make_recipe(
    base: BaseImage, source: Source | None, card: ModelCard | None = None, **fields: Any
) -> ImageRecipe:
    """A recipe of the stand-in server."""
    given = {"lock": make_lock(), "choice": make_choice(), **fields}
    return plan_image(
        card or make_card(),
        source,
        given["lock"],
        given["choice"],
        base,
        model_id=MODEL_ID,
        server=read_server_tree(STAND_IN),
    )


def own_recipe(base: BaseImage, folder: Path, dockerfile: str, **serving: Any) -> ImageRecipe:
    """A recipe of a repository with a Dockerfile of its own, and OWN_SERVER beside it."""
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


def ignore(_: str) -> None:
    """An `on_line`."""


@pytest.fixture
def source(tmp_path: Path) -> Source:
    """A fetched repository of a small model."""
    return make_source(tmp_path / "repository", {"config.json": "{}", "model.onnx": b"\x01" * 2048})


@pytest.fixture(scope="session")
def build_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings of builds in tests: the host's network, which every engine has."""
    return Settings(
        home=tmp_path_factory.mktemp("home"),
        build=BuildSettings(network="host", image_prefix=IMAGE_PREFIX),
        index=IndexSettings(wheelhouse=None),
    )


@pytest.fixture(scope="session")
def built(engine: Engine, build_settings: Settings) -> Build:
    """Builds a recipe; every image loses its names when the tests end."""

    def build(recipe: ImageRecipe, **fields: Any) -> BuiltImage:
        return build_image(
            recipe, engine, **{"settings": build_settings, "on_line": lambda _: None, **fields}
        )

    return build


@pytest.fixture(scope="session")
def stand_in_image(
    python_base: BaseImage,
    built: Callable[..., BuiltImage],
    tmp_path_factory: pytest.TempPathFactory,
) -> BuiltImage:
    """The stand-in server's image. It behaves as a card's variable `BEHAVIOUR` says.

    Its files name the process, so that no other process's image is the same, names and all.
    """
    files = {"config.json": f'{{"made_for": "{IMAGE_PREFIX}"}}', "model.onnx": b"\x00" * 4096}
    source = make_source(tmp_path_factory.mktemp("stand-in"), files)
    return built(make_recipe(python_base, source))
