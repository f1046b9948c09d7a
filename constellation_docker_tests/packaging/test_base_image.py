"""The base images: where they come from, what is in them, and that they are the same each time."""

from __future__ import annotations

import io
import multiprocessing
import socket
import tarfile
import time
import uuid
from collections.abc import Iterator

import pytest

from constellation_docker.engine import Engine, RegistryUnreachable
from constellation_docker.packaging import base_image, debian_image, debian_rootfs
from constellation_docker.packaging.base_image import BaseImage, BaseImageUnavailable, ensure_base_image
from constellation_docker.settings import BaseImageSettings
from constellation_docker_tests.fixtures.engine import TEST_LABEL, PrivateEngine, build_context
from constellation_docker_tests.fixtures.ports import free_port
from constellation_docker_tests.fixtures.registry import RegistryServer

DEBIAN = BaseImageSettings(origin="debian")


@pytest.fixture(scope="module")
def debian_python(engine: Engine) -> BaseImage:
    """The Python base made of packages."""
    return ensure_base_image(engine, "python", DEBIAN, print)


@pytest.fixture(scope="module")
def debian_balancer(engine: Engine) -> BaseImage:
    """The balancer base made of packages."""
    return ensure_base_image(engine, "balancer", DEBIAN, print)


def _run(engine: Engine, image: BaseImage, command: list[str], *, read_only: bool = True) -> str:
    """What a command prints in a container as strict as in production."""
    config = {
        "Image": image.image_id,
        "Entrypoint": command,
        "User": "65532:65532",
        "NetworkDisabled": True,
        "Labels": {TEST_LABEL: "base"},
        "HostConfig": {"ReadonlyRootfs": read_only, "CapDrop": ["ALL"]},
    }
    with engine.temporary_container(f"constellation-test-{uuid.uuid4().hex[:12]}", config) as container:
        engine.start(container)
        code = engine.wait(container, timeout_seconds=60)
        output = engine.logs(container)
    assert code == 0, output
    return output


def test_python_runs_with_all_of_its_library(engine: Engine, debian_python: BaseImage) -> None:
    script = """
import importlib, pathlib, sys, sysconfig
import asyncio, bz2, ctypes, curses, decimal, email, hashlib, json, lzma, multiprocessing, readline, sqlite3, ssl
import unittest, uuid, venv, xml.dom.minidom, zlib, zoneinfo
library = pathlib.Path(sysconfig.get_path("stdlib"))
for extension in sorted((library / "lib-dynload").glob("*.so")):
    importlib.import_module(extension.name.split(".")[0])
assert ssl.create_default_context().cert_store_stats()["x509_ca"] > 50
assert pathlib.Path(asyncio.__cached__).is_file(), "the standard library is not compiled"
sqlite3.connect(":memory:").execute("select 1")
print(sys.executable, "%d.%d" % sys.version_info[:2])
"""
    assert debian_python.python_path is not None
    printed = _run(engine, debian_python, [debian_python.python_path, "-c", script]).split()
    assert printed == [debian_python.python_path, debian_python.python_version]


def test_python_is_found_by_its_usual_names(engine: Engine, debian_python: BaseImage) -> None:
    for name in ("python", "python3"):
        assert "Python 3." in _run(engine, debian_python, [name, "--version"])


def test_the_c_library_told_is_the_one_inside(engine: Engine, debian_python: BaseImage) -> None:
    inside = _run(
        engine, debian_python, ["python3", "-c", "import platform; print(platform.libc_ver()[1])"]
    ).strip()
    assert debian_python.libc == f"manylinux_{inside.replace('.', '_')}"


def test_wheels_of_numerical_libraries_find_their_system_libraries(
    engine: Engine, debian_python: BaseImage
) -> None:
    script = (
        "import ctypes; [ctypes.CDLL(name) for name in ('libstdc++.so.6', 'libgcc_s.so.1', 'libgomp.so.1')]"
    )
    _run(engine, debian_python, ["python3", "-c", script])


def test_the_balancer_has_haproxy_and_socat_and_folders_that_its_user_may_write(
    engine: Engine, debian_balancer: BaseImage
) -> None:
    script = (
        "id -un; haproxy -v; socat -V; touch /run/haproxy/x /etc/haproxy/x /var/lib/haproxy/x; test -d /tmp"
    )
    printed = _run(engine, debian_balancer, ["sh", "-c", f"set -e; {script}"], read_only=False)
    assert printed.startswith("constellation\n")
    assert "HAProxy version 2." in printed or "HAProxy version 3." in printed
    assert "socat version" in printed
    assert engine.require_image(debian_balancer.image_id).config["User"] == "65532:65532"


