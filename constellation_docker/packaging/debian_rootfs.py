"""Root file systems made of Debian packages, small and the same each time.

`mmdebstrap --variant=extract` downloads and unpacks packages without running their scripts. What those scripts would
have made (users, the certificate bundle, Python's bytecode) is made here, what a container never needs is left out,
and everything is sealed into one archive in which nothing depends on when and where it was made.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO

EPOCH = 1_700_000_000  # the time that every file carries
USER_ID = 65532
USER_NAME = "constellation"
_FORMAT = 1  # raised whenever the code below makes something else of the same packages

_BASICS = ("base-files", "netbase", "libc-bin", "dash", "coreutils", "ca-certificates")
_PACKAGES: dict[str, tuple[str, ...]] = {
    # libstdc++ and libgomp are what wheels of numerical libraries expect of the system.
    "python": (*_BASICS, "python3", "libstdc++6", "libgomp1"),
    # socat speaks to HAProxy's runtime socket.
    "balancer": (*_BASICS, "haproxy", "socat"),
}

# Of these folders only what is named here stays. Shell tools: enough for build steps and a look inside.
_TOOL_NAMES = (
    "sh dash env cat cp mv rm mkdir rmdir ln ls chmod chown touch head tail sleep true false test [ "
    "echo printf id whoami date df du dd stat sync sort uniq wc cut tr tee seq od expr install "
    "readlink realpath basename dirname mktemp nproc uname timeout printenv pwd base64 sha256sum "
    "md5sum cksum truncate getent ldconfig nohup python3 python3.[0-9]* haproxy socat socat1"
)
_TOOLS = tuple(_TOOL_NAMES.split())
_STAYS: dict[str, tuple[str, ...]] = {
    "bin": _TOOLS,
    "sbin": _TOOLS,
    "usr/bin": _TOOLS,
    "usr/sbin": _TOOLS,
    "etc": (
        "debian_version",
        "gai.conf",
        "host.conf",
        "ld.so.cache",
        "ld.so.conf",
        "ld.so.conf.d",
        "mime.types",
        "os-release",
        "protocols",
        "rpc",
        "services",
        "ssl/openssl.cnf",
    ),
    # Licences stay with what they license.
    "usr/share": ("zoneinfo", "doc/*/copyright"),
    "var": (),
    "boot": (),
    "dev": (),
    "opt": (),
    "srv": (),
    "media": (),
    "mnt": (),
    "usr/games": (),
    "usr/include": (),
    "usr/libexec": (),
    "usr/src": (),
    "usr/local": (),
}
# Of the libraries and of Python's standard library everything stays but this.
_GOES = tuple(
    re.compile(pattern)
    for pattern in (
        # character sets of other computers, Perl, hardware crypto, account tools, debugging aids
        r"(usr/)?lib/[^/]+/(gconv|krb5|perl|perl-base|perl5|engines-3|ossl-modules|audit|security)(/|$)",
        r"(usr/)?lib/[^/]+/lib(perl|sepol|semanage|audit|pam|cap-ng|memusage|pcprofile|c_malloc_debug|thread_db"
        r"|nss_hesiod|debconfclient|gdbm|db-5)[^/]*$",
        r"(usr/)?lib/(systemd|udev|init|lsb|tmpfiles\.d|sysusers\.d|binfmt\.d|mime|valgrind|dpkg|apt)(/|$)",
        r"usr/lib/ssl/(misc|private)(/|$)",
        # windows, tutorials, tests, and NIS and dbm with the libraries (Kerberos among them) that only they need
        r"usr/lib/python3[^/]*/(test|idlelib|tkinter|turtledemo|lib2to3|pydoc_data|config-[^/]*)(/|$)",
        r"usr/lib/python3[^/]*/(distutils/tests|ctypes/test|sqlite3/test|unittest/test)(/|$)",
        r"usr/lib/python3[^/]*/(__pycache__/)?turtle\.",
        r"usr/lib/python3[^/]*/lib-dynload/(_test|_ctypes_test|_xxtest|xxlimited|xxsubtype|_dbm|_gdbm|nis|ossaudiodev)",
    )
)

_GOES_FROM_PYTHON = re.compile(
    r"(usr/)?lib/[^/]+/lib(krb5|k5crypto|gssapi_krb5|com_err|keyutils|tirpc|nsl\.so\.2)[^/]*$"
)

_LOGINS = f"""\
root:x:0:0:root:/root:/bin/sh
{USER_NAME}:x:{USER_ID}:{USER_ID}:{USER_NAME}:/home/{USER_NAME}:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
"""
_GROUPS = f"root:x:0:\n{USER_NAME}:x:{USER_ID}:\nnogroup:x:65534:\n"
_NAME_SERVICES = "passwd: files\ngroup: files\nhosts: files dns\nprotocols: files\nservices: files\n"
_CERTIFICATES = "usr/share/ca-certificates/"
_BUNDLE = "etc/ssl/certs/ca-certificates.crt"

# Runs inside what was unpacked, with the system's own loader and Python; both write the same bytes each time.
_HOOK = """\
set -eu
if chroot "$1" /bin/true 2>/dev/null; then
    chroot "$1" /sbin/ldconfig
    if [ -e "$1/usr/bin/python3" ]; then
        for library in "$1"/usr/lib/python3.*; do
            chroot "$1" /usr/bin/env -i PATH=/usr/bin:/bin PYTHONHASHSEED=0 LANG=C.UTF-8 \\
                /usr/bin/python3 -S -m compileall -q -j1 --invalidation-mode unchecked-hash \\
                -x '/(test|tests|idlelib|tkinter|lib2to3|pydoc_data)/' "${library#"$1"}"
        done
    fi
