"""Where Debian packages come from, and what of them becomes a layer."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from constellation_docker.packaging.apt_sources import plan_sources
from constellation_docker.packaging.debian_rootfs import (
    plan_recipe,
    render_command,
    seal_layer,
    stays,
)

DEB822 = """\
Types: deb
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
"""


def test_packages_come_from_this_machines_own_sources() -> None:
    other = "deb https://packages.example stable other\n# deb http://old.example bookworm main\n"
    sources = plan_sources("bookworm", None, "bookworm", {"/a/debian.sources": DEB822, "/a/x.list": other})
    assert sources.splitlines() == [
        "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://mirror.example/debian bookworm main",
        "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://mirror.example/debian bookworm-updates main",
        "deb http://mirror.example/debian-security bookworm-security main",
    ]


def test_another_suite_comes_from_the_same_mirrors() -> None:
    one_line = "deb [arch=amd64 trusted=yes] http://m/debian bookworm main contrib # ours\n"
    sources = plan_sources("trixie", None, "bookworm", {"/etc/apt/sources.list": one_line})
    assert sources == "deb [trusted=yes] http://m/debian trixie main\n"


def test_a_mirror_of_the_settings_wins() -> None:
    sources = plan_sources("bookworm", "http://own/debian/", "bookworm", {"/a/debian.sources": DEB822})
    assert sources == "deb http://own/debian bookworm main\ndeb http://own/debian bookworm-updates main\n"


def test_elsewhere_than_on_debian_the_well_known_mirror_is_taken() -> None:
    assert plan_sources("bookworm", None, None, {}) == ""
    command = render_command(plan_recipe("python", "bookworm", "arm64"), Path("t.tar"), Path("hook"), "")
    assert command[-2:] == ["bookworm", "t.tar"]
    assert "--architectures=arm64" in command


def test_a_recipe_is_known_by_everything_that_decides_on_it() -> None:
    recipes = [
        plan_recipe("python", "bookworm", "amd64"),
        plan_recipe("balancer", "bookworm", "amd64"),
        plan_recipe("python", "trixie", "amd64"),
        plan_recipe("python", "bookworm", "arm64"),
    ]
    assert len({recipe.digest for recipe in recipes}) == len(recipes)
    assert plan_recipe("python", "bookworm", "amd64").digest == recipes[0].digest


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("usr/bin/python3.11", True),
        ("usr/bin/perl", False),
        ("usr/bin", True),
        ("etc/ssl/openssl.cnf", True),
        ("etc/ssl", True),
        ("etc/apt/sources.list", False),
        ("usr/share/doc/libc6/copyright", True),
        ("usr/share/doc/libc6/changelog.gz", False),
        ("usr/lib/python3.11/json/__init__.py", True),
        ("usr/lib/python3.11/test/support/__init__.py", False),
        ("usr/lib/x86_64-linux-gnu/gconv/BIG5.so", False),
        ("lib/x86_64-linux-gnu/libc.so.6", True),
        ("var/cache/apt/pkgcache.bin", False),
    ],
)
def test_what_stays_and_what_goes(path: str, expected: bool) -> None:
    assert stays(path, "python") is expected


def test_a_layer_depends_neither_on_order_nor_on_time_nor_on_owners(tmp_path: Path) -> None:
    files = {
        "./usr/lib/a": b"a",
        "./usr/lib/b": b"b",
        "./usr/share/doc/x/changelog": b"1",
        "./usr/bin/python3.11": b"py",
    }
    digests = []
    for number, names in enumerate((list(files), list(reversed(files)))):
        packed = tmp_path / f"{number}.tar"
        with tarfile.open(packed, "w") as archive:
            for name in names:
                member = tarfile.TarInfo(name)
                member.size, member.mtime, member.uid = (
                    len(files[name]),
                    5 if "doc" in name else 100 + number,
                    number,
                )
                member.mode = 0o4755
                archive.addfile(member, io.BytesIO(files[name]))
            link = tarfile.TarInfo("./usr/lib/c")
            link.type, link.linkname = tarfile.LNKTYPE, "./usr/lib/b"
            archive.addfile(link)
        sealed = seal_layer(packed, tmp_path / f"{number}.layer", "python")
        digests.append(sealed.digest)
    assert digests[0] == digests[1]
    assert (sealed.python_version, sealed.python_path, sealed.packaged) == ("3.11", "/usr/bin/python3.11", 5)
    with tarfile.open(tmp_path / "1.layer") as layer:
        assert layer.extractfile("usr/lib/c").read() == b"b"  # type: ignore[union-attr]
        assert layer.getmember("usr/bin/python3.11").mode == 0o755
