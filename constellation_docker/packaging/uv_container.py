"""uv in a throw-away container, where foreign packages may be built.

Building a source distribution, even only to learn what it needs, runs its code. The container has no
capabilities, is limited in memory and processes, and is removed afterwards. It reaches the network, as it
must reach the indexes, and it holds their credentials: what is built could read those, as it could wherever
it is installed from such an index. They are in no configuration that the engine keeps.
"""

from __future__ import annotations

import io
import os
import shlex
import tarfile
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import uv

from constellation_docker.engine import DeadlineExceeded, Engine, NotFound
from constellation_docker.packaging.base_image import BaseImage
from constellation_docker.packaging.child_process import Finished, without_secrets
from constellation_docker.packaging.lock_errors import LockError
from constellation_docker.packaging.uv_program import UV_VARIABLES, index_access, timed_out
from constellation_docker.settings import IndexSettings

LABEL = "constellation.resolver"
"""Holds the number of the process that resolves."""
_PLACE = "/tmp/resolver"  # noqa: S108 - inside the container
_MEMORY_BYTES = 2 * 1024**3
_PIDS = 512


class ContainerUv:
    """uv on an engine, in a container of the Python base image.

    Args:
        engine: The engine.
        base: The base image that the lock is for.
        settings: Indexes, wheelhouse, certificates.
        timeout_seconds: Longest that one run may take.
        network: Network mode, for sites that need one; None for the engine's default.
        program: A uv that runs on the engine (None: this installation's own).
    """

    may_build = True

    def __init__(
        self,
        engine: Engine,
        base: BaseImage,
        settings: IndexSettings,
        *,
        timeout_seconds: float = 600,
        network: str | None = None,
        program: Path | None = None,
    ) -> None:
        self._engine = engine
        self._base = base
        self._settings = settings
        self._timeout_seconds = timeout_seconds
        self._network = network
        self._program = program or Path(uv.find_uv_bin())
        self._access = index_access(settings)

    def run(self, arguments: Sequence[str], files: Mapping[str, str]) -> Finished:
        """See `UvRunner`."""
        wheelhouse = ["--find-links", f"{_PLACE}/wheelhouse"] if self._settings.wheelhouse else []
        command = [
            "./uv",
            *arguments,
            *self._access.arguments,
            *wheelhouse,
            "--python",
            str(self._base.python_path),
        ]
        # Output comes back in files: a container's log may be cut, or kept, by its driver.
        script = (
            f"cd {_PLACE} && set -a && . ./variables && rm variables && set +a && "
            f"{shlex.join(command)} >answer 2>complaint; echo $? >code"
        )
        name = f"constellation-resolver-{uuid.uuid4().hex[:12]}"
        with self._engine.temporary_container(name, self._configuration(script)) as container:
            self._engine.put_archive(container, "/tmp", self._archive(files))  # noqa: S108
            self._engine.start(container)
            try:
                self._engine.wait(container, timeout_seconds=self._timeout_seconds)
                code = int(self._read(container, "code"))
                complaint = self._read(container, "complaint").decode(errors="replace")
                answer = self._read(container, "answer")
            except DeadlineExceeded:
                raise timed_out() from None
            except (NotFound, ValueError):
                raise LockError(
                    "The container that resolves the dependencies ended without an answer.",
                    remedy="Look at the engine's log; it may have been out of memory.",
                ) from None
        return Finished(code, answer, without_secrets(complaint, self._access.secrets))

    def _configuration(self, script: str) -> dict[str, object]:
        host: dict[str, object] = {
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "Memory": _MEMORY_BYTES,
            "PidsLimit": _PIDS,
        }
        if self._network:
            host["NetworkMode"] = self._network
        return {
            "Image": self._base.reference,
            "Cmd": ["/bin/sh", "-c", script],
            "Entrypoint": [],
            "User": "65532:65532",
            "Labels": {LABEL: str(os.getpid())},
            "HostConfig": host,
        }

    def _archive(self, files: Mapping[str, str]) -> bytes:
        variables = {
            **UV_VARIABLES,
            **self._access.variables,
            "HOME": _PLACE,
            "UV_CACHE_DIR": f"{_PLACE}/cache",
        }
        if self._settings.ca_bundle:
            variables["SSL_CERT_FILE"] = f"{_PLACE}/ca.pem"
        lines = "".join(f"{name}={shlex.quote(value)}\n" for name, value in variables.items())
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            _add_directory(archive, "resolver")
            _add(archive, "resolver/uv", self._program.read_bytes(), mode=0o755)
            for name, text in {**files, "variables": lines}.items():
                _add(archive, f"resolver/{name}", text.encode())
            if self._settings.ca_bundle:
                _add(archive, "resolver/ca.pem", self._settings.ca_bundle.read_bytes())
            if self._settings.wheelhouse:
                _add_directory(archive, "resolver/wheelhouse")
                for wheel in sorted(self._settings.wheelhouse.iterdir()):
                    if wheel.is_file():
                        archive.add(wheel, f"resolver/wheelhouse/{wheel.name}", filter=_owned)
        return buffer.getvalue()

    def _read(self, container: str, name: str) -> bytes:
        packed = self._engine.get_archive(container, f"{_PLACE}/{name}")
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            opened = archive.extractfile(name)
            return opened.read() if opened else b""


def _owned(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 65532
    return entry


def _add(archive: tarfile.TarFile, name: str, content: bytes, *, mode: int = 0o644) -> None:
    entry = _owned(tarfile.TarInfo(name))
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))


def _add_directory(archive: tarfile.TarFile, name: str) -> None:
    entry = _owned(tarfile.TarInfo(name))
    entry.type, entry.mode = tarfile.DIRTYPE, 0o755
    archive.addfile(entry)
