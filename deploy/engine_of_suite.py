"""Run a command with the Docker engine of a later Debian suite, beside the machine's own.

    python -m deploy.engine_of_suite sid -- python -m pytest …
    python -m deploy.engine_of_suite sid --containerd-store -- docker version

The engine gets a network namespace of its own, with its own bridge and firewall rules, because two engines in one
namespace take away each other's. The command runs in that namespace, so that published ports are where it looks for
them, with DOCKER_HOST set. The namespace reaches the world through a network of the machine's own engine. All of it
goes when the command ends. Debian's later `runc` needs a newer libc, so the machine's own is taken.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from constellation_docker.engine import Engine, EngineUnreachable
from deploy.debian_packages import PackagesUnavailable, unpack_packages

START_SECONDS = 60.0
STOP_SECONDS = 60.0
LABEL = "constellation.engine-beside"
_PACKAGES = ("docker.io", "containerd")


class Unusable(Exception):
    """It cannot be done here; the message says why."""


@dataclass(frozen=True)
class EngineBeside:
    """An engine that runs.

    Attributes:
        url: Its address.
        namespace: Its network namespace, as a path.
        address: Its address in that namespace, which this machine reaches.
        folder: Its data, state and log.
        programs: Where its programs are, for PATH.
    """

    url: str
    namespace: Path
    address: str
    folder: Path
    programs: str

    def command(self, words: Sequence[str]) -> list[str]:
        """A command that runs in its network namespace."""
        return ["nsenter", f"--net={self.namespace}", "--", *words]

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of such a command."""
        return {**os.environ, "DOCKER_HOST": self.url, "PATH": self.programs}


@contextmanager
def engine_of_suite(
    suite: str, *, containerd_store: bool = False, options: Callable[[str], Sequence[str]] = lambda _: ()
) -> Iterator[EngineBeside]:
    """Start the engine of a Debian suite; it goes with everything of its own at the end.

    Args:
        suite: As `sid` or `trixie`.
        containerd_store: Keep images in containerd's store, as fresh engines from 29 on do.
        options: Gives further options of `dockerd` for its address.

    Raises:
        Unusable: Not root, not Linux with `ip` and `nsenter`, or the engine does not start.
        PackagesUnavailable: No Debian mirror has its packages.
    """
    if os.geteuid() != 0:
        raise Unusable("only root can start an engine of its own")
    for program in ("ip", "nsenter", "iptables", "runc"):
        if not shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"):
            raise Unusable(f"{program} is missing")
    unpacked = unpack_packages("engine", suite, _PACKAGES)
    places = [unpacked / "usr/sbin", unpacked / "usr/bin"]
    programs = ":".join([*map(str, places), os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    # A socket's path must be short.
    folder = Path(tempfile.mkdtemp(prefix="constellation-engine-", dir="/tmp"))
    features = {"features": {"containerd-snapshotter": containerd_store}}
    (folder / "daemon.json").write_text(json.dumps(features), encoding="utf-8")
    try:
        with _namespace() as (namespace, address):
            beside = EngineBeside(f"unix://{folder}/docker.sock", namespace, address, folder, programs)
            with _dockerd(beside, options(address)):
                yield beside
    finally:
        _remove_folder(folder)


@contextmanager
def _namespace() -> Iterator[tuple[Path, str]]:
    """A network namespace and its address; it reaches the world through a network of the engine that is here.

    That is the machine's own, or, for a command that runs beside such an engine itself, that one: another's bridges are
    in another namespace.
    """
    try:
        own = Engine.connect()
    except EngineUnreachable as error:
        raise Unusable(f"the engine that is here gives it a network, and {error.message}") from error
    name = f"ctengine{secrets.token_hex(3)}"
    network = own.create_network(name, labels={LABEL: name})
    try:
        facts = own.network(network) or {}
        (pool,) = facts["IPAM"]["Config"]
        subnet = ipaddress.ip_network(pool["Subnet"])
        gateway = str(ipaddress.ip_interface(pool["Gateway"]).ip)
        # The engine gives its own containers the first addresses.
        address = str(subnet.broadcast_address - 1)
        outside, inside = f"{name}o"[:15], f"{name}i"[:15]
        _run("ip", "netns", "add", name)
        try:
            _run("ip", "link", "add", outside, "type", "veth", "peer", "name", inside, "netns", name)
            _run("ip", "link", "set", outside, "master", f"br-{facts['Id'][:12]}", "up")
            for words in (
                ("link", "set", "lo", "up"),
                ("address", "add", f"{address}/{subnet.prefixlen}", "dev", inside),
                ("link", "set", inside, "up"),
                ("route", "add", "default", "via", gateway),
            ):
                _run("ip", "-n", name, *words)
            yield Path("/run/netns") / name, address
        finally:
            _run("ip", "netns", "delete", name)
            subprocess.run(["ip", "link", "delete", outside], capture_output=True, check=False)
    finally:
        own.remove_network(network)


@contextmanager
def _dockerd(beside: EngineBeside, further: Sequence[str]) -> Iterator[None]:
    folder = beside.folder
    options = [
        *further,
        f"--host={beside.url}",
        f"--data-root={folder}/data",
        f"--exec-root={folder}/exec",
        f"--pidfile={folder}/dockerd.pid",
        f"--config-file={folder}/daemon.json",
    ]
    log = folder / "dockerd.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            beside.command(["dockerd", *options]),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=beside.environment,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _answers(beside.url):
            if process.poll() is not None or time.monotonic() > deadline:
                said = log.read_text(encoding="utf-8", errors="replace")[-2000:]
                raise Unusable(f"the engine does not start:\n{said}")
            time.sleep(0.2)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _end_containerd(folder)


def _end_containerd(folder: Path) -> None:
    """A killed engine leaves its containerd."""
    with suppress(OSError, ValueError):
        os.kill(int((folder / "exec/containerd/containerd.pid").read_text()), signal.SIGTERM)


def _answers(url: str) -> bool:
    try:
        Engine.connect(url, timeout_seconds=5)
    except EngineUnreachable:
        return False
    return True


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Unusable(f"{' '.join(words)}: {done.stderr.strip()}")


def _remove_folder(folder: Path) -> None:
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    for mount in sorted((item for item in mounts if item.startswith(f"{folder}/")), reverse=True):
        subprocess.run(["umount", "--lazy", mount], check=False)
    shutil.rmtree(folder, ignore_errors=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit code, or 1 where there is no such engine."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("suite", help="Debian suite: sid, trixie")
    parser.add_argument("--containerd-store", action="store_true", help="keep images in containerd's store")
    parser.add_argument("command", nargs="+", help="what to run, after --")
    given = parser.parse_args(arguments)
    # So that a run that is ended takes its engine with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with engine_of_suite(given.suite, containerd_store=given.containerd_store) as beside:
            version = Engine.connect(beside.url).version
            print(f"Docker engine {version.engine} (API {version.api}) for {given.command[0]}", flush=True)
            done = subprocess.run(beside.command(given.command), env=beside.environment, check=False)
            return done.returncode
    except (Unusable, PackagesUnavailable) as error:
        print(f"The engine of {given.suite} cannot be used: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
