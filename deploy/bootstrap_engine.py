#!/usr/bin/env python3
"""Find a Docker engine, or install and start one where that may be done without asking.

Looks where the Docker CLI looks: DOCKER_HOST, the CLI's current context, the default socket. Where none answers, and
this is Debian or Ubuntu and we are root, it installs docker.io and iptables and starts dockerd. Anywhere else it says
in one sentence what is missing and how to get it, and exits with 1. It may be run again at any time.

Only the standard library is used, because this runs before anything is installed.

    deploy/bootstrap_engine.py [--socket PATH] [--wait SECONDS] [-- DOCKERD OPTIONS]
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as a script it is in no package

from deploy.engine_address import Unusable, ask_version, find_address

DEFAULT_SOCKET = Path("/var/run/docker.sock")
LOG = Path("/var/log/constellation-dockerd.log")
APT_LOCK = Path("/var/cache/apt/constellation.lock")
"""Held while we install: where somebody else has the package lists or the archives, apt does not wait, it fails."""
APT_SECONDS = 600.0
LAPTOP = "Install Docker (https://docs.docker.com/get-docker/) and start it, or set DOCKER_HOST to an engine elsewhere."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; 0 where an engine answers."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--socket", type=Path, default=DEFAULT_SOCKET, help="default socket of this machine's engine"
    )
    parser.add_argument(
        "--wait", type=float, default=90, help="longest wait for a started engine, in seconds"
    )
    parser.add_argument("--log", type=Path, default=LOG, help="log of an engine started without systemd")
    parser.add_argument("options", nargs="*", help="options for an engine started without systemd, after --")
    given = parser.parse_args(arguments)
    try:
        url, version = ensure_engine(given.socket, given.wait, given.log, given.options)
    except Unusable as error:
        print(error, file=sys.stderr)
        return 1
    print(f"Docker engine {version} answers at {url}.")
    return 0


def ensure_engine(default: Path, wait_seconds: float, log: Path, options: Sequence[str]) -> tuple[str, str]:
    """The URL and the version of an engine that answers.

    Raises:
        Unusable: There is none, and none can be started here.
    """
    url, origin = find_address(default)
    reason = ""
    try:
        return url, ask_version(url)
    except PermissionError:
        raise Unusable(
            f"This user may not talk to the Docker engine at {url}: add the user to the `docker` group "
            f"(`sudo usermod -aG docker $USER`, then log in again), or run this as root."
        ) from None
    except OSError as error:
        reason = error.strerror or str(error)
    if origin != "default socket":
        raise Unusable(
            f"No Docker engine answers at {url}, which {origin} names ({reason}): start it, or correct {origin}."
        )
    require_debian_root(url)
    install_engine()
    start_engine(default, log, options, wait_seconds)
    return url, ask_version(url)


def require_debian_root(url: str) -> None:
    """Go on only where an engine may be installed without asking.

    Raises:
        Unusable: Not Debian or Ubuntu, or not root.
    """
    facts: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in Path("/etc/os-release").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition("=")
            facts[key] = value.strip('"')
    family = {facts.get("ID", ""), *facts.get("ID_LIKE", "").split()}
    if not family & {"debian", "ubuntu"} or not shutil.which("apt-get"):
        raise Unusable(f"No Docker engine answers at {url}. {LAPTOP}")
    if os.geteuid() != 0:
        raise Unusable(
            f"No Docker engine answers at {url}: run this once as root (`sudo {sys.argv[0]}`), which installs docker.io "
            "and starts it, or set DOCKER_HOST to an engine elsewhere."
        )


def install_engine() -> None:
    """Install dockerd and iptables where they are missing.

    Raises:
        Unusable: apt-get failed.
    """
    missing = [
        package
        for program, package in (("dockerd", "docker.io"), ("iptables", "iptables"))
        if not shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    ]
    if not missing:
        return
    print(f"Installing {' and '.join(missing)}.", file=sys.stderr)
    if said := install_packages(missing):
        raise Unusable(
            f"{' and '.join(missing)} cannot be installed ({said}): check that this machine reaches a Debian mirror, "
            "or set DOCKER_HOST to an engine elsewhere."
        )


def install_packages(packages: Sequence[str], *, lock: Path = APT_LOCK) -> str:
    """Install Debian packages as root. Several processes may do so at once; each waits until the others have ended.

    Args:
        packages: Their names.
        lock: A file that all of them open.

    Returns:
        Empty where they are installed now, else apt's last words.
    """
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    options = ["-y", "-qq", "--no-install-recommends", "-o", f"DPkg::Lock::Timeout={APT_SECONDS:.0f}"]
    deadline = time.monotonic() + APT_SECONDS

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["apt-get", *command], env=environment, capture_output=True, text=True, check=False
        )

    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        while True:
            ended = run("install", *options, *packages)
            if ended.returncode != 0:  # the package lists may be old, or not there at all
                run("update", "-qq")
                ended = run("install", *options, *packages)
            if ended.returncode == 0:
                return ""
            is_locked = "lock" in ended.stderr  # by a program that does not know our lock
            if not is_locked or time.monotonic() > deadline:
                return ended.stderr.strip().rpartition("\n")[2] or f"apt-get ended with {ended.returncode}"
            time.sleep(2)


def start_engine(default: Path, log: Path, options: Sequence[str], wait_seconds: float) -> None:
    """Start dockerd and wait until it answers.

    Raises:
        Unusable: It does not start; the message holds what its log says.
    """
    url = f"unix://{default}"
    if Path("/run/systemd/system").is_dir() and not options and default == DEFAULT_SOCKET:
        subprocess.run(["systemctl", "reset-failed", "docker"], capture_output=True, check=False)
        subprocess.run(["systemctl", "enable", "--now", "docker"], capture_output=True, check=False)
        if not wait_until_answering(url, None, wait_seconds):
            raise Unusable("The Docker engine does not start: `journalctl -u docker` says why.")
        return
    if wait_for_starting(url, options, wait_seconds):
        return
    mount_cgroups()
    # Debian's iptables speaks to nf_tables; kernels without it take the older interface.
    for program in ("", "iptables-legacy"):
        if program and not choose_iptables(program):
            break
        remove_leftovers(default, options)
        with log.open("ab") as output:
            process = subprocess.Popen(
                ["dockerd", f"--host={url}", *options],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                start_new_session=True,
                env={**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"},
            )
        if wait_until_answering(url, process, wait_seconds):
            return
        if process.poll() is None:
            process.terminate()
            process.wait(timeout=30)
        if "iptables" not in last_complaint(log):
            break
    raise Unusable(f"The Docker engine does not start ({last_complaint(log)}): {log} says more.")


def wait_until_answering(url: str, process: subprocess.Popen[bytes] | None, seconds: float) -> bool:
    """Whether the engine answers within `seconds`, and before `process` ends."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            ask_version(url)
            return True
        if process is not None and process.poll() is not None:
            return False
        time.sleep(0.2)
    return False


