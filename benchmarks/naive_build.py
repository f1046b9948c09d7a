"""The build that a team writes first: copy the repository, then `pip install`. What ours is measured against.

It gets every advantage that does not change what it is: the same base image, pip and the site's certificates put
there beforehand, and wheels that a site keeps locally (torch without CUDA) without a download.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import uv

from constellation_docker.engine import BuildResult, Engine
from constellation_docker.packaging.base_image import BaseImage
from constellation_docker.packaging.context import ContextFile, stream_context
from constellation_docker.settings import IndexSettings

LABELS: Final = {"constellation.benchmark": "packaging"}
PLATFORM_NAME: Final = "constellation-benchmark/naive-base"

_BASE = """\
FROM {base}
COPY site/ /opt/site/
ENV PYTHONPATH=/opt/site/pip PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore \\
    PIP_BREAK_SYSTEM_PACKAGES=1{more}
"""
_DOCKERFILE = """\
FROM {base}
WORKDIR /app
COPY . .
RUN {python} -m pip install -r requirements.txt
CMD ["{python}", "-m", "server"]
"""


def prepare_platform(
    engine: Engine,
    base: BaseImage,
    index: IndexSettings,
    *,
    wheels: Sequence[Path] = (),
    on_line: Callable[[str], None] = lambda line: None,
) -> str:
    """Build the image that the naive Dockerfile starts from; this is not part of what is timed.

    Args:
        engine: Where.
        base: The base image that our images are built upon.
        index: The site's package index and certificates.
        wheels: Wheels to lay beside pip, where it finds them without an index.
        on_line: Gets the build's output.

    Returns:
        Its name.
    """
    variables = {}
    if index.url:
        variables["PIP_INDEX_URL"] = index.url
    if index.extra_urls:
        variables["PIP_EXTRA_INDEX_URL"] = " ".join(index.extra_urls)
    with tempfile.TemporaryDirectory() as place:
        _fetch_pip(Path(place))
        files = [
            ContextFile.of_path(f"site/pip/{path.relative_to(place).as_posix()}", path)
            for path in sorted(Path(place).rglob("*"))
            if path.is_file()
        ]
        if index.ca_bundle:
            files.append(ContextFile.of_path("site/ca.crt", index.ca_bundle))
            variables["PIP_CERT"] = "/opt/site/ca.crt"
        for wheel in wheels:
            files.append(ContextFile.of_path(f"site/wheels/{wheel.name}", wheel))
            variables["PIP_FIND_LINKS"] = "/opt/site/wheels"
        more = "".join(f' {name}="{value}"' for name, value in sorted(variables.items()))
        files.append(
            ContextFile.of_content("Dockerfile", _BASE.format(base=base.reference, more=more).encode())
        )
        engine.build(stream_context(files), tag=PLATFORM_NAME, labels=LABELS, on_line=on_line)
    return PLATFORM_NAME


def build_naively(
    engine: Engine,
    repository: Path,
    *,
    platform: str,
    python: str,
    requirements: Sequence[str],
    tag: str,
    network: str | None = None,
    is_fresh: bool = False,
    on_line: Callable[[str], None] = lambda line: None,
) -> BuildResult:
    """Build a repository with a Dockerfile that copies everything and then installs.

    Args:
        engine: Where.
        repository: The repository's directory.
        platform: What `prepare_platform` returned.
        python: The base image's Python.
        requirements: What to install: what the runtime of our own image is locked from.
        tag: The image's name.
        network: Network mode of `RUN` steps.
        is_fresh: Build without the engine's cache.
        on_line: Gets the build's output.
    """
    text = "".join(f"{line}\n" for line in requirements)
    files = [
        ContextFile.of_path(path.relative_to(repository).as_posix(), path)
        for path in sorted(repository.rglob("*"))
        if path.is_file() and ".git" not in path.relative_to(repository).parts
    ]
    files = [file for file in files if file.path not in {"Dockerfile", "requirements.txt"}]
    dockerfile = _DOCKERFILE.format(base=platform, python=python)
    files += [
        ContextFile.of_content("Dockerfile", dockerfile.encode()),
        ContextFile.of_content("requirements.txt", text.encode()),
    ]
    return engine.build(
        stream_context(files),
        tag=tag,
        labels=LABELS,
        network=network,
        no_cache=is_fresh,
        on_line=on_line,
    )


def _fetch_pip(place: Path) -> None:
    """The newest pip that the index has, else the one that comes with this Python."""
    command = [uv.find_uv_bin(), "pip", "install", "--quiet", "--target", str(place), "pip"]
    if subprocess.run(command, check=False, capture_output=True, env=os.environ).returncode == 0:
        return
    ensurepip = importlib.util.find_spec("ensurepip")
    assert ensurepip and ensurepip.origin
    (wheel,) = Path(ensurepip.origin).parent.glob("_bundled/pip-*.whl")
    subprocess.run(["python3", "-m", "zipfile", "-e", str(wheel), str(place)], check=True)
