"""Pushing and pulling with a real registry: pinned by digest, tried again when it may help, and only then."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from constellation_docker.engine import (
    Engine,
    ImageNotFound,
    ImageNotInRegistry,
    RegistryDenied,
    RegistryUnreachable,
)
from constellation_docker.errors import InvalidInput
from constellation_docker.packaging import registry as registry_module
from constellation_docker.packaging.image import BuiltImage
from constellation_docker.packaging.publishing import publish_image
from constellation_docker.packaging.registry import pull_image, push_image, registry_credentials
from constellation_docker.settings import RegistrySettings
from constellation_docker_tests.fixtures.ports import free_port
from constellation_docker_tests.fixtures.registry import RegistryServer
from constellation_docker_tests.packaging.images import make_card


@pytest.fixture
def settings(registry: RegistryServer, monkeypatch: pytest.MonkeyPatch) -> RegistrySettings:
    monkeypatch.setenv("REGISTRY_USER", registry.username)
    monkeypatch.setenv("REGISTRY_PASSWORD", registry.password)
    monkeypatch.setattr(registry_module, "FIRST_PAUSE_SECONDS", 0.01)
    return RegistrySettings(
        repository=f"{registry.address}/models",
        username="env:REGISTRY_USER",
        password="env:REGISTRY_PASSWORD",
        attempts=3,
    )


@pytest.fixture(autouse=True)
def no_names_left(engine: Engine, stand_in_image: BuiltImage) -> Iterator[None]:
    """Take the names away that a test gave the image."""
    yield
    for tag in engine.require_image(stand_in_image.image_id).tags:
        if tag != stand_in_image.tag:
            engine.remove_image(tag)


def test_a_published_image_is_pinned_by_the_registrys_digest(
    stand_in_image: BuiltImage, engine: Engine, registry: RegistryServer, settings: RegistrySettings
) -> None:
    published = publish_image(stand_in_image, make_card(), engine, settings, lambda _: None)
    assert published.is_pushed
    assert published.tag == "1.0"
    assert published.repository == f"{registry.address}/models/tests-stand-in"
    assert published.reference == f"{published.repository}@{published.digest}"
    assert registry.digest_of("models/tests-stand-in", "1.0") == published.digest


def test_publishing_twice_gives_the_same_digest(
    stand_in_image: BuiltImage, engine: Engine, settings: RegistrySettings
) -> None:
    first = publish_image(stand_in_image, make_card(), engine, settings, lambda _: None)
    again = publish_image(stand_in_image, make_card(), engine, settings, lambda _: None)
    assert first.reference == again.reference


def test_a_published_image_can_be_pulled_by_its_digest(
    stand_in_image: BuiltImage, engine: Engine, settings: RegistrySettings
) -> None:
    published = publish_image(stand_in_image, make_card(), engine, settings, lambda _: None)
    facts = pull_image(published.reference, engine, registry=settings, on_line=lambda _: None)
    assert [layer.digest for layer in stand_in_image.layers] == list(facts.layers)


def test_without_a_registry_the_image_stays_on_the_engine_and_says_so(
    stand_in_image: BuiltImage, engine: Engine
) -> None:
    told: list[str] = []
    published = publish_image(stand_in_image, make_card(), engine, RegistrySettings(), told.append)
    assert not published.is_pushed
    assert published.digest is None
    assert published.reference == stand_in_image.image_id
    assert "stays on the engine" in told[0]


def test_a_wrong_password_is_refused_at_once_and_told_nowhere(
    stand_in_image: BuiltImage, engine: Engine, settings: RegistrySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGISTRY_PASSWORD", "hunter2")
    told: list[str] = []
    with pytest.raises(RegistryDenied) as caught:
        publish_image(stand_in_image, make_card(), engine, settings, told.append)
    assert not caught.value.is_transient
    assert not any("again in" in line for line in told)
    assert "hunter2" not in str(caught.value) + repr(caught.value.details) + "".join(told)


def test_a_registry_that_is_down_is_tried_as_often_as_the_settings_say(
    stand_in_image: BuiltImage, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_module, "FIRST_PAUSE_SECONDS", 0.01)
    told: list[str] = []
    settings = RegistrySettings(repository=f"127.0.0.1:{free_port()}/models", attempts=3)
    with pytest.raises(RegistryUnreachable) as caught:
        publish_image(stand_in_image, make_card(), engine, settings, told.append)
    assert caught.value.is_transient
    assert [line for line in told if "again in" in line][-1].count("try 2 of 3") == 1


def test_a_registry_that_breaks_off_is_tried_again(
    stand_in_image: BuiltImage,
    engine: Engine,
    anonymous_registry: RegistryServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry_module, "FIRST_PAUSE_SECONDS", 0.01)
    told: list[str] = []
    with _breaking_off(anonymous_registry.address, connections=12) as address:
        settings = RegistrySettings(repository=f"{address}/broken", attempts=10)
        published = publish_image(stand_in_image, make_card(), engine, settings, told.append)
    assert any("again in" in line for line in told)
    assert anonymous_registry.digest_of("broken/tests-stand-in", "1.0") == published.digest


def test_an_image_that_the_registry_lacks_is_not_asked_for_again(
    engine: Engine, anonymous_registry: RegistryServer
) -> None:
    told: list[str] = []
    settings = RegistrySettings(repository=f"{anonymous_registry.address}/models")
    with pytest.raises(ImageNotInRegistry):
        pull_image(
            f"{anonymous_registry.address}/models/none:1", engine, registry=settings, on_line=told.append
        )
    assert not any("again in" in line for line in told)


def test_an_image_that_the_engine_lacks_is_told_of(engine: Engine, settings: RegistrySettings) -> None:
    with pytest.raises(ImageNotFound, match="constellation-test/none"):
        push_image(
            "constellation-test/none:1",
            "127.0.0.1:1/none:1",
            engine,
            registry=settings,
            on_line=lambda _: None,
        )


def test_any_image_can_be_pushed(
    stand_in_image: BuiltImage, engine: Engine, registry: RegistryServer, settings: RegistrySettings
) -> None:
    reference = f"{registry.address}/elsewhere/any:7"
    digest = push_image(stand_in_image.tag, reference, engine, registry=settings, on_line=lambda _: None)
    assert registry.digest_of("elsewhere/any", "7") == digest


def test_credentials_go_only_to_the_registry_that_they_are_for(
    engine: Engine,
    settings: RegistrySettings,
    anonymous_registry: RegistryServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[object] = []

    def pull(reference: str, credentials: object, on_line: object) -> None:
        sent.append(credentials)

    monkeypatch.setattr(engine, "pull", pull)
    pull_image(f"{anonymous_registry.address}/a:1", engine, registry=settings, on_line=lambda _: None)
    pull_image(f"{settings.repository}/a:1", engine, registry=settings, on_line=lambda _: None)
    assert sent[0] is None
    assert sent[1] is not None


def test_a_user_name_without_a_password_is_refused() -> None:
    with pytest.raises(InvalidInput, match="without a password"):
        registry_credentials(RegistrySettings(username="env:REGISTRY_USER"))


def test_a_password_that_is_not_set_is_named_by_its_reference(
    stand_in_image: BuiltImage, engine: Engine, settings: RegistrySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REGISTRY_PASSWORD")
    with pytest.raises(InvalidInput, match="env:REGISTRY_PASSWORD"):
        publish_image(stand_in_image, make_card(), engine, settings, lambda _: None)


@contextlib.contextmanager
def _breaking_off(upstream: str, *, connections: int) -> Iterator[str]:
    """A way to a registry that cuts its first connections after a few bytes, and passes all others through.

    Yields:
        Its address.
    """
    host, _, port = upstream.partition(":")
    left = [connections]
    lock = threading.Lock()

    def pass_on(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def serve(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                with lock:
                    left[0] -= 1
                    is_cut = left[0] >= 0
                if is_cut:
                    client.recv(64)
                    client.close()
                    continue
                registry = socket.create_connection((host, int(port)))
                for source, target in ((client, registry), (registry, client)):
                    threading.Thread(target=pass_on, args=(source, target), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