def mount_cgroups() -> None:
    """Mount the kernel's control groups where nothing has: version 2 where the kernel has no version 1 left to offer."""
    root = Path("/sys/fs/cgroup")
    if not root.is_dir() or any(root.iterdir()):
        return
    with contextlib.suppress(OSError):
        lines = Path("/proc/cgroups").read_text(encoding="utf-8").splitlines()[1:]
        controllers = [line.split()[0] for line in lines if line.split()[3] == "1"]
        if controllers:
            subprocess.run(["mount", "-t", "tmpfs", "cgroup", str(root)], check=False)
            for controller in controllers:
                (root / controller).mkdir(exist_ok=True)
                command = ["mount", "-t", "cgroup", "-o", controller, "cgroup", str(root / controller)]
                if subprocess.run(command, capture_output=True, check=False).returncode != 0:
                    (root / controller).rmdir()
            if any(root.iterdir()):
                return
            subprocess.run(["umount", str(root)], check=False)
    subprocess.run(["mount", "-t", "cgroup2", "cgroup2", str(root)], capture_output=True, check=False)


def choose_iptables(program: str) -> bool:
    """Make another iptables the system's; False where that cannot be."""
    path = shutil.which(program, path="/usr/sbin:/sbin")
    if path is None:
        return False
    command = ["update-alternatives", "--set", "iptables", path]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def remove_leftovers(default: Path, options: Sequence[str]) -> None:
    """Remove what a killed engine leaves: process files of processes that are gone, and the socket they listened on.

    dockerd refuses to start beside such a file, and takes a dead containerd that nobody has reaped for a running one.
    """
    process_files = list_process_files(options)
    for path in process_files:
        with contextlib.suppress(OSError, ValueError):
            if not is_running(int(path.read_text().strip())):
                path.unlink()
    if not process_files[0].exists():
        with contextlib.suppress(OSError):
            default.unlink()


def list_process_files(options: Sequence[str]) -> list[Path]:
    """Where dockerd and its containerd note their process numbers, dockerd first."""
    chosen = dict(option.removeprefix("--").split("=", 1) for option in options if "=" in option)
    state = Path(chosen.get("exec-root", "/var/run/docker")) / "containerd"
    own = Path(chosen.get("pidfile", "/var/run/docker.pid"))
    return [own, state / "containerd.pid", state / "docker-containerd.pid"]


def wait_for_starting(url: str, options: Sequence[str], seconds: float) -> bool:
    """Whether somebody else has started an engine, and it answers by now.

    Raises:
        Unusable: It runs, but does not answer.
    """
    try:
        process_id = int(list_process_files(options)[0].read_text().strip())
    except (OSError, ValueError):
        return False
    if not is_running(process_id):
        return False
    if wait_until_answering(url, None, seconds):
        return True
    raise Unusable(
        f"A Docker engine runs (process {process_id}), but does not answer at {url}: stop it and run this again."
    )


def is_running(process_id: int) -> bool:
    """Whether a process is there and is an engine's; a dead one that nobody has reaped is not, nor is another program
    that has got its number since."""
    try:
        name, _, rest = Path(f"/proc/{process_id}/stat").read_text().partition("(")[2].rpartition(")")
    except OSError:
        return False
    return rest.split()[0] not in {"Z", "X"} and name.startswith(("dockerd", "containerd", "docker-containe"))


def last_complaint(log: Path) -> str:
    """The last line of the engine's log that says what went wrong."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-200:]
    telling = [
        line for line in lines if "failed to start" in line or "level=error" in line or "level=fatal" in line
    ]
    return (telling or lines or ["its log is empty"])[-1].strip()[:400]


if __name__ == "__main__":
    sys.exit(main())
