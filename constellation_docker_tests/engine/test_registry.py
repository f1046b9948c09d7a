"""Pulling and pushing with a real registry, on good days and bad ones."""

from __future__ import annotations

import base64
import json
import socket
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from constellation_docker.engine import (
    Credentials,
    DeadlineExceeded,
    DiskFull,
    Engine,
    ImageNotFound,
    ImageNotInRegistry,
    ImageReference,
    PullFailed,
    PushFailed,
    RegistryDenied,
    RegistryError,
    RegistryUnreachable,
    RegistryUntrusted,
)
from constellation_docker.engine.errors import choose_registry_error
from constellation_docker.errors import ConstellationError, InvalidInput
from constellation_docker_tests.fixtures.cutting_proxy import CuttingProxy
from constellation_docker_tests.fixtures.engine import TEST_LABEL, build_context, has_containerd_store
from constellation_docker_tests.fixtures.ports import free_port
from constellation_docker_tests.fixtures.registry import RegistryServer


@pytest.fixture
def image(engine: Engine) -> Iterator[str]:
    """A small image of our own, never seen by any registry; all its names go afterwards."""
    content = uuid.uuid4().hex
    name = f"constellation-test-registry:{content[:12]}"
    context = build_context(
        {"Dockerfile": "FROM scratch\nCOPY content /content", "content": content * 20_000}
    )
    image_id = engine.build(context, tag=name, labels={TEST_LABEL: "registry"}).image_id
    yield name
    if facts := engine.image(image_id):
        for known in (*facts.tags, *facts.repo_digests):
            engine.remove_image(known, force=True)


@pytest.fixture
def credentials(registry: RegistryServer) -> Credentials:
    """The right ones."""
    return Credentials(registry.username, registry.password)


def test_a_pushed_image_is_in_the_registry_under_the_digest_returned(
    engine: Engine, registry: RegistryServer, credentials: Credentials, image: str
) -> None:
    reference = f"{registry.address}/team/model:1.0"
    engine.tag(image, reference)
    lines: list[str] = []
    digest = engine.push(reference, credentials, on_line=lines.append)
    assert digest == registry.digest_of("team/model", "1.0")
    assert engine.registry_digest(reference, credentials) == digest
    assert any("Pushed" in line for line in lines)
    assert not any(registry.password in line for line in lines)


def test_what_was_pushed_can_be_pulled_by_tag_and_by_digest(
    engine: Engine, registry: RegistryServer, credentials: Credentials, image: str
) -> None:
    reference = f"{registry.address}/team/model:{uuid.uuid4().hex[:8]}"
    layers = engine.require_image(image).layers
    engine.tag(image, reference)
    digest = engine.push(reference, credentials)
    pinned = f"{registry.address}/team/model@{digest}"
    for name in (reference, image):
        engine.remove_image(name)
    assert engine.image(pinned) is None
    assert engine.pull(reference, credentials).layers == layers
    engine.remove_image(reference)
    engine.remove_image(pinned)
    pulled = engine.pull(f"{reference}@{digest}", credentials)
    assert pulled.layers == layers
    assert reference in pulled.tags
    assert pulled.digest_in(f"{registry.address}/team/model") == digest
    engine.tag(pulled.id, image)  # so that the fixture finds it


def test_a_wrong_password_is_refused_and_not_worth_another_try(
    engine: Engine, registry: RegistryServer, image: str
) -> None:
    reference = f"{registry.address}/team/model:2"
    engine.tag(image, reference)
    wrong = Credentials(registry.username, "not the password")
    for call in (engine.push, engine.pull, engine.registry_digest):
        with pytest.raises(RegistryDenied, match=registry.address) as caught:
            call(reference, wrong)
        assert not caught.value.is_transient
        assert "not the password" not in f"{caught.value} {caught.value.details}"


