"""Base images of Debian packages: mmdebstrap unpacks, `debian_rootfs` seals, the engine loads.

The image is loaded, not imported: an import stamps its own time into the image, and its id would differ each time.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from constellation_docker.engine import Engine
from constellation_docker.errors import ConstellationError
from constellation_docker.packaging.apt_sources import plan_sources, read_machine_sources
from constellation_docker.packaging.debian_rootfs import (
    EPOCH,
    USER_ID,
    Recipe,
    SealedLayer,
    render_command,
    render_hook,
    seal_layer,
)

LABEL = "constellation.base"
BALANCER_COMMAND = ["haproxy", "-W", "-db", "-f", "/etc/haproxy/haproxy.cfg"]
INSTALL_SECONDS = 900.0
APT_LOCK = Path("/var/cache/apt/constellation.lock")  # the same as deploy/bootstrap_engine.py's
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class BaseImageUnavailable(ConstellationError):
    """A base image can be had neither from a registry nor from Debian packages."""

    code = "base_image_unavailable"


class DebianMirrorUnreachable(BaseImageUnavailable):
    """The Debian mirror does not answer."""

    code = "debian_mirror_unreachable"
    is_transient: ClassVar[bool] = True


def load_debian_image(
    engine: Engine, recipe: Recipe, repository: str, mirror: str | None, on_line: Callable[[str], None]
) -> str:
    """Make an image of Debian packages and load it into an engine.

    Args:
        engine: Where it is wanted.
        recipe: What it is made of.
        repository: Its name, with a colon at the end.
        mirror: Debian mirror; None: this machine's own sources.
        on_line: Told of what is done.

    Returns:
        The image's name, whose tag carries the image's own digest.

    Raises:
        BaseImageUnavailable: mmdebstrap is missing or fails.
        DebianMirrorUnreachable: The mirror does not answer (transient).
    """
    _require_mmdebstrap(on_line)
    on_line(f"Unpacking Debian {recipe.suite} packages for the {recipe.kind} base image.")
    with tempfile.TemporaryDirectory(prefix="constellation-base-") as folder:
        Path(folder).chmod(0o711)  # apt downloads as a user of its own
        unpacked, layer = Path(folder, "unpacked.tar"), Path(folder, "layer.tar")
        _unpack(recipe, unpacked, mirror, on_line)
        sealed = seal_layer(unpacked, layer, recipe.kind)
        unpacked.unlink()
        config = render_image_config(recipe, sealed)
        digest = hashlib.sha256(config).hexdigest()
        tag = f"{repository}{recipe.suite}-{digest[:16]}"
        on_line(f"Loading {tag} ({sealed.size_bytes / 1e6:.0f} MB).")
        engine.load_image(_pack_image(tag, config, digest, layer))
    return tag


def render_image_config(recipe: Recipe, sealed: SealedLayer) -> bytes:
    """The image's configuration, without the time of its making, so that equal layers give equal image ids.

    Format: https://github.com/moby/docker-image-spec/blob/v1.3.1/spec.md
    """
    labels = {
        f"{LABEL}.kind": recipe.kind,
        f"{LABEL}.recipe": recipe.digest,
        f"{LABEL}.suite": recipe.suite,
        f"{LABEL}.libc": f"manylinux_{(sealed.libc_version or '2.17').replace('.', '_')}",
    }
    config: dict[str, Any] = {"Env": [f"PATH={_PATH}", "LANG=C.UTF-8"], "Labels": labels}
    if recipe.kind == "python":
        labels[f"{LABEL}.python-version"] = sealed.python_version or ""
        labels[f"{LABEL}.python-path"] = sealed.python_path or ""
        config["Cmd"] = ["python3"]
    else:
        config |= {"Cmd": BALANCER_COMMAND, "StopSignal": "SIGUSR1", "User": f"{USER_ID}:{USER_ID}"}
    # A time that belongs to the content: the newest of several images of one recipe is known by it.
    created = datetime.fromtimestamp(sealed.packaged, UTC).isoformat().replace("+00:00", "Z")
    image = {
        "architecture": recipe.architecture,
        "os": "linux",
        "created": created,
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [sealed.digest]},
        "history": [
            {"created": created, "created_by": f"mmdebstrap {recipe.suite} {' '.join(recipe.packages)}"}
        ],
    }
    return json.dumps(image, sort_keys=True, separators=(",", ":")).encode()


def _pack_image(tag: str, config: bytes, digest: str, layer: Path) -> Iterator[bytes]:
    """An archive as `docker save` writes it, in pieces."""
    manifest = json.dumps([{"Config": f"{digest}.json", "RepoTags": [tag], "Layers": ["layer.tar"]}])
    size = layer.stat().st_size
    # A small archive without its two closing blocks, then the layer as one more member, then the closing blocks.
    yield render_archive({f"{digest}.json": config, "manifest.json": manifest.encode()}, is_open=True)
    member = tarfile.TarInfo("layer.tar")
    member.size, member.mtime = size, EPOCH
    yield member.tobuf(tarfile.GNU_FORMAT)
    with layer.open("rb") as file:
        while piece := file.read(1024 * 1024):
            yield piece
    yield b"\0" * (-size % tarfile.BLOCKSIZE + 2 * tarfile.BLOCKSIZE)


def render_archive(files: Mapping[str, bytes], *, is_open: bool = False) -> bytes:
    """A tar archive of a few small files, the same each time.

    Args:
        files: Contents by path.
        is_open: Leave out the closing blocks, so that more may follow.
    """
    packed = io.BytesIO()
    for name, content in files.items():
        member = tarfile.TarInfo(name)
        member.size, member.mtime = len(content), EPOCH
        packed.write(member.tobuf(tarfile.GNU_FORMAT))
        packed.write(content + b"\0" * (-len(content) % tarfile.BLOCKSIZE))
    if not is_open:
        packed.write(b"\0" * (2 * tarfile.BLOCKSIZE))
    return packed.getvalue()


def _unpack(recipe: Recipe, target: Path, mirror: str | None, on_line: Callable[[str], None]) -> None:
    hook = target.with_name("hook.sh")
    hook.write_text(render_hook(), encoding="utf-8")
    hook.chmod(0o755)
    sources = plan_sources(recipe.suite, mirror, *read_machine_sources())
    lines: list[str] = []
    with subprocess.Popen(
        render_command(recipe, target, hook, sources),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "TMPDIR": str(target.parent)},
        text=True,
        errors="replace",
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(sources)
        process.stdin.close()
        try:
            for line in process.stdout:
                lines.append(line.rstrip())
                on_line(line.rstrip())
        except BaseException:
            process.terminate()  # it cleans up after itself
            raise
    if process.returncode != 0:
        raise _failure(recipe, lines)


def _failure(recipe: Recipe, lines: list[str]) -> BaseImageUnavailable:
    text = "\n".join(lines)
    reason = next(
        (line for line in lines if re.match(r"(E|Err|W):? ", line)), lines[-1] if lines else "no output"
    )
    away = r"Temporary failure resolving|Could not resolve|Could not connect|Connection (refused|timed out|failed)|Unable to connect"
    kind = DebianMirrorUnreachable if re.search(away, text) else BaseImageUnavailable
    return kind(
        f"The {recipe.kind} base image cannot be made of Debian {recipe.suite} packages: {reason.strip()}.",
        remedy="Check that this machine reaches a Debian mirror, or name one in the setting base_image.debian_mirror.",
        log_tail=lines[-40:],
    )


def _require_mmdebstrap(on_line: Callable[[str], None]) -> None:
    if shutil.which("mmdebstrap"):
        return
    if os.geteuid() == 0 and shutil.which("apt-get"):
        on_line("Installing mmdebstrap.")
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        install = [
            "apt-get",
            "install",
            "-y",
            "-qq",
            "--no-install-recommends",
            "-o",
            "DPkg::Lock::Timeout=300",
            "mmdebstrap",
            "debian-archive-keyring",
        ]
        with APT_LOCK.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for command in (install, ["apt-get", "update", "-qq"], install):
                if shutil.which("mmdebstrap"):  # as soon as another process has installed it, too
                    return
                subprocess.run(
                    command, env=environment, capture_output=True, check=False, timeout=INSTALL_SECONDS
                )
            if shutil.which("mmdebstrap"):
                return
    raise BaseImageUnavailable(
        "No base image can be made of Debian packages, because mmdebstrap is missing.",
        remedy="Install it (`apt-get install mmdebstrap`), or let the engine reach a registry and set base_image.origin.",
    )
