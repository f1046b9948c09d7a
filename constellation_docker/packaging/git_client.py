"""The git program, hardened: it asks nothing, trusts nothing and runs nothing that a repository brings.

* No configuration but ours: none of the system's, none of the user's, no templates, no hooks, no file
  system monitor; a repository is never checked out by git, so no filter or attribute of it applies.
* One transport: the address's own. `ext::`, `fd::` and redirects to other transports are off.
* Redirects are not followed; `git.py` resolves them and checks each host.
* Credentials come from a helper that reads them from the child's environment, and only for the one host
  that they are configured for: they are in no address, argument, configuration file or message.
"""

from __future__ import annotations

import os
import shlex
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from typing import IO

from constellation_docker.packaging.address import RepositoryAddress, location
from constellation_docker.packaging.child_process import (
    ChildTimedOut,
    ChildWroteTooMuch,
    Finished,
    child_environment,
    kill_group,
    run_child,
)
from constellation_docker.packaging.source_errors import GitMissing, SourceRefused, SourceTimedOut
from constellation_docker.packaging.tree import too_large
from constellation_docker.settings import SourceSettings, resolve_secret

_HELPER = (
    "!f() { test \"$1\" = get && printf 'username=%s\\npassword=%s\\n' "
    '"$CONSTELLATION_GIT_USERNAME_{index}" "$CONSTELLATION_GIT_PASSWORD_{index}"; }; f'
)
_PACK_ALLOWANCE = 64 * 1024 * 1024
_STALL_SECONDS = 60


