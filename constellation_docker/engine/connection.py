"""The connection to one engine: one docker-py client per thread, one place where its errors become ours."""

from __future__ import annotations

import contextlib
import http.client
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import requests
import urllib3
from docker.errors import APIError, DockerException
from docker.utils import version_lt

from constellation_docker.engine.address import EngineAddress, resolve_engine_address
from constellation_docker.engine.client import EngineClient, open_client
from constellation_docker.engine.errors import (
    CallCancelled,
    DeadlineExceeded,
    EngineError,
    EngineForbidden,
    EngineIncompatible,
    EngineUnreachable,
    choose_engine_error,
)
from constellation_docker.engine.stream import (
    ResponseStream,
    StreamCancelled,
    StreamTimedOut,
    UploadFailed,
    never,
)

T = TypeVar("T")

OLDEST_API = "1.40"  # Docker 19.03, the first whose BuildKit has every mount that our Dockerfiles use
NEWEST_API = "1.45"  # Docker 26: what this code was written for; newer engines serve it
CONNECT_SECONDS = 10.0


@dataclass(frozen=True)
class EngineVersion:
    """What answers: `engine` (28.5.2), `api` (the version spoken), `os` and `architecture` (linux, amd64)."""

    engine: str
    api: str
    os: str
    architecture: str

    @property
    def platform(self) -> str:
        """As images name it: `linux/amd64`."""
        return f"{self.os}/{self.architecture}"


class Connection:
    """A connection that any thread may use: docker-py's client is not thread-safe, so each thread has its own.

    Attributes:
        address: Where the engine is.
        version: What answered there.
        timeout_seconds: Longest silence in a call that is expected to answer at once.
    """

    def __init__(self, address: EngineAddress, version: EngineVersion, timeout_seconds: float) -> None:
        self.address = address
        self.version = version
        self.timeout_seconds = timeout_seconds
        self._clients = threading.local()

    @property
    def url(self) -> str:
        """The engine's address."""
        return self.address.url

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r}, engine {self.version.engine}, API {self.version.api})"

    def __reduce__(self) -> tuple[Any, ...]:
        # Clients hold sockets, so another process connects anew.
        return _reconnect, (type(self), self.address, self.version, self.timeout_seconds)

    @contextlib.contextmanager
    def _calling(self, doing: str) -> Iterator[EngineClient]:
        """This thread's client; what docker-py and requests raise inside becomes one of our errors.

        Args:
            doing: What the call does, as in "starting container x". It ends up in the error's sentence.
        """
        with translating(doing, self.url):
            yield self._client()

    def _client(self) -> EngineClient:
        # A forked process must not share its parent's sockets.
        held = getattr(self._clients, "held", None)
        if held is None or held[0] != os.getpid():
            held = (os.getpid(), open_client(self.address, self.version.api, self.timeout_seconds))
            self._clients.held = held
        client: EngineClient = held[1]
        return client

    def _streaming(
        self,
        doing: str,
        send: Callable[[EngineClient, Callable[[], bool]], requests.Response],
        parse: Callable[[requests.Response], Iterator[T]],
        *,
        is_cancelled: Callable[[], bool] = never,
        timeout_seconds: float | None = None,
    ) -> Iterator[T]:
        """Yield the parts of a response that may take long; leaving the loop cuts the connection."""

        stream = ResponseStream(
            lambda has_left: send(self._client(), has_left),  # the client of the reading thread
            parse,
            is_cancelled=is_cancelled,
            timeout_seconds=timeout_seconds,
        )
        with translating(doing, self.url):
            yield from stream

    def ping(self) -> None:
        """Ask whether the engine answers.

        Raises:
            EngineUnreachable: It does not.
        """
        with self._calling("pinging it") as client:
            client.ping()

    def info(self) -> dict[str, Any]:
        """The engine's own description of itself (`GET /info`)."""
        with self._calling("reading its description") as client:
            return dict(client.info())


def open_connection(url: str | None, timeout_seconds: float) -> tuple[EngineAddress, EngineVersion]:
    """Find the engine, ask for its version and settle the API version to speak.

    Raises:
        EngineUnreachable: None answers.
        EngineIncompatible: Its API is too old or too new.
        InvalidInput: The address cannot be read.
    """
    address = resolve_engine_address(url)
    with (
        translating("asking for its version", address.url, is_first=True),
        contextlib.closing(open_client(address, OLDEST_API, min(timeout_seconds, CONNECT_SECONDS))) as client,
    ):
        answer = client.version(api_version=False)
    return address, EngineVersion(
        engine=str(answer.get("Version", "?")),
        api=choose_api_version(answer, address.url),
        os=str(answer.get("Os", "linux")),
        architecture=str(answer.get("Arch", "amd64")),
    )


