"""Building images with the engine's BuildKit, through `POST /build?version=2`.

No session is opened, so a Dockerfile may use cache and bind mounts but neither `--mount=type=secret` nor ssh, and
base images that need credentials must be pulled first: BuildKit takes what the engine already holds.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import requests

from constellation_docker.engine.client import EngineClient
from constellation_docker.engine.connection import Connection
from constellation_docker.engine.errors import (
    BuildCancelled,
    BuildFailed,
    BuildTimedOut,
    CallCancelled,
    DeadlineExceeded,
    EngineError,
    EngineUnreachable,
    RegistryUnreachable,
    choose_registry_error,
    disk_full,
    says_disk_full,
)
from constellation_docker.engine.reference import ImageReference
from constellation_docker.engine.stream import never, read_messages
from constellation_docker.engine.trace import BuildStep, BuildTrace
from constellation_docker.engine.upload import Archive, compress, read_pieces


@dataclass(frozen=True)
class BuildResult:
    """A finished build.

    Attributes:
        image_id: The image's id on the engine that built it.
        steps: What was done, in order.
        seconds: From sending the context to the answer.
    """

    image_id: str
    steps: tuple[BuildStep, ...]
    seconds: float

    @property
    def is_cached(self) -> bool:
        """Whether every step of the Dockerfile came from the cache."""
        names = [step for step in self.steps if step.name.startswith("[") and "[internal]" not in step.name]
        # A base image that is on the engine already is not "cached" in BuildKit's eyes, but costs nothing.
        return all(step.is_cached for step in names if "] FROM " not in step.name)


def ignore_line(line: str) -> None:
    """The default `on_line`."""


class Builds(Connection):
    """Building images."""

    def build(
        self,
        context: Archive,
        *,
        tag: str,
        dockerfile: str = "Dockerfile",
        target: str | None = None,
        build_args: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        platform: str | None = None,
        network: str | None = None,
        no_cache: bool = False,
        on_line: Callable[[str], None] = ignore_line,
        is_cancelled: Callable[[], bool] = never,
        timeout_seconds: float | None = None,
    ) -> BuildResult:
        """Build an image from a context.

        Args:
            context: A tar archive, plain or gzipped, as a path, an open file or in pieces. Plain is better: it is sent without
                spending time on compressing weights.
            tag: Name of the image, `repository[:tag]`.
            dockerfile: Path of the Dockerfile in the context.
            target: Stage to build; None: the last.
            build_args: Values of `ARG`s. They stay visible in the image's history: no secrets.
            labels: Labels of the image.
            platform: As `linux/arm64`; None: the engine's own.
            network: Network mode of `RUN` steps: None (a bridge), `host` or `none`.
            no_cache: Do not use cached steps.
            on_line: Called with every line of output as it comes, as `#<step> <line>`.
            is_cancelled: Asked about ten times a second. When true the connection is closed, which makes the engine
                stop the build.
            timeout_seconds: Longest for the whole build.

        Raises:
            BuildFailed: A step failed; it carries the step and its last lines.
            BuildTimedOut: It took too long. The engine has stopped it.
            BuildCancelled: `is_cancelled` became true. The engine has stopped it.
            RegistryUnreachable: A base image's registry does not answer (transient).
            DiskFull: The engine's disk is full.
            EngineUnreachable: The engine went away (transient).
        """
        started = time.monotonic()
        progress = _Progress(tag, self.url)
        parameters = {
            "version": "2" if self.version.os == "linux" else "1",
            "t": tag,
            "dockerfile": dockerfile,
            "target": target,
            "buildargs": json.dumps(dict(build_args or {}), sort_keys=True),
            "labels": json.dumps(dict(labels or {}), sort_keys=True),
            "platform": platform,
            "networkmode": network,
            "nocache": "1" if no_cache else None,
            "rm": "1",
        }
        level = 0 if self.address.is_local else 1

        def send(client: EngineClient, has_left: Callable[[], bool]) -> requests.Response:
            return client.call(
                "POST",
                "/build",
                params=parameters,
                data=compress(read_pieces(context, has_left), level),
                is_stream=True,
            )

        try:
            for message in self._streaming(
                f"building {tag}",
                send,
                read_messages,
                is_cancelled=is_cancelled,
                timeout_seconds=timeout_seconds,
            ):
                for line in progress.take(message):
                    on_line(line)
        except CallCancelled:
            raise BuildCancelled(
                f"The build of {tag} was cancelled.", remedy="Run it again when it is wanted.", image=tag
            ) from None
        except DeadlineExceeded:
            step, tail = progress.trace.running or (None, ())
            raise BuildTimedOut(
                f"The build of {tag} took longer than {timeout_seconds:g} seconds"
                + (f"; it was at {step}." if step else "."),
                remedy="Raise the setting build.timeout_seconds if it should take that long.",
                step=step,
                log_tail=tail,
            ) from None
        return BuildResult(
            progress.finished_image(), progress.trace.steps, round(time.monotonic() - started, 3)
        )


class _Progress:
    """What a build's messages add up to."""

    def __init__(self, tag: str, url: str) -> None:
        self.trace = BuildTrace()
        self._tag = tag
        self._url = url
        self._image_id: str | None = None
        self._error: str | None = None
        self._classic = ""
        self._classic_tail: list[str] = []

    def take(self, message: Mapping[str, Any]) -> Iterator[str]:
        aux = message.get("aux")
        if message.get("id") == "moby.buildkit.trace" and isinstance(aux, str):
            yield from self.trace.feed(base64.b64decode(aux))
        elif isinstance(aux, Mapping) and aux.get("ID"):
            self._image_id = str(aux["ID"])
        elif "errorDetail" in message or "error" in message:
            detail = message.get("errorDetail") or {}
            self._error = str(detail.get("message") or message.get("error"))
        elif "stream" in message:  # the classic builder, on engines without BuildKit
            for line in str(message["stream"]).splitlines():
                if line.startswith("Step "):
                    self._classic, self._classic_tail = line, []
                elif line.strip():
                    self._classic_tail = [*self._classic_tail[-59:], line]
                if line.strip():
                    yield line

    def finished_image(self) -> str:
        if self._error is not None:
            raise self._failure(self._error)
        if self._image_id is None:
            raise EngineError(
                f"The Docker engine at {self._url} ended the build of {self._tag} without an image.",
                remedy="Run it again; the engine's log says more.",
                image=self._tag,
            )
        return self._image_id

    def _failure(self, message: str) -> EngineError:
        failed = self.trace.failure
        step, error, tail = failed or (self._classic or None, message, tuple(self._classic_tail))
        if says_disk_full(message) or says_disk_full(error) or any(says_disk_full(line) for line in tail):
            failure = disk_full(f"building {self._tag}" + (f", in step {step}" if step else ""), self._url)
            failure.details.update(step=step, log_tail=list(tail))
            return failure
        if "context canceled" in error or "transport is closing" in error:
            # We did not cancel, so the engine did: it is shutting down.
            return EngineUnreachable(
                f"The Docker engine at {self._url} stopped the build of {self._tag}, as it does when it shuts down.",
                remedy="Start it if it is not running, then run this again.",
                engine=self._url,
            )
        if step and "load metadata for" in step:
            base = step.rpartition(" ")[2]
            cause = choose_registry_error(error, reference=base, registry=_registry_of(base), is_push=False)
            if isinstance(cause, RegistryUnreachable):
                return cause
        where = f" in step {step}" if step else ""
        return BuildFailed(
            f"Building {self._tag} failed{where}: {error.rstrip('.')}.",
            step=step,
            log_tail=tail,
            remedy="The step's last lines say why." if tail else "Correct the Dockerfile or what it copies.",
        )


def _registry_of(reference: str) -> str:
    return ImageReference.parse(reference).registry