@pytest.mark.parametrize("kind", ["python", "balancer"])
def test_the_file_system_is_clean(
    engine: Engine, debian_python: BaseImage, debian_balancer: BaseImage, kind: str
) -> None:
    image = debian_python if kind == "python" else debian_balancer
    members = {member.name: member for member in _layer(engine, image)}
    assert not [name for name, member in members.items() if member.mode & 0o6000 and not member.isdir()]
    assert not [
        name for name, member in members.items() if member.ischr() or member.isblk() or member.islnk()
    ]
    assert {member.mtime for member in members.values()} == {debian_rootfs.EPOCH}
    assert members["tmp"].mode == 0o1777
    assert {member.uid for name, member in members.items() if not name.startswith("home/")} <= {0, 65532}
    unwanted = (
        "var/cache/",
        "var/log/",
        "var/lib/apt",
        "var/lib/dpkg",
        "usr/share/man",
        "usr/share/locale",
        "usr/bin/perl",
    )
    assert not [name for name in members if name.startswith(unwanted)]
    writable = [name for name, member in members.items() if member.mode & 0o002 and not member.issym()]
    assert writable == ["tmp", "var/tmp"]
    assert any(name.startswith("usr/share/doc/") and name.endswith("/copyright") for name in members)


def test_it_is_small(debian_python: BaseImage, debian_balancer: BaseImage) -> None:
    assert debian_python.size_bytes < 65_000_000
    assert debian_balancer.size_bytes < 40_000_000


def test_the_second_call_finds_what_the_first_one_made(engine: Engine, debian_python: BaseImage) -> None:
    lines: list[str] = []
    assert ensure_base_image(engine, "python", DEBIAN, lines.append) == debian_python
    assert lines == []


def test_images_built_upon_it_are_not_taken_for_it(engine: Engine, debian_python: BaseImage) -> None:
    tag = f"constellation-test-upon:{uuid.uuid4().hex[:12]}"
    engine.build(build_context({"Dockerfile": f"FROM {debian_python.reference}\nLABEL a={tag}"}), tag=tag)
    try:
        assert ensure_base_image(engine, "python", DEBIAN, print) == debian_python
    finally:
        engine.remove_image(tag)


@pytest.mark.slow
def test_made_again_on_another_engine_by_two_processes_at_once_it_is_the_same(
    engine: Engine, debian_python: BaseImage, second_engine: PrivateEngine
) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(2) as pool:
        found = pool.map(_make_at, [second_engine.url, second_engine.url])
    other = second_engine.connect()
    assert found[0] == found[1]
    assert other.require_image(found[0]).layers == engine.require_image(debian_python.image_id).layers
    assert len([row for row in other.list_images({"constellation.base.kind": "python"}) if row.tags]) == 1


def _make_at(url: str) -> str:
    return ensure_base_image(Engine.connect(url), "python", DEBIAN, print).reference


def test_a_registry_that_answers_is_preferred_and_its_image_is_pinned(
    engine: Engine, debian_python: BaseImage, anonymous_registry: RegistryServer
) -> None:
    wanted = f"{anonymous_registry.address}/library/python:3-{uuid.uuid4().hex[:8]}"
    engine.tag(debian_python.reference, wanted)
    digest = engine.push(wanted)
    engine.remove_image(wanted)
    settings = BaseImageSettings(python=wanted)
    lines: list[str] = []
    try:
        found = ensure_base_image(engine, "python", settings, lines.append)
        assert found.origin == "registry"
        assert found.reference == f"{anonymous_registry.address}/library/python@{digest}"
        assert (found.python_version, found.python_path) == (
            debian_python.python_version,
            debian_python.python_path,
        )
        assert found.libc == debian_python.libc
        assert any(wanted in line for line in lines)
        lines.clear()
        assert ensure_base_image(engine, "python", settings, lines.append) == found
        assert lines == []
    finally:
        _forget(engine, anonymous_registry.address)