def test_no_password_is_refused(
    engine: Engine, registry: RegistryServer, image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    reference = f"{registry.address}/team/model:2"
    engine.tag(image, reference)
    with pytest.raises(RegistryDenied):
        engine.push(reference)


def test_what_docker_login_left_is_used(
    engine: Engine, registry: RegistryServer, image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = base64.b64encode(f"{registry.username}:{registry.password}".encode()).decode()
    (tmp_path / "config.json").write_text(
        json.dumps({"auths": {registry.address: {"auth": secret}}}), encoding="utf-8"
    )
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    reference = f"{registry.address}/team/model:login"
    engine.tag(image, reference)
    assert Engine.connect(engine.url).push(reference).startswith("sha256:")


@pytest.mark.filterwarnings("ignore:docker-credential-not-installed-here")
def test_a_credential_helper_that_is_not_installed_does_not_keep_public_images_away(
    engine: Engine,
    anonymous_registry: RegistryServer,
    image: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "config.json").write_text('{"credsStore": "not-installed-here"}', encoding="utf-8")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    reference = f"{anonymous_registry.address}/team/model:1"
    engine.tag(image, reference)
    lines: list[str] = []
    assert Engine.connect(engine.url).push(reference, on_line=lines.append).startswith("sha256:")
    assert any("credential helper" in line for line in lines)


def test_a_registry_that_is_down_may_be_tried_again(engine: Engine, image: str) -> None:
    address = f"127.0.0.1:{free_port()}"
    reference = f"{address}/team/model:1"
    engine.tag(image, reference)
    for call in (engine.push, engine.pull, engine.registry_digest):
        with pytest.raises(RegistryUnreachable, match=address) as caught:
            call(reference)
        assert caught.value.is_transient


def test_a_registry_that_never_answers_costs_no_more_than_the_time_given(engine: Engine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        reference = f"127.0.0.1:{silent.getsockname()[1]}/team/model:1"
        with pytest.raises(DeadlineExceeded):
            engine.registry_digest(reference, timeout_seconds=0.5)


def test_an_image_that_the_registry_has_not_got_is_named(
    engine: Engine, anonymous_registry: RegistryServer
) -> None:
    reference = f"{anonymous_registry.address}/no/such:1"
    with pytest.raises(ImageNotInRegistry, match=reference) as caught:
        engine.pull(reference)
    assert not caught.value.is_transient


def test_an_image_that_the_engine_has_not_got_cannot_be_pushed(
    engine: Engine, anonymous_registry: RegistryServer
) -> None:
    with pytest.raises(ImageNotFound):
        engine.push(f"{anonymous_registry.address}/no/such:1")


def test_a_connection_cut_in_the_middle_of_a_push_fails_and_the_next_push_is_right(
    engine: Engine,
    anonymous_registry: RegistryServer,
    image: str,
    cutting_proxies: Callable[[str], CuttingProxy],
) -> None:
    proxy = cutting_proxies(anonymous_registry.address)
    # The layers are there by then, the manifest is not: the engine itself does not try that again.
    proxy.should_cut = lambda piece: piece.startswith(b"PUT /v2/team/cut/manifests")
    reference = f"{proxy.address}/team/cut:1"
    engine.tag(image, reference)
    with pytest.raises(RegistryUnreachable) as caught:
        engine.push(reference)
    assert caught.value.is_transient
    assert proxy.cuts == 1
    assert anonymous_registry.digest_of("team/cut", "1") is None
    proxy.should_cut = lambda _: False
    assert engine.push(reference) == anonymous_registry.digest_of("team/cut", "1")


def test_a_connection_cut_within_a_layer_heals_by_itself(
    engine: Engine,
    anonymous_registry: RegistryServer,
    image: str,
    cutting_proxies: Callable[[str], CuttingProxy],
) -> None:
    if has_containerd_store(engine):
        pytest.skip("with containerd's image store the engine leaves trying again to who pushes")
    proxy = cutting_proxies(anonymous_registry.address)
    proxy.should_cut = lambda piece: proxy.cuts == 0 and piece.startswith(b"PATCH /v2/team/healed/blobs")
    reference = f"{proxy.address}/team/healed:1"
    engine.tag(image, reference)
    assert engine.push(reference) == anonymous_registry.digest_of("team/healed", "1")
    assert proxy.cuts == 1


def test_a_password_shows_nowhere() -> None:
    credentials = Credentials("someone", "very secret")
    assert "very secret" not in f"{credentials} {credentials!r}"


@pytest.mark.parametrize(
    ("said", "kind", "is_transient"),
    [
        ("unauthorized: authentication required", RegistryDenied, False),
        ("denied: requested access to the resource is denied", RegistryDenied, False),
        ("no basic auth credentials", RegistryDenied, False),
        ("manifest for x:1 not found: manifest unknown: manifest unknown", ImageNotInRegistry, False),
        ("no matching manifest for linux/arm64/v8 in the manifest list entries", ImageNotInRegistry, False),
        ('Get "https://r/v2/": dial tcp 1.2.3.4:443: connect: connection refused', RegistryUnreachable, True),
        ("dial tcp: lookup r on 127.0.0.53:53: no such host", RegistryUnreachable, True),
        ("net/http: TLS handshake timeout", RegistryUnreachable, True),
        ("unexpected EOF", RegistryUnreachable, True),
        ("toomanyrequests: You have reached your pull rate limit", RegistryUnreachable, True),
        ("received unexpected HTTP status: 503 Service Unavailable", RegistryUnreachable, True),
        ("http: server gave HTTP response to HTTPS client", RegistryUntrusted, False),
        ("x509: certificate signed by unknown authority", RegistryUntrusted, False),
        ("write /var/lib/docker/tmp/x: no space left on device", DiskFull, False),
    ],
)
def test_what_the_engine_passes_on_is_told_apart(
    said: str, kind: type[ConstellationError], is_transient: bool
) -> None:
    error = choose_registry_error(said, reference="r/x:1", registry="r", is_push=True)
    assert type(error) is kind
    assert error.is_transient is is_transient
    assert "r/x:1" in error.message


@pytest.mark.parametrize(("is_push", "kind"), [(True, PushFailed), (False, PullFailed)])
def test_anything_else_is_a_failed_push_or_pull(is_push: bool, kind: type[RegistryError]) -> None:
    error = choose_registry_error("never heard of", reference="r/x:1", registry="r", is_push=is_push)
    assert type(error) is kind
    assert not error.is_transient


DIGEST = f"sha256:{'a' * 64}"


@pytest.mark.parametrize(
    ("text", "repository", "registry", "tag", "digest"),
    [
        ("python", "python", "docker.io", None, None),
        ("python:3.12-slim", "python", "docker.io", "3.12-slim", None),
        ("team/model:1", "team/model", "docker.io", "1", None),
        ("localhost/model", "localhost/model", "localhost", None, None),
        ("127.0.0.1:5000/a/b:1", "127.0.0.1:5000/a/b", "127.0.0.1:5000", "1", None),
        ("registry.example/a/b", "registry.example/a/b", "registry.example", None, None),
        (f"h:1/a@{DIGEST}", "h:1/a", "h:1", None, DIGEST),
        (f"h:1/a:2@{DIGEST}", "h:1/a", "h:1", "2", DIGEST),
    ],
)
def test_a_reference_is_taken_apart(
    text: str, repository: str, registry: str, tag: str | None, digest: str | None
) -> None:
    found = ImageReference.parse(text)
    assert (found.repository, found.registry, found.tag, found.digest) == (repository, registry, tag, digest)
    assert str(found) == text


@pytest.mark.parametrize(
    "text", ["", "UPPER", "a:", "a@", "a@sha256:1", "a b", "a:t:u", "-a", "a//b", f"a@{DIGEST}0"]
)
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="is not an image reference"):
        ImageReference.parse(text)
