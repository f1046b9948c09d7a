"""Packages of Debian's later suites, unpacked into a directory: nothing is installed.

The sources are the machine's own, with the suite's name replaced, in lists of our own, so the system's apt state stays
as it is.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "constellation-docker-tests"


class PackagesUnavailable(Exception):
    """The packages cannot be had on this machine; the message says why."""


def unpack_packages(name: str, suite: str, packages: Sequence[str]) -> Path:
    """A directory with the unpacked packages of a suite; it is kept for the next time.

    Args:
        name: Names the directory, with the suite.
        suite: A Debian suite, such as `sid`.
        packages: Names of packages. What they depend on is not unpacked.

    Raises:
        PackagesUnavailable: This is not Debian, or no mirror has them.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    target = CACHE / f"{name}-{suite}"
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            _unpack(suite, packages, target)
    return target


def _unpack(suite: str, packages: Sequence[str], target: Path) -> None:
    if not shutil.which("apt-get"):
        raise PackagesUnavailable("they come from Debian, and this machine has no apt-get")
    with tempfile.TemporaryDirectory(prefix="constellation-apt-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        for path in ("lists/partial", "cache/archives/partial"):
            (folder / path).mkdir(parents=True)
        (folder / "sources.list").write_text(_sources(suite))
        options = {
            "Dir::State::lists": folder / "lists",
            "Dir::Etc::sourcelist": folder / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Cache": folder / "cache",
            "APT::Sandbox::User": "root",
        }
        apt = ["apt-get", "-qq", *(f"-o{key}={value}" for key, value in options.items())]
        for command in ([*apt, "update"], [*apt, "download", *packages]):
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise PackagesUnavailable(f"apt-get: {done.stderr.strip()[-300:]}")
        unpacked = folder / "unpacked"
        for package in folder.glob("*.deb"):
            subprocess.run(["dpkg", "-x", str(package), str(unpacked)], check=True)
        part = target.with_name(f"{target.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(unpacked, part, symlinks=True)
        part.rename(target)


def _sources(suite: str) -> str:
    """One line for a suite: from where the machine takes its own Debian packages."""
    release = dict(
        line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line
    )
    own = release.get("VERSION_CODENAME", "").strip('"')
    if release.get("ID") != "debian" or not own:
        raise PackagesUnavailable("they come from Debian, and this is not Debian")
    for path in [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]:
        if not path.is_file():
            continue
        text = path.read_text()
        if path.suffix == ".sources":
            for stanza in re.split(r"\n\s*\n", text):
                fields = dict(re.findall(r"^([A-Za-z-]+):\s*(.*)$", stanza, re.MULTILINE))
                if own in fields.get("Suites", "").split():
                    signed = fields.get("Signed-By", "")
                    key = f"[signed-by={signed}] " if signed.startswith("/") else ""
                    return f"deb {key}{fields['URIs'].split()[0]} {suite} main\n"
        elif found := re.search(rf"^deb\s+(\[[^\]]*\]\s+)?(\S+)\s+{own}\s", text, re.MULTILINE):
            return f"deb {found[1] or ''}{found[2]} {suite} main\n"
    raise PackagesUnavailable("this machine's apt sources do not name its own suite")