def test_a_registrys_haproxy_gets_what_a_balancer_needs(
    engine: Engine, debian_balancer: BaseImage, anonymous_registry: RegistryServer
) -> None:
    wanted = f"{anonymous_registry.address}/library/haproxy:lts-{uuid.uuid4().hex[:8]}"
    engine.tag(debian_balancer.reference, wanted)
    engine.push(wanted)
    engine.remove_image(wanted)
    settings = BaseImageSettings(haproxy=wanted)
    found = ensure_base_image(engine, "balancer", settings, print)
    try:
        assert found.origin == "registry"
        assert engine.require_image(found.reference).config["User"] == "65532:65532"
        assert "socat version" in _run(engine, found, ["socat", "-V"])
        lines: list[str] = []
        assert ensure_base_image(engine, "balancer", settings, lines.append) == found
        assert lines == []
    finally:
        if found.reference != debian_balancer.reference:
            engine.remove_image(found.reference)
        _forget(engine, anonymous_registry.address)


def test_without_a_registry_packages_are_taken_and_that_is_remembered(
    engine: Engine, debian_python: BaseImage
) -> None:
    settings, other = (BaseImageSettings(python=f"127.0.0.1:{free_port()}/python:3") for _ in range(2))
    lines: list[str] = []
    try:
        assert ensure_base_image(engine, "python", settings, lines.append) == debian_python
        assert "connection refused" in lines[0]
        assert "Taking Debian packages instead" in lines[0]
        lines.clear()
        assert ensure_base_image(engine, "python", settings, lines.append) == debian_python
        assert lines == []
        # Another wish is not answered with what was remembered of this one.
        ensure_base_image(engine, "python", other, lines.append)
        assert "connection refused" in lines[0]
    finally:
        for asked in (settings.python, other.python):
            engine.remove_image(base_image._substitute("python", asked))


def test_a_registry_that_never_answers_costs_a_few_seconds_only(
    engine: Engine, debian_python: BaseImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_image, "REGISTRY_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = BaseImageSettings(python=f"127.0.0.1:{silent.getsockname()[1]}/python:3")
        started = time.monotonic()
        assert ensure_base_image(engine, "python", settings, print) == debian_python
    assert time.monotonic() - started < 30, "pulling itself would have waited much longer"
    engine.remove_image(base_image._substitute("python", settings.python))


def test_where_only_a_registry_is_allowed_its_absence_is_the_error(engine: Engine) -> None:
    settings = BaseImageSettings(origin="registry", python=f"127.0.0.1:{free_port()}/python:3")
    with pytest.raises(RegistryUnreachable):
        ensure_base_image(engine, "python", settings, print)


def test_a_base_image_without_python_is_refused(
    engine: Engine, debian_balancer: BaseImage, anonymous_registry: RegistryServer
) -> None:
    wanted = f"{anonymous_registry.address}/library/nopython:{uuid.uuid4().hex[:8]}"
    engine.tag(debian_balancer.reference, wanted)
    engine.push(wanted)
    try:
        with pytest.raises(Exception, match="python3") as caught:
            ensure_base_image(engine, "python", BaseImageSettings(origin="registry", python=wanted), print)
        assert "python3" in str(caught.value)
    finally:
        _forget(engine, anonymous_registry.address)


def test_without_mmdebstrap_and_without_root_it_is_one_clear_sentence(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_image, "_newest", lambda *_: None)
    monkeypatch.setattr(debian_image.shutil, "which", lambda _: None)
    monkeypatch.setattr(debian_image.os, "geteuid", lambda: 1000)
    with pytest.raises(BaseImageUnavailable) as caught:
        ensure_base_image(engine, "python", DEBIAN, print)
    assert "mmdebstrap is missing" in caught.value.message
    assert "apt-get install mmdebstrap" in caught.value.remedy


def test_a_mirror_that_does_not_answer_may_be_tried_again(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = BaseImageSettings(origin="debian", debian_mirror=f"http://127.0.0.1:{free_port()}/debian")
    with pytest.raises(debian_image.DebianMirrorUnreachable) as caught:
        ensure_base_image(engine, "python", settings, print, refresh=True)
    assert caught.value.is_transient
    assert "base_image.debian_mirror" in caught.value.remedy
    assert caught.value.details["log_tail"]


def _layer(engine: Engine, image: BaseImage) -> Iterator[tarfile.TarInfo]:
    saved = io.BytesIO(b"".join(engine.save_image(image.reference)))
    with tarfile.open(fileobj=saved) as archive:
        name = next(name for name in archive.getnames() if name.endswith("layer.tar"))
        with tarfile.open(fileobj=archive.extractfile(name)) as layer:
            yield from layer.getmembers()


def _forget(engine: Engine, address: str) -> None:
    """Remove every name that begins with a registry's address."""
    for row in engine.list_images():
        for name in (*row.tags, *row.repo_digests):
            if name.startswith(f"{address}/"):
                engine.remove_image(name, force=False)