fi
"""


@dataclass(frozen=True)
class Recipe:
    """What a root file system is made of.

    Attributes:
        kind: `python` or `balancer`.
        suite: Debian suite.
        architecture: As Debian and Docker name it (`amd64`).
        packages: What is asked for; dependencies come with it.
    """

    kind: str
    suite: str
    architecture: str
    packages: tuple[str, ...]

    @property
    def digest(self) -> str:
        """A digest of everything that decides on the result, but the packages' versions."""
        going = [pattern.pattern for pattern in (*_GOES, _GOES_FROM_PYTHON)]
        facts = [_FORMAT, self.kind, self.suite, self.architecture, self.packages, _STAYS, going, _HOOK]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def plan_recipe(kind: str, suite: str, architecture: str) -> Recipe:
    """The recipe of one kind of base image."""
    return Recipe(kind, suite, architecture, _PACKAGES[kind])


def render_command(recipe: Recipe, target: Path, hook: Path, sources: str) -> list[str]:
    """The mmdebstrap call that unpacks a recipe's packages into an archive.

    Args:
        recipe: What to unpack.
        target: Archive to write.
        hook: File with the hook (`render_hook`).
        sources: apt sources, one `deb …` a line; `-` in mmdebstrap's terms, given on standard input.
    """
    return [
        "mmdebstrap",
        "--variant=extract",
        "--format=tar",
        f"--architectures={recipe.architecture}",
        f"--include={','.join(recipe.packages)}",
        f"--extract-hook={hook}",
        recipe.suite,
        str(target),
        *([] if not sources else ["-"]),
    ]


def render_hook() -> str:
    """A shell script for what has to run inside the unpacked system."""
    return f"#!/bin/sh\n{_HOOK}"


@dataclass(frozen=True)
class SealedLayer:
    """A finished layer.

    Attributes:
        digest: `sha256:…` of the archive.
        size_bytes: Of the archive.
        python_version: As `3.11`, where there is a Python.
        python_path: As `/usr/bin/python3.11`.
        libc_version: As `2.36`, of the C library inside.
        packaged: When the newest package was made, in seconds since 1970.
    """

    digest: str
    size_bytes: int
    python_version: str | None
    python_path: str | None
    libc_version: str | None
    packaged: int


def seal_layer(unpacked: Path, layer: Path, kind: str) -> SealedLayer:
    """Write a layer from what mmdebstrap unpacked.

    Sorted by path; no device, no set-uid bit, one time for all; everything belongs to root but what the container's
    user must write.

    Args:
        unpacked: mmdebstrap's archive.
        layer: Archive to write.
        kind: `python` or `balancer`.
    """
    with tarfile.open(unpacked) as source, layer.open("wb") as file:
        members = {_path(member): member for member in source.getmembers()}
        kept = {
            path: member
            for path, member in members.items()
            if path
            and stays(path, kind)
            and (member.isfile() or member.isdir() or member.issym() or member.islnk())
        }
        made = _made_files(source, members, kind)
        libc_version = _libc_version(source, members)
        with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as target:
            for path in sorted({*kept, *made}):
                if path in made:
                    member, content = made[path]
                    target.addfile(_sealed(member, path), io.BytesIO(content))
                else:
                    _copy(source, kept[path], path, target)
    python = next((path for path in sorted(kept) if re.fullmatch(r"usr/bin/python3\.\d+", path)), None)
    return SealedLayer(
        digest=f"sha256:{_digest_of(layer)}",
        size_bytes=layer.stat().st_size,
        python_version=python.removeprefix("usr/bin/python") if python else None,
        python_path=f"/{python}" if python else None,
        libc_version=libc_version,
        # Documentation alone is sure to carry its maker's time, and not the time of unpacking.
        packaged=max(
            int(members[path].mtime)
            for path in members
            if path.startswith("usr/share/doc/") and members[path].isfile()
        ),
    )


