"""Pulling and pushing. The engine talks to the registry; its progress stream is read for errors and digests.

Nothing is tried twice here: callers know how often they want to, and `is_transient` tells whether it can help.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import requests
from docker.errors import APIError, DockerException

from constellation_docker.engine.build import ignore_line
from constellation_docker.engine.client import EngineClient
from constellation_docker.engine.errors import (
    DigestMismatch,
    ImageNotFound,
    PushFailed,
    choose_registry_error,
)
from constellation_docker.engine.images import ImageFacts, Images
from constellation_docker.engine.reference import DOCKER_HUB, ImageReference
from constellation_docker.engine.stream import never, read_messages

_HUB_SERVER = "https://index.docker.io/v1/"
_PUSHED_DIGEST = re.compile(r"digest: (sha256:[0-9a-f]{64}) size: ")
_PULLED_DIGEST = re.compile(r"Digest: (sha256:[0-9a-f]{64})")


@dataclass(frozen=True)
class Credentials:
    """A user name and a password (or token) for a registry. The password is never shown."""

    username: str
    password: str = field(repr=False)


class Registries(Images):
    """Pulling and pushing images."""

    def pull(
        self,
        reference: str,
        credentials: Credentials | None = None,
        *,
        platform: str | None = None,
        on_line: Callable[[str], None] = ignore_line,
        is_cancelled: Callable[[], bool] = never,
        timeout_seconds: float | None = None,
    ) -> ImageFacts:
        """Pull an image, and make sure that the engine now has what the registry named.

        Args:
            reference: `[host/]name[:tag][@sha256:…]`; without tag and digest, `latest`.
            credentials: For the registry; None: what `docker login` left on this machine, if anything.
            platform: As `linux/arm64`; None: the engine's own.
            on_line: Called with every line of progress.
            is_cancelled: Asked about ten times a second.
            timeout_seconds: Longest for the whole pull.

        Raises:
            RegistryUnreachable: The registry does not answer or breaks off (transient).
            RegistryDenied: It wants other credentials.
            ImageNotInRegistry: It has no such image for this platform.
            DigestMismatch: The engine holds something else afterwards.
            DiskFull: The engine's disk is full.
        """
        name = ImageReference.parse(reference)
        # Given both, the engine ignores the tag.
        wanted = name.digest or name.tag or "latest"
        parameters = {"fromImage": name.repository, "tag": wanted, "platform": platform}

        def send(client: EngineClient, _: Callable[[], bool]) -> requests.Response:
            headers = _authentication(client, name.registry, credentials, on_line)
            return client.call("POST", "/images/create", params=parameters, headers=headers, is_stream=True)

        digest = ""
        messages = self._transferred(
            name, send, is_push=False, is_cancelled=is_cancelled, timeout_seconds=timeout_seconds
        )
        for message in messages:
            line = _progress_line(message)
            if line:
                on_line(line)
            if found := _PULLED_DIGEST.search(line):
                digest = found[1]
        local = f"{name.repository}@{name.digest}" if name.digest else f"{name.repository}:{wanted}"
        facts = self.image(local)
        if facts is None or (
            digest and digest not in {item.partition("@")[2] for item in facts.repo_digests}
        ):
            raise DigestMismatch(
                f"After pulling {reference} the Docker engine at {self.url} does not hold {digest or 'it'}.",
                remedy="Pull it again; the engine's log says more.",
                reference=reference,
            )
        if name.digest and name.tag:
            self.tag(facts.id, f"{name.repository}:{name.tag}")
            return self.require_image(local)
        return facts

    def push(
        self,
        reference: str,
        credentials: Credentials | None = None,
        *,
        on_line: Callable[[str], None] = ignore_line,
        is_cancelled: Callable[[], bool] = never,
        timeout_seconds: float | None = None,
    ) -> str:
        """Push an image, and ask the registry whether it has it.

        Args:
            reference: `[host/]name[:tag]`, the name of an image on the engine.
            credentials, on_line, is_cancelled, timeout_seconds: As for `pull`.

        Returns:
            The digest under which the registry has it, `sha256:…`.

        Raises:
            ImageNotFound: The engine has no such image.
            RegistryUnreachable: The registry does not answer or breaks off (transient).
            RegistryDenied: It wants other credentials, or these may not push.
            DigestMismatch: The registry does not have what was pushed.
            PushFailed: Anything else.
        """
        name = ImageReference.parse(reference)
        tag = name.tag or "latest"
        self.require_image(f"{name.repository}:{tag}")

        def send(client: EngineClient, _: Callable[[], bool]) -> requests.Response:
            headers = _authentication(client, name.registry, credentials, on_line)
            # The engine wants this header even for a registry without passwords.
            headers.setdefault("X-Registry-Auth", _encoded({}))
            return client.call(
                "POST",
                "/images/{0}/push",
                name.repository,
                params={"tag": tag},
                headers=headers,
                is_stream=True,
            )

        digest = ""
        messages = self._transferred(
            name, send, is_push=True, is_cancelled=is_cancelled, timeout_seconds=timeout_seconds
        )
        for message in messages:
            if line := _progress_line(message):
                on_line(line)
            aux = message.get("aux")
            if isinstance(aux, Mapping) and aux.get("Digest"):
                digest = str(aux["Digest"])
            # With containerd's image store the engine tells it in words only (moby, daemon/containerd/image_push.go).
            elif found := _PUSHED_DIGEST.search(str(message.get("status", ""))):
                digest = found[1]
        if not digest:
            raise PushFailed(
                f"The Docker engine at {self.url} ended the push of {reference} without a digest.",
                remedy="Push it again; the engine's log says more.",
                reference=reference,
            )
        held = self.registry_digest(f"{name.repository}@{digest}", credentials)
        if held != digest:
            raise DigestMismatch(
                f"After pushing {reference} the registry {name.registry} holds {held}, not {digest}.",
                remedy="Push it again; if it happens again, look at the registry's storage.",
                reference=reference,
            )
        return digest

    def registry_digest(
        self,
        reference: str,
        credentials: Credentials | None = None,
        *,
        timeout_seconds: float | None = None,
    ) -> str:
        """The digest under which a registry has an image, asked through the engine and without pulling.

        Args:
            reference: `[host/]name[:tag]` or `[host/]name@sha256:…`.
            credentials: As for `pull`.
            timeout_seconds: Longest wait.

        Raises:
            RegistryError: As for `pull`.
            DeadlineExceeded: The registry did not answer in time.
        """
        name = ImageReference.parse(reference)

        def send(client: EngineClient, _: Callable[[], bool]) -> requests.Response:
            headers = _authentication(client, name.registry, credentials, ignore_line)
            return client.call("GET", "/distribution/{0}/json", reference, headers=headers, is_stream=True)

        answers = self._transferred(
            name, send, is_push=False, is_cancelled=never, timeout_seconds=timeout_seconds
        )
        return str(next(iter(list(answers)))["Descriptor"]["digest"])

    def _transferred(
        self,
        name: ImageReference,
        send: Callable[[EngineClient, Callable[[], bool]], requests.Response],
        *,
        is_push: bool,
        is_cancelled: Callable[[], bool],
        timeout_seconds: float | None,
    ) -> Iterator[dict[str, Any]]:
        """The messages of a pull or push; the registry's complaints, wherever the engine puts them, become errors."""

        def checked(client: EngineClient, has_left: Callable[[], bool]) -> requests.Response:
            try:
                return send(client, has_left)
            except APIError as error:
                text = str(error.explanation or error)
                if is_push and "does not exist locally" in text:
                    raise _gone(name) from error
                raise _complaint(text, name, is_push=is_push) from error

        for message in self._streaming(
            f"{'pushing' if is_push else 'pulling'} {name}",
            checked,
            read_messages,
            is_cancelled=is_cancelled,
            timeout_seconds=timeout_seconds,
        ):
            if "errorDetail" in message or "error" in message:
                detail = message.get("errorDetail") or {}
                raise _complaint(str(detail.get("message") or message.get("error")), name, is_push=is_push)
            yield message