class GitClient:
    """A bare repository in a scratch directory, and git to fill it.

    Args:
        directory: An empty directory.
        address: The remote repository.
        settings: Allowed transports, credentials and limits.
        ca_bundle: Certificates to trust (None: the system's).
        deadline: `time.monotonic()` value at which everything ends.

    Raises:
        GitMissing: git is not installed.
    """

    def __init__(
        self,
        directory: Path,
        address: RepositoryAddress,
        *,
        settings: SourceSettings,
        ca_bundle: Path | None,
        deadline: float,
    ) -> None:
        if shutil.which("git") is None:
            raise GitMissing("git is not installed on this machine.", remedy="Install the package git.")
        self.directory = directory
        self.repository = directory / "repository"
        self._settings = settings
        self._deadline = deadline
        self._secrets: list[str] = []
        home = directory / "home"
        home.mkdir(parents=True)
        variables = self._write_configuration(home, address, ca_bundle)
        self._environment = child_environment(home, variables, ca_bundle)
        self.run("init", "--quiet", "--bare", "--template=", str(self.repository), in_repository=False)

    def run(self, *arguments: str, in_repository: bool = True) -> Finished:
        """Run git to its end, whatever its exit code.

        Raises:
            SourceTimedOut: The deadline passed.
            SourceTooLarge: What it fetched is larger than a repository may be.
        """
        where = [f"--git-dir={self.repository}"] if in_repository else []
        limit = self._settings.max_repository_bytes + _PACK_ALLOWANCE
        try:
            return run_child(
                ["git", *where, *arguments],
                environment=self._environment,
                directory=self.directory,
                deadline=self._deadline,
                watched=self.directory,
                max_bytes=limit,
                secrets=self._secrets,
            )
        except ChildTimedOut:
            raise self._timed_out() from None
        except ChildWroteTooMuch:
            raise too_large(self._settings) from None

    @contextmanager
    def open_objects(self) -> Iterator[ObjectReader]:
        """Read objects of the repository, one after the other."""
        with Popen(
            ["git", f"--git-dir={self.repository}", "cat-file", "--batch"],
            env=self._environment,
            cwd=self.directory,
            stdin=PIPE,
            stdout=PIPE,
            stderr=DEVNULL,
            start_new_session=True,
        ) as child:
            timer = threading.Timer(max(0.0, self._deadline - time.monotonic()), child.kill)
            timer.start()
            try:
                assert child.stdin is not None
                assert child.stdout is not None
                yield ObjectReader(child.stdin, child.stdout)
            except (BrokenPipeError, EOFError):
                if time.monotonic() >= self._deadline:
                    raise self._timed_out() from None
                raise
            finally:
                timer.cancel()
                kill_group(child)

    def _timed_out(self) -> SourceTimedOut:
        return SourceTimedOut(
            f"Fetching took longer than {self._settings.timeout_seconds:.0f} seconds.",
            remedy="Try again, or raise source.timeout_seconds.",
        )

    def _write_configuration(
        self, home: Path, address: RepositoryAddress, ca_bundle: Path | None
    ) -> Mapping[str, str]:
        """Write the only configuration that git reads; returns the variables that go with it."""
        variables = {
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_SYSTEM": os.devnull,
            "GIT_CONFIG_GLOBAL": str(home / "gitconfig"),
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "",
            "SSH_ASKPASS": "",
            "GCM_INTERACTIVE": "never",
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_ALLOW_PROTOCOL": address.scheme,
            "GIT_SSH_COMMAND": self._ssh_command(),
            "GIT_SSH_VARIANT": "ssh",
        }
        sections = [
            ('remote "origin"', {"url": address.url if address.kind == "git" else f"file://{address.path}"}),
            ("protocol", {"allow": "never"}),
            (f'protocol "{address.scheme}"', {"allow": "always"}),
            (
                "core",
                {"hooksPath": os.devnull, "fsmonitor": "false", "askPass": "", "attributesFile": os.devnull},
            ),
            # What a repository on this machine sends is packed by our own git: for speed, not for size. It takes a
            # third of the time. A server packs as it likes.
            ("core", {"compression": "0"}),
            ("pack", {"window": "0"}),
            ("gc", {"auto": "0"}),
            ("maintenance", {"auto": "false"}),
            ("fetch", {"recurseSubmodules": "false", "unpackLimit": "1", "writeCommitGraph": "false"}),
            ("init", {"defaultBranch": "none", "templateDir": ""}),
            ("http", self._http_options(ca_bundle)),
            ("credential", {"helper": "", "interactive": "false"}),
            ("lfs", {"basictransfersonly": "true", "locksverify": "false", "skipdownloaderrors": "false"}),
            ('lfs "transfer"', {"maxretries": "3"}),
        ]
        for index, (place, reference) in enumerate(sorted(self._settings.git_credentials.items())):
            if place not in {address.host, location(address)}:
                continue
            user, password = _user_and_password(place, resolve_secret(reference))
            variables |= {
                f"CONSTELLATION_GIT_USERNAME_{index}": user,
                f"CONSTELLATION_GIT_PASSWORD_{index}": password,
            }
            self._secrets += [password, f"{user}:{password}"]
            helper = _HELPER.replace("{index}", str(index))
            sections.append((f'credential "https://{location(address)}"', {"helper": helper}))
        (home / "gitconfig").write_text("".join(_section(name, options) for name, options in sections))
        return variables

    def _http_options(self, ca_bundle: Path | None) -> dict[str, str]:
        options = {"followRedirects": "false", "lowSpeedLimit": "1", "lowSpeedTime": str(_STALL_SECONDS)}
        bundle = str(ca_bundle) if ca_bundle else os.environ.get("SSL_CERT_FILE", "")
        return options | ({"sslCAInfo": bundle} if bundle else {})

    def _ssh_command(self) -> str:
        command = ["ssh", "-F", os.devnull, "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"]
        command += ["-o", "ConnectTimeout=20", "-o", f"ServerAliveInterval={_STALL_SECONDS // 4}"]
        command += ["-o", "ForwardAgent=no", "-o", "ForwardX11=no", "-o", "PermitLocalCommand=no"]
        if self._settings.ssh_known_hosts:
            command += ["-o", f"UserKnownHostsFile={self._settings.ssh_known_hosts}"]
            command += ["-o", f"GlobalKnownHostsFile={os.devnull}"]
        if self._settings.ssh_key:
            kind, _, path = self._settings.ssh_key.partition(":")
            if kind != "file" or not Path(path).is_file():
                raise SourceRefused(
                    f"source.ssh_key is {self._settings.ssh_key}, which is not a key file.",
                    remedy="Set it to file:/path of a private key; ssh reads no other kind.",
                )
            command += ["-i", path, "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none"]
        return shlex.join(command)


class ObjectReader:
    """Objects of a repository by their ids, over the protocol of `git cat-file --batch`."""

    def __init__(self, requests: IO[bytes], answers: IO[bytes]) -> None:
        self._requests = requests
        self._answers = answers

    def copy(self, object_id: str, into: IO[bytes]) -> None:
        """Write the content of an object to a file.

        Raises:
            EOFError: The object is not there, or git was ended.
        """
        self._requests.write(f"{object_id}\n".encode())
        self._requests.flush()
        header = self._answers.readline().split()
        if len(header) != 3:
            raise EOFError(object_id)
        remaining = int(header[2])
        while remaining:
            piece = self._answers.read(min(remaining, 1 << 20))
            if not piece:
                raise EOFError(object_id)
            into.write(piece)
            remaining -= len(piece)
        self._answers.read(1)


def _user_and_password(place: str, secret: str) -> tuple[str, str]:
    user, separator, password = secret.partition(":")
    if not separator:
        # A bare token: every forge takes it as the password of some user, GitLab of this one.
        user, password = "oauth2", secret
    if not password or any(ord(character) < 32 for character in secret):
        raise SourceRefused(
            f"The credentials for {place} are empty or hold control characters.",
            remedy="Make the reference in source.git_credentials name user:password, or a token.",
        )
    return user, password


def _section(name: str, options: Mapping[str, str]) -> str:
    lines = "".join(f"\t{key} = {_quoted(value)}\n" for key, value in options.items())
    return f"[{name}]\n{lines}"


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
