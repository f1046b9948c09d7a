"""What assembling an environment needs beside its lock: uv, package indexes, wheels, certificates, credentials.

None of it reaches a layer, a label or an image's history: it is sent in the part of the context that build
steps mount. Credentials are resolved here, at the last moment, and are in nothing that is printed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import uv
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from constellation_docker.errors import ConstellationError
from constellation_docker.packaging.lock import DependencyLock
from constellation_docker.packaging.uv_program import index_access
from constellation_docker.settings import IndexSettings

_ELF_MACHINES = {62: "amd64", 183: "arm64"}
_UV_PLATFORMS = {"amd64": "x86_64-manylinux_2_17", "arm64": "aarch64-manylinux_2_17"}


class UvUnavailable(ConstellationError):
    """There is no uv for the engine's platform, and none could be fetched."""

    code = "uv_unavailable"


@dataclass(frozen=True)
class BuildMaterials:
    """What only the assembly of an environment sees.

    Attributes:
        uv: The uv program for the engine's platform.
        arguments: uv's arguments that name the indexes.
        ca_bundle: Certificates to trust, or None.
        credentials: Credentials of package indexes, as uv reads them from its environment.
        wheels: Wheels that the lock may need.
    """

    uv: Path
    arguments: tuple[str, ...] = ()
    ca_bundle: Path | None = None
    credentials: dict[str, str] = field(default_factory=dict, repr=False)
    wheels: tuple[Path, ...] = ()


def gather_materials(
    lock: DependencyLock,
    settings: IndexSettings,
    *,
    architecture: str,
    store: Path,
    on_line: Callable[[str], None],
) -> BuildMaterials:
    """Collect what the engine needs to install a lock.

    Args:
        lock: The lock that will be installed.
        settings: Package indexes.
        architecture: The engine's, as `amd64`.
        store: Directory where a uv for another platform is kept.
        on_line: Told when something is fetched.

    Raises:
        InvalidInput: A credential cannot be read; it names the reference.
        UvUnavailable: There is no uv for that architecture.
    """
    wheels = choose_wheels(lock, sorted(settings.wheelhouse.glob("*.whl")) if settings.wheelhouse else [])
    access = index_access(settings)
    return BuildMaterials(
        uv=find_uv(architecture, store, settings, on_line),
        arguments=(*access.arguments, *_torch_arguments(lock, wheels, settings)),
        ca_bundle=settings.ca_bundle,
        credentials=access.variables,
        wheels=wheels,
    )


def _torch_arguments(lock: DependencyLock, wheels: tuple[Path, ...], settings: IndexSettings) -> list[str]:
    """Where torch comes from: the wheelhouse where it has one, else PyTorch's own index, as it was locked."""
    is_locked = any(canonicalize_name(package.name) == "torch" for package in lock.packages)
    is_at_hand = any(wheel.name.startswith("torch-") for wheel in wheels)
    return ["--torch-backend", settings.torch_backend] if is_locked and not is_at_hand else []


def choose_wheels(lock: DependencyLock, wheels: list[Path]) -> tuple[Path, ...]:
    """Of a wheelhouse, the wheels of packages and versions that the lock names."""
    locked = {(canonicalize_name(package.name), package.version) for package in lock.packages}
    chosen = []
    for wheel in wheels:
        try:
            name, wheel_version, _, _ = parse_wheel_filename(wheel.name)
        except InvalidWheelFilename:
            continue
        if (name, str(wheel_version)) in locked:
            chosen.append(wheel)
    return tuple(chosen)


def find_uv(architecture: str, store: Path, settings: IndexSettings, on_line: Callable[[str], None]) -> Path:
    """A uv program that runs on the engine: this installation's own, or one fetched for that platform.

    Raises:
        UvUnavailable: Neither is to be had.
    """
    own = Path(uv.find_uv_bin())
    if sys.platform == "linux" and _machine_of(own) == architecture:
        return own
    kept = store / "uv" / f"{version('uv')}-{architecture}" / "uv"
    if kept.is_file():
        return kept
    platform = _UV_PLATFORMS.get(architecture)
    if platform is None:
        raise UvUnavailable(
            f"There is no uv for engines on {architecture}.",
            remedy="Use an engine on amd64 or arm64.",
            architecture=architecture,
        )
    on_line(f"Fetching uv {version('uv')} for {architecture}")
    with tempfile.TemporaryDirectory() as place:
        command = [str(own), "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:"]
        command += ["--target", place, "--python-platform", platform, f"uv=={version('uv')}"]
        access = index_access(settings)
        command += access.arguments
        finished = subprocess.run(
            command, env={**os.environ, **access.variables}, check=False, capture_output=True, text=True
        )
        fetched = Path(place) / "bin" / "uv"
        if finished.returncode or not fetched.is_file():
            raise UvUnavailable(
                f"uv {version('uv')} for {architecture} cannot be fetched: {finished.stderr.strip()[-300:]}",
                remedy="Check the package index in the settings (index.url).",
                architecture=architecture,
            )
        kept.parent.mkdir(parents=True, exist_ok=True)
        part = kept.with_name(f"{kept.name}.part")
        shutil.copy(fetched, part)
        part.replace(kept)
    return kept


def _machine_of(program: Path) -> str | None:
    """The architecture of an ELF program, from its header (System V ABI, `e_machine`)."""
    with program.open("rb") as opened:
        header = opened.read(20)
    if header[:4] != b"\x7fELF":
        return None
    return _ELF_MACHINES.get(int.from_bytes(header[18:20], "little"))
