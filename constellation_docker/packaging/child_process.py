"""One child process with an environment of its own, a deadline and a limit on what it may write.

Programs that talk to foreign servers (git, huggingface_hub, uv) run here, so that a hanging server, an
endless download or a cancelled run ends them, and so that no variable of ours reaches them by accident.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PASSED_ON = (
    "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY",
    "http_proxy", "https_proxy", "all_proxy", "no_proxy",
    "SSL_CERT_DIR",
)  # fmt: skip
_STDERR_KEPT = 64 * 1024
_MAX_STDOUT = 64 * 1024 * 1024
_USER_INFO = re.compile(r"(?<=://)[^\s/@'\"]+@")


class ChildTimedOut(Exception):
    """The child ran past its deadline and was killed."""


class ChildWroteTooMuch(Exception):
    """The child wrote more than it may and was killed; `limit` says how many bytes it may."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(f"more than {limit} bytes")


@dataclass(frozen=True)
class Finished:
    """How a child ended: its exit code, all of its output, and the end of its error output."""

    exit_code: int
    stdout: bytes
    stderr: str


def child_environment(
    home: Path, variables: Mapping[str, str], ca_bundle: Path | None = None
) -> dict[str, str]:
    """The environment of a child: proxies, certificates and what is given; nothing else of ours.

    Args:
        home: An empty directory that stands for the home directory.
        variables: What the child gets besides.
        ca_bundle: The certificate bundle it trusts. None: the `SSL_CERT_FILE` of this process, if any.
    """
    passed = {name: os.environ[name] for name in _PASSED_ON if os.environ.get(name)}
    bundle = str(ca_bundle) if ca_bundle else os.environ.get("SSL_CERT_FILE", "")
    if bundle:
        passed["SSL_CERT_FILE"] = bundle
        if ca_bundle:
            passed.pop("SSL_CERT_DIR", None)
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home),
        "XDG_CACHE_HOME": str(home),
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        **passed,
        **variables,
    }


def run_child(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    directory: Path,
    deadline: float,
    stdin: bytes = b"",
    watched: Path | None = None,
    max_bytes: int | None = None,
    secrets: Sequence[str] = (),
) -> Finished:
    """Run a program to its end.

    Args:
        command: The program and its arguments. No shell is involved.
        environment: The whole environment of the child.
        directory: Where it runs.
        deadline: `time.monotonic()` value at which it is killed, with everything that it started.
        stdin: What it reads.
        watched: A directory whose size is watched while the child runs.
        max_bytes: How large `watched` may become.
        secrets: Values that are cut out of the error output.

    Raises:
        ChildTimedOut: The deadline passed.
        ChildWroteTooMuch: `watched`, or the output, became too large.
        FileNotFoundError: There is no such program.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as into:
        into.write(stdin)
        into.seek(0)
        child = subprocess.Popen(
            list(command),
            env=dict(environment),
            cwd=directory,
            stdin=into,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        try:
            _wait(child, deadline, lambda: _check_sizes(os.fstat(out.fileno()).st_size, watched, max_bytes))
        finally:
            kill_group(child)
        out.seek(0)
        size = err.seek(0, os.SEEK_END)
        err.seek(max(0, size - _STDERR_KEPT))
        return Finished(
            child.returncode, out.read(), without_secrets(err.read().decode(errors="replace"), secrets)
        )


def kill_group(child: subprocess.Popen[bytes]) -> None:
    """End a child that leads its own session, with all that it started; one that has ended is collected."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def without_secrets(text: str, secrets: Sequence[str]) -> str:
    """Text without the given values and without the user part of any address in it."""
    for secret in sorted((value for value in secrets if value), key=len, reverse=True):
        text = text.replace(secret, "***")
    return _USER_INFO.sub("***@", text)


def tail(text: str, lines: int = 12) -> str:
    """The last lines of a program's output."""
    return "\n".join(text.strip().splitlines()[-lines:])


def directory_size(root: Path) -> int:
    """Bytes that the files under a directory hold; what vanishes meanwhile counts as nothing."""
    total = 0
    pending = [os.fspath(root)]
    while pending:
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(pending.pop()) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                    else:
                        total += entry.stat(follow_symlinks=False).st_size
    return total


def _wait(child: subprocess.Popen[bytes], deadline: float, check: Callable[[], None]) -> None:
    pause = 0.02
    while True:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise ChildTimedOut
        with suppress(subprocess.TimeoutExpired):
            child.wait(timeout=min(pause, remaining))
            return
        check()
        pause = min(pause * 1.5, 0.5)


def _check_sizes(stdout_bytes: int, watched: Path | None, max_bytes: int | None) -> None:
    if stdout_bytes > _MAX_STDOUT:
        raise ChildWroteTooMuch(_MAX_STDOUT)
    if watched is not None and max_bytes is not None and directory_size(watched) > max_bytes:
        raise ChildWroteTooMuch(max_bytes)