def _complaint(text: str, name: ImageReference, *, is_push: bool) -> Exception:
    return choose_registry_error(text, reference=str(name), registry=name.registry, is_push=is_push)


def _gone(name: ImageReference) -> ImageNotFound:
    return ImageNotFound(
        f"The image {name} was removed from the engine while it was about to be pushed.",
        remedy="Build it again.",
        reference=str(name),
    )


def _authentication(
    client: EngineClient,
    registry: str,
    credentials: Credentials | None,
    on_line: Callable[[str], None],
) -> dict[str, str]:
    """The header with which the engine logs in at the registry."""
    server = _HUB_SERVER if registry == DOCKER_HUB else registry
    if credentials is not None:
        given = {
            "username": credentials.username,
            "password": credentials.password,
            "serveraddress": server,
        }
        return {"X-Registry-Auth": _encoded(given)}
    try:
        known = client.read_credentials(registry)
    except DockerException:
        # A configured credential helper that is not installed must not keep public images away.
        on_line(
            f"The Docker CLI's credential helper for {registry} cannot be run; going on without credentials."
        )
        return {}
    return {"X-Registry-Auth": _encoded(known)} if known else {}


def _encoded(fields: Mapping[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(dict(fields)).encode()).decode()


def _progress_line(message: Mapping[str, Any]) -> str:
    """A line for the log; the many messages that only move a progress bar give none."""
    status = str(message.get("status") or "")
    if message.get("progressDetail") or not status:
        return ""
    layer = message.get("id")
    return f"{layer}: {status}" if layer else status