def choose_api_version(answer: Mapping[str, Any], url: str) -> str:
    """The API version to speak: the engine's newest, but none newer than this code knows.

    docker-py alone would take the engine's newest (`facts` of API changes: moby/api/docs/CHANGELOG.md).

    Args:
        answer: The engine's `GET /version`.
        url: Its address, for the sentence.

    Raises:
        EngineIncompatible: There is no version that both sides speak.
    """
    newest = str(answer.get("ApiVersion", ""))
    oldest = str(answer.get("MinAPIVersion") or "1.0")
    if not newest or version_lt(newest, OLDEST_API):
        raise EngineIncompatible(
            f"The Docker engine at {url} is too old: it speaks API {newest or '?'}, and {OLDEST_API} is needed.",
            remedy="Upgrade it to Docker Engine 20.10 or newer.",
            engine=url,
        )
    if version_lt(NEWEST_API, oldest):
        raise EngineIncompatible(
            f"The Docker engine at {url} is too new: it speaks no API older than {oldest}, and this program none newer "
            f"than {NEWEST_API}.",
            remedy="Upgrade constellation_docker, or set DOCKER_MIN_API_VERSION for the engine.",
            engine=url,
        )
    return NEWEST_API if version_lt(NEWEST_API, newest) else newest


@contextlib.contextmanager
def translating(doing: str, url: str, *, is_first: bool = False) -> Iterator[None]:
    """Turn what docker-py, requests and the sockets raise into our errors.

    Args:
        doing: What the call does, for the sentence.
        url: The engine's address.
        is_first: This is the first call, so the engine may never have been there.
    """
    try:
        yield
    except UploadFailed as error:
        raise error.__cause__ or error from None
    except StreamCancelled:
        raise CallCancelled(f"{doing[:1].upper()}{doing[1:]} was cancelled.", engine=url) from None
    except StreamTimedOut as error:
        raise DeadlineExceeded(
            f"The Docker engine at {url} did not finish {doing} within {error} seconds.", engine=url
        ) from None
    except APIError as error:
        raise choose_engine_error(
            error.status_code, str(error.explanation or error), doing=doing, url=url
        ) from error
    except (
        requests.RequestException,
        urllib3.exceptions.HTTPError,
        http.client.HTTPException,
        OSError,
    ) as error:
        raise _unreachable(error, doing, url, is_first=is_first) from error
    except DockerException as error:
        raise EngineError(
            f"The Docker engine at {url} cannot be used for {doing}: {error}.", engine=url
        ) from error


def _unreachable(error: Exception, doing: str, url: str, *, is_first: bool) -> EngineUnreachable:
    reason = _innermost(error)
    if isinstance(reason, PermissionError):
        return EngineForbidden(
            f"This user may not talk to the Docker engine at {url}.",
            remedy="Add the user to the `docker` group, or set DOCKER_HOST to an engine of their own.",
            engine=url,
        )
    why = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
    if is_first or isinstance(reason, ConnectionRefusedError | FileNotFoundError):
        return EngineUnreachable(
            f"No Docker engine answers at {url} ({why[:1].lower()}{why[1:]}).",
            remedy="Start it, or set DOCKER_HOST.",
            engine=url,
        )
    return EngineUnreachable(
        f"The Docker engine at {url} went away while {doing} ({why[:1].lower()}{why[1:]}).",
        remedy="Start it if it is not running, then run this again.",
        engine=url,
    )


def _innermost(error: BaseException) -> BaseException:
    """The error at the bottom: requests and urllib3 wrap the socket's own error several times, as argument or cause."""
    for _ in range(10):
        inner = next((item for item in error.args if isinstance(item, BaseException)), None)
        inner = inner or getattr(error, "reason", None) or error.__cause__ or error.__context__
        if not isinstance(inner, BaseException):
            break
        error = inner
    return error


def _reconnect(
    kind: type[Connection], address: EngineAddress, version: EngineVersion, timeout_seconds: float
) -> Connection:
    return kind(address, version, timeout_seconds)
