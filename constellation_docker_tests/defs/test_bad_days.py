"""Bad days of the engine and the registry, followed through a whole run: one sentence, and then a good end."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from constellation_docker.defs import checks, failures, model_assets, tags
from constellation_docker.engine import Engine
from constellation_docker.packaging import BaseImage
from constellation_docker.packaging import registry as registry_module
from constellation_docker_tests.fixtures.cutting_proxy import CuttingProxy
from constellation_docker_tests.fixtures.engine import PrivateEngine
from constellation_docker_tests.fixtures.packager import Packager
from constellation_docker_tests.fixtures.registry import RegistryServer

VERIFICATION = {"constellation.role": "verification"}


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "FIRST_PAUSE_SECONDS", 0.1)
    monkeypatch.setattr(registry_module, "FIRST_PAUSE_SECONDS", 0.01)


def once_at(
    monkeypatch: pytest.MonkeyPatch, room: Any, function: str, beginning: str, act: Callable[[], None]
) -> list[str]:
    """Do something the first time that a step says a line that begins so; the lines that were said are returned."""
    said: list[str] = []
    real = getattr(room, function)

    def call(*arguments: Any, on_line: Callable[[str], None], **options: Any) -> Any:
        def tell(line: str) -> None:
            is_first = not any(earlier.startswith(beginning) for earlier in said)
            said.append(line)
            on_line(line)
            if is_first and line.startswith(beginning):
                act()

        return real(*arguments, on_line=tell, **options)

    monkeypatch.setattr(room, function, call)
    return said


def restart(private: PrivateEngine) -> Callable[[], None]:
    """Kill an engine and start it again, as after the kernel took it away."""

    def act() -> None:
        private.kill()
        private.start()

    return act


# The engine itself pushes a broken layer five times more, with pauses that grow to 25 s.
@pytest.mark.slow
def test_a_registry_that_breaks_off_in_the_middle_of_a_push_is_named_and_the_next_run_publishes(
    packager: Packager,
    anonymous_registry: RegistryServer,
    cutting_proxies: Callable[[str], CuttingProxy],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proxy = cutting_proxies(anonymous_registry.address)
    proxy.should_cut = lambda piece: piece.startswith((b"PATCH ", b"PUT "))
    monkeypatch.setenv("CONSTELLATION_REGISTRY__REPOSITORY", f"{proxy.address}/breaking")
    monkeypatch.setenv("CONSTELLATION_REGISTRY__ATTEMPTS", "2")
    row = packager.register(packager.copy())
    sentence = packager.package(row)
    assert proxy.cuts > 0
    assert "bad-day@1" in sentence and proxy.address in sentence and "publishing the image" in sentence
    (run,) = packager.instance.get_runs()
    assert run.tags[tags.IS_TRANSIENT] == "true"
    assert packager.store.get(row.model_id).published_at is None
    assert anonymous_registry.digest_of("breaking/bad-day", "1") is None

    proxy.should_cut = lambda piece: False
    assert packager.package(row) == ""
    publication = packager.store.get(row.model_id).publication
    assert publication is not None
    assert publication.image_digest == anonymous_registry.digest_of("breaking/bad-day", "1")


@pytest.mark.slow
def test_an_engine_that_restarts_in_the_middle_of_verifying_and_of_publishing_costs_another_try_only(
    packager: Packager,
    engine: Engine,
    python_base: BaseImage,
    second_engine: PrivateEngine,
    anonymous_registry: RegistryServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    second_engine.connect().load_image(engine.save_image(python_base.reference))
    monkeypatch.setenv("CONSTELLATION_BUILD__ENGINE_URL", second_engine.url)
    monkeypatch.setenv("CONSTELLATION_BUILD__NETWORK", "host")
    monkeypatch.setenv("CONSTELLATION_REGISTRY__REPOSITORY", f"{anonymous_registry.address}/restarted")
    verified = once_at(monkeypatch, checks, "verify_image", "becomes_ready: passed", restart(second_engine))
    pushed = once_at(monkeypatch, model_assets, "publish_image", "", restart(second_engine))
    row = packager.register(packager.copy())
    assert packager.package(row) == ""
    assert len([line for line in verified if line.startswith("becomes_ready: passed")]) == 2
    assert any("again in" in line for line in pushed)
    publication = packager.store.get(row.model_id).publication
    assert publication is not None
    assert publication.image_digest == anonymous_registry.digest_of("restarted/bad-day", "1")
    assert not second_engine.connect().list_containers(VERIFICATION)


@pytest.mark.slow
def test_a_disk_that_is_full_while_building_is_named_and_with_room_the_next_run_publishes(
    packager: Packager,
    engine: Engine,
    python_base: BaseImage,
    small_engine: PrivateEngine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small_engine.connect().load_image(engine.save_image(python_base.reference))
    monkeypatch.setenv("CONSTELLATION_BUILD__ENGINE_URL", small_engine.url)
    monkeypatch.setenv("CONSTELLATION_BUILD__NETWORK", "host")
    row = packager.register(packager.copy())
    sentence = packager.package(row)
    assert "bad-day@1" in sentence and "is full" in sentence and "docker system df" in sentence
    assert packager.store.get(row.model_id).published_at is None
    assert not [image for image in small_engine.connect().list_images() if "bad-day" in str(image.tags)]

    disk = str(small_engine.folder / "data")
    subprocess.run(["mount", "-o", "remount,size=2g", disk], check=True)
    assert packager.package(row) == ""
    assert packager.store.get(row.model_id).published_at is not None