def stays(path: str, kind: str) -> bool:
    """Whether a path of the unpacked packages belongs into the layer of this kind."""
    for folder, names in _STAYS.items():
        if path.startswith(f"{folder}/"):
            rest = path.removeprefix(f"{folder}/")
            is_named = any(fnmatchcase(rest, name) or fnmatchcase(rest, f"{name}/*") for name in names)
            return is_named or any(name.startswith(f"{rest}/") for name in names)
    going = (*_GOES, _GOES_FROM_PYTHON) if kind == "python" else _GOES
    return not any(pattern.match(path) for pattern in going)


def _libc_version(source: tarfile.TarFile, members: Mapping[str, tarfile.TarInfo]) -> str | None:
    for path, member in members.items():
        if path.endswith("/libc.so.6") and member.isfile():
            found = re.search(rb"GNU C Library .*?version (\d+\.\d+)", _read(source, member))
            return found[1].decode() if found else None
    return None


def _made_files(
    source: tarfile.TarFile, members: Mapping[str, tarfile.TarInfo], kind: str
) -> dict[str, tuple[tarfile.TarInfo, bytes]]:
    """What the packages' scripts would have made, and what makes it a container of ours."""
    bundle = b"".join(
        _read(source, members[path]).rstrip(b"\n") + b"\n"
        for path in sorted(members)
        if path.startswith(_CERTIFICATES) and path.endswith(".crt")
    )
    made = {
        "etc/passwd": _file(_LOGINS),
        "etc/group": _file(_GROUPS),
        "etc/nsswitch.conf": _file(_NAME_SERVICES),
        "etc/hostname": _file(""),
        "etc/hosts": _file(""),
        "etc/resolv.conf": _file(""),
        _BUNDLE: _file(bundle),
        # OpenSSL's default file, for programs that do not name one.
        "usr/lib/ssl/cert.pem": _link(f"/{_BUNDLE}"),
        "tmp": _folder(0o1777),
        "var": _folder(0o755),
        "var/lib": _folder(0o755),
        "var/tmp": _folder(0o1777),
        "run": _folder(0o755),
        f"home/{USER_NAME}": _folder(0o755, USER_ID),
    }
    if kind == "python":
        made["usr/bin/python"] = _link("python3")
    if kind == "balancer":
        # Its configuration, its state and its runtime socket.
        for path in ("etc/haproxy", "run/haproxy", "var/lib/haproxy"):
            made[path] = _folder(0o755, USER_ID)
    return made


def _file(content: str | bytes) -> tuple[tarfile.TarInfo, bytes]:
    data = content.encode() if isinstance(content, str) else content
    member = tarfile.TarInfo()
    member.mode, member.size = 0o644, len(data)
    return member, data


def _link(target: str) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo()
    member.type, member.linkname, member.mode = tarfile.SYMTYPE, target, 0o777
    return member, b""


def _folder(mode: int, owner: int = 0) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo()
    member.type, member.mode = tarfile.DIRTYPE, mode
    member.uid = member.gid = owner
    return member, b""


def _copy(source: tarfile.TarFile, member: tarfile.TarInfo, path: str, target: tarfile.TarFile) -> None:
    sealed = tarfile.TarInfo()
    sealed.mode = member.mode & 0o777
    if member.isdir():
        sealed.type = tarfile.DIRTYPE
        target.addfile(_sealed(sealed, path))
    elif member.issym():
        sealed.type, sealed.linkname, sealed.mode = tarfile.SYMTYPE, member.linkname, 0o777
        target.addfile(_sealed(sealed, path))
    else:  # a hard link becomes a copy, because sorting may put it before the file that it names
        content = _open(source, member)
        original = source.getmember(member.linkname) if member.islnk() else member
        sealed.size, sealed.mode = original.size, original.mode & 0o777
        target.addfile(_sealed(sealed, path), content)


def _sealed(member: tarfile.TarInfo, path: str) -> tarfile.TarInfo:
    member.name, member.mtime = path, EPOCH
    return member


def _path(member: tarfile.TarInfo) -> str:
    return member.name.removeprefix("./").rstrip("/").removeprefix(".")


def _open(source: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    content = source.extractfile(member)
    if content is None:
        raise tarfile.ReadError(f"{member.name} is not a file")
    return content


def _read(source: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    return _open(source, member).read()


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
