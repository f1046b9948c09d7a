"""Puts a layer together inside a build stage, so that the same inputs give the same bytes.

This file is bind-mounted into the build and run there by the base image's own Python, so it uses nothing
but the standard library. What a stage leaves under `/out` is copied into the image as one layer whose
top has a single directory: copying that directory itself would leave its own time floating.

    python assembly.py environment <python>     /build/requirements.lock → /out/env
    python assembly.py server <python>          /build/server → /out/server
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

EPOCH = 1_000_000_000
"""The time of every file in a layer: any fixed one, late enough for zip files."""

COMPILERS = 4
"""Into how many parts compiling is cut. Fixed, and each part is compiled by one process of its own: what a
compiled file holds depends on what the same process compiled before it."""

_COMPILE = """
import compileall, json, py_compile, sys
for path in json.load(sys.stdin):
    compileall.compile_file(path, quiet=2, force=True,
                            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
"""


def assemble_environment(python: str) -> None:
    """Install the lock into `/env`, compile it, and leave it sealed in `/out/env`."""
    build = Path("/build")
    variables = {
        **os.environ,
        "UV_NO_CONFIG": "1",
        "UV_CACHE_DIR": "/var/cache/uv",
        "UV_LINK_MODE": "copy",
        "UV_NO_PROGRESS": "1",
        "UV_PYTHON_DOWNLOADS": "never",
        "NO_COLOR": "1",
        "HOME": "/tmp",  # noqa: S108 - a build stage's own, thrown away with it
    }
    if (build / "ca.crt").exists():
        variables["SSL_CERT_FILE"] = str(build / "ca.crt")
    if (build / "credentials.json").exists():
        variables.update(json.loads((build / "credentials.json").read_text()))
    options = json.loads((build / "arguments.json").read_text())
    if (build / "wheelhouse").is_dir():
        options += ["--find-links", str(build / "wheelhouse")]
    uv = str(build / "uv")
    _run([uv, "venv", "--quiet", "--no-project", "--python", python, "/env"], variables)
    requirements = build / "requirements.lock"
    if any(line.strip() and not line.startswith("#") for line in requirements.read_text().splitlines()):
        sync = [uv, "pip", "sync", "--python", "/env/bin/python", "--require-hashes", *options]
        _run([*sync, str(requirements)], variables)
    _strip_environment(Path("/env"))
    _compile(Path("/env"), "/env/bin/python")
    _place(Path("/env"))


def assemble_server(python: str) -> None:
    """Compile the inference server and leave it sealed in `/out/server`."""
    shutil.copytree("/build/server", "/server")
    _compile(Path("/server"), python)
    _place(Path("/server"))


def _run(command: list[str], variables: dict[str, str]) -> None:
    finished = subprocess.run(
        command, env=variables, check=False, stderr=subprocess.PIPE, text=True, errors="replace"
    )
    sys.stderr.write(finished.stderr)
    if finished.returncode == 0:
        return
    failed = re.search(r"Failed to build `?([\w.\-]+)[=@ ]+=?\s*([\w.+!\-]+)", finished.stderr)
    if failed:
        sys.stderr.write(
            f"{failed[1]} {failed[2]} has no wheel for this Python and platform, and building it from source failed. "
            "Build stages hold no compiler: pin a version that has a wheel, or put a wheel into the wheelhouse.\n"
        )
    sys.exit(finished.returncode)


def _strip_environment(root: Path) -> None:
    """Leave out what differs from one uv to the next and what a container never uses."""
    for path in [*root.glob("bin/activate*"), *root.glob("bin/deactivate*"), *root.glob("bin/pydoc.bat")]:
        path.unlink()
    for name in (".gitignore", ".lock", "CACHEDIR.TAG"):
        (root / name).unlink(missing_ok=True)
    settings = root / "pyvenv.cfg"
    kept = [line for line in settings.read_text().splitlines() if not line.startswith(("uv =", "prompt ="))]
    settings.write_text("\n".join(kept) + "\n")
    for pattern in ("uv_cache.json", "uv_build.json"):
        for path in root.glob(f"lib/python*/site-packages/*.dist-info/{pattern}"):
            path.unlink()


def _compile(root: Path, python: str) -> None:
    for path in sorted(root.rglob("__pycache__"), reverse=True):
        shutil.rmtree(path)
    files = sorted(str(path) for path in root.rglob("*.py") if path.is_file() and not path.is_symlink())
    running = []
    for part in range(COMPILERS):
        process = subprocess.Popen(
            [python, "-S", "-c", _COMPILE],
            stdin=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": "0"},
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps(files[part::COMPILERS]))
        process.stdin.close()
        running.append(process)
    for process in running:
        process.wait()


def _place(root: Path) -> None:
    """Give everything one owner, plain modes and one time, and move it to `/out`."""
    paths = [root, *root.rglob("*")]
    for path in paths:
        os.chown(path, 0, 0, follow_symlinks=False)
        if not path.is_symlink():
            is_open = path.is_dir() or path.stat().st_mode & 0o100
            path.chmod(0o755 if is_open else 0o644)
    for path in paths:
        os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)
    out = Path("/out")
    out.mkdir()
    root.rename(out / root.name)


if __name__ == "__main__":
    {"environment": assemble_environment, "server": assemble_server}[sys.argv[1]](sys.argv[2])
