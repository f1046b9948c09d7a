"""uv, run with an environment and a configuration of its own.

uv never builds a source distribution here: building runs the package's code, and foreign code runs only in
containers (see `uv_container`).
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import uv

from constellation_docker.errors import InvalidInput
from constellation_docker.packaging.child_process import (
    ChildTimedOut,
    ChildWroteTooMuch,
    Finished,
    child_environment,
    run_child,
)
from constellation_docker.packaging.lock_errors import LockError, LockTimedOut
from constellation_docker.settings import IndexSettings, resolve_secret


class UvRunner(Protocol):
    """Somewhere to run uv."""

    @property
    def may_build(self) -> bool:
        """Whether foreign code may run there."""

    def run(self, arguments: Sequence[str], files: Mapping[str, str]) -> Finished:
        """Run uv in a directory with some files.

        Args:
            arguments: Those of uv, without indexes, wheelhouse and interpreter, which the runner adds.
            files: Text files in the directory that it runs in, by name.

        Raises:
            LockTimedOut: It took too long.
        """


@dataclass(frozen=True)
class IndexAccess:
    """How uv reaches the package indexes.

    Attributes:
        arguments: Its arguments that name them.
        variables: Credentials, as uv reads them from its environment.
        secrets: Their values, to be cut out of what uv says.
    """

    arguments: tuple[str, ...]
    variables: dict[str, str]
    secrets: tuple[str, ...]


def index_access(settings: IndexSettings) -> IndexAccess:
    """How uv reaches the indexes of the settings; credentials are resolved here.

    Raises:
        InvalidInput: An index address holds credentials, or a reference does not name `user:password`.
    """
    arguments: list[str] = []
    variables: dict[str, str] = {}
    secrets: list[str] = []
    named = [(f"extra{number}", "--index", url) for number, url in enumerate(settings.extra_urls)]
    if settings.url:
        named.append(("main", "--default-index", settings.url))
    for name, option, url in named:
        host = re.fullmatch(r"[a-z+]+://(?P<user>[^/@]*@)?(?P<host>[^/?#]*).*", url)
        if host and host["user"]:
            raise InvalidInput(
                f"The package index at {host['host']} has credentials in its address.",
                remedy="Move them to index.credentials, as a reference under the host's name.",
            )
        arguments += [option, f"{name}={url}"]
        place = host["host"] if host else ""
        reference = settings.credentials.get(place) or settings.credentials.get(place.partition(":")[0])
        if reference:
            user, colon, password = resolve_secret(reference).partition(":")
            if not colon or not password:
                raise InvalidInput(
                    f"The credentials for the package index at {place} are not user:password.",
                    remedy=f"Make {reference} hold the user, a colon and the password.",
                )
            variables |= {
                f"UV_INDEX_{name.upper()}_USERNAME": user,
                f"UV_INDEX_{name.upper()}_PASSWORD": password,
            }
            secrets.append(password)
    return IndexAccess(tuple(arguments), variables, tuple(secrets))


class LocalUv:
    """uv on this machine, which reads wheels' metadata and builds nothing.

    Args:
        settings: Indexes, wheelhouse, certificates.
        cache: uv's cache directory; several runs may share it.
        deadline: `time.monotonic()` value at which it is killed.
    """

    may_build = False

    def __init__(self, settings: IndexSettings, cache: Path, deadline: float) -> None:
        self._settings = settings
        self._cache = cache
        self._deadline = deadline
        self._access = index_access(settings)

    def run(self, arguments: Sequence[str], files: Mapping[str, str]) -> Finished:
        """See `UvRunner`."""
        with tempfile.TemporaryDirectory(prefix="constellation-lock-") as place:
            directory = Path(place)
            for name, text in files.items():
                (directory / name).write_text(text, encoding="utf-8")
            wheelhouse = ["--find-links", str(self._settings.wheelhouse)] if self._settings.wheelhouse else []
            variables = {**UV_VARIABLES, "UV_CACHE_DIR": str(self._cache), **self._access.variables}
            try:
                return run_child(
                    [
                        uv.find_uv_bin(),
                        *arguments,
                        *self._access.arguments,
                        *wheelhouse,
                        "--python",
                        sys.executable,
                    ],
                    environment=child_environment(directory, variables, self._settings.ca_bundle),
                    directory=directory,
                    deadline=self._deadline,
                    secrets=self._access.secrets,
                )
            except ChildTimedOut:
                raise timed_out() from None
            except ChildWroteTooMuch as error:
                raise LockError(
                    f"The resolver wrote more than {error.limit:,} bytes.", remedy="Ask for fewer packages."
                ) from None


UV_VARIABLES = {
    "UV_NO_CONFIG": "1",
    "UV_NO_PROGRESS": "1",
    "UV_PYTHON_DOWNLOADS": "never",
    "UV_HTTP_TIMEOUT": "60",
    "NO_COLOR": "1",
}
"""What uv is told wherever it runs: no configuration of anyone's, no colours, no downloads of Pythons."""


def timed_out() -> LockTimedOut:
    """The error for a resolver that did not end."""
    return LockTimedOut(
        "Resolving the dependencies took too long.", remedy="Try again, or give narrower version ranges."
    )
