"""What images are built upon: a small Python, and a balancer, from a registry or from Debian packages.

Both are made once per engine and found again by their labels. Where the registry answers, its images are used; sites
without one, and machines without a network beyond a Debian mirror, get the same from packages.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from constellation_docker.engine import (
    DeadlineExceeded,
    Engine,
    ImageFacts,
    ImageReference,
    RegistryError,
)
from constellation_docker.packaging.debian_image import (
    BALANCER_COMMAND,
    LABEL,
    BaseImageUnavailable,
    load_debian_image,
    render_archive,
)
from constellation_docker.packaging.debian_rootfs import USER_ID, Recipe, plan_recipe
from constellation_docker.settings import BaseImageSettings

__all__ = ["BaseImage", "BaseImageUnavailable", "Kind", "ensure_base_image", "find_base_image"]

Kind = Literal["python", "balancer"]

REGISTRY_SECONDS = 5.0  # a registry that takes longer to answer one question is not there


@dataclass(frozen=True)
class BaseImage:
    """A base image that is on the engine.

    Attributes:
        reference: What a Dockerfile's FROM names: `repository@sha256:…`, or a tag that carries the image's own id.
        image_id: Its id on this engine.
        origin: `registry` or `debian`.
        python_version: As `3.11`; None for the balancer.
        python_path: As `/usr/bin/python3.11`; None for the balancer.
        libc: What wheels may be built for, as `manylinux_2_36`.
        architecture: As `amd64`.
        size_bytes: Size of its layers, unpacked.
    """

    reference: str
    image_id: str
    origin: Literal["registry", "debian"]
    python_version: str | None
    python_path: str | None
    libc: str
    architecture: str
    size_bytes: int


def ensure_base_image(
    engine: Engine,
    kind: Kind,
    settings: BaseImageSettings,
    on_line: Callable[[str], None],
    *,
    refresh: bool = False,
) -> BaseImage:
    """Make sure that a base image is on the engine. The second call finds what the first one made.

    Args:
        engine: Where it is needed.
        kind: `python`, or `balancer` (HAProxy, and socat for its runtime socket).
        settings: Where it may come from.
        on_line: Told of what is done.
        refresh: Make or pull it anew, for security updates; ask a registry that was not there before again.

    Raises:
        BaseImageUnavailable: It can be had from nowhere; the message says what was missing where.
        RegistryError: `origin` is `registry`, and the registry refuses or does not answer.
        EngineError: The engine fails.
    """
    recipe = plan_recipe(kind, settings.debian_suite, engine.version.architecture)
    wanted = settings.python if kind == "python" else settings.haproxy
    with _only_one(f"{engine.url} {kind}"):
        if not refresh and (found := _find(engine, kind, settings, recipe, wanted)):
            return found
        refusal = ""
        if settings.origin != "debian":
            try:
                return _from_registry(engine, kind, wanted, on_line)
            except (RegistryError, DeadlineExceeded, BaseImageUnavailable) as error:
                if settings.origin == "registry":
                    raise
                refusal = error.message
                on_line(f"{error.message} Taking Debian packages instead.")
        try:
            made = _from_debian(engine, recipe, settings, on_line, refresh=refresh)
        except BaseImageUnavailable as error:
            if refusal:
                error.args = (f"{refusal} {error}",)
            raise
        if settings.origin == "auto":
            engine.tag(made.reference, _substitute(kind, wanted))
        return made


def find_base_image(engine: Engine, kind: Kind, settings: BaseImageSettings) -> BaseImage | None:
    """The base image that `ensure_base_image` would give without making or pulling any; None where it would have to.

    Args:
        engine: Where it is looked for.
        kind: `python` or `balancer`.
        settings: Where it may come from.

    Raises:
        EngineError: The engine fails.
    """
    recipe = plan_recipe(kind, settings.debian_suite, engine.version.architecture)
    wanted = settings.python if kind == "python" else settings.haproxy
    return _find(engine, kind, settings, recipe, wanted)


def _find(
    engine: Engine,
    kind: Kind,
    settings: BaseImageSettings,
    recipe: Recipe,
    wanted: str,
) -> BaseImage | None:
    """The base image, where the engine already has it."""
    if settings.origin != "debian":
        if kind == "balancer" and (made := _newest(engine, kind, {f"{LABEL}.source": wanted})):
            return _described(made, kind, "registry")
        pulled = engine.image(wanted) if kind == "python" else None
        if pulled is not None and pulled.repo_digests:
            return _probed(engine, wanted, pulled)
    if settings.origin == "debian":
        made = _newest(engine, kind, {f"{LABEL}.recipe": recipe.digest})
    else:
        made = engine.image(_substitute(kind, wanted)) if settings.origin == "auto" else None
    if made is not None and made.labels.get(f"{LABEL}.recipe") == recipe.digest:
        return _described(made, kind, "debian")
    return None


def _newest(engine: Engine, kind: str, labels: Mapping[str, str]) -> ImageFacts | None:
    rows = sorted(engine.list_images(labels), key=lambda row: row.created, reverse=True)
    # Images that were built upon a base image inherit its labels; only a base image has its name.
    names = [tag for row in rows for tag in row.tags if _is_own(tag, kind)]
    return engine.image(names[0]) if names else None


def _substitute(kind: str, wanted: str) -> str:
    """A name that the packages' image gets when it stands in for one that no registry gave.

    It keeps every later call from asking again, and from changing horses when the registry answers some day.
    """
    return f"{_repository(kind)}instead-of-{hashlib.sha256(wanted.encode()).hexdigest()[:16]}"


def _is_own(tag: str, kind: str) -> bool:
    return tag.startswith(_repository(kind)) and not tag.startswith(f"{_repository(kind)}instead-of-")


def _repository(kind: str) -> str:
    return f"constellation-base-{kind}:"


def _described(facts: ImageFacts, kind: str, origin: Literal["registry", "debian"]) -> BaseImage:
    """A base image, as its labels tell."""
    return BaseImage(
        reference=next(tag for tag in facts.tags if _is_own(tag, kind)),
        image_id=facts.id,
        origin=origin,
        python_version=facts.labels.get(f"{LABEL}.python-version"),
        python_path=facts.labels.get(f"{LABEL}.python-path"),
        libc=facts.labels.get(f"{LABEL}.libc", "manylinux_2_17"),
        architecture=facts.architecture,
        size_bytes=facts.size_bytes,
    )


# From a registry


def _from_registry(engine: Engine, kind: Kind, wanted: str, on_line: Callable[[str], None]) -> BaseImage:
    # One quick question first: pulling itself waits long for a registry that is not there.
    digest = engine.registry_digest(wanted, timeout_seconds=REGISTRY_SECONDS)
    on_line(f"Pulling {wanted} ({digest}).")
    facts = engine.pull(wanted, on_line=on_line)
    if kind == "python":
        return _probed(engine, wanted, facts)
    return _balancer_upon(engine, kind, wanted, facts, on_line)


_PROBE = (
    "import json,os,platform,sys;"
    "print(json.dumps([os.path.realpath(sys.executable),list(sys.version_info[:2]),list(platform.libc_ver())]))"
)
_PROBED: dict[str, BaseImage] = {}


def _probed(engine: Engine, wanted: str, facts: ImageFacts) -> BaseImage:
    """A Python image, as its own Python tells."""
    if facts.id in _PROBED:
        return _PROBED[facts.id]
    name = ImageReference.parse(wanted)
    config = {
        "Image": facts.id,
        "Entrypoint": ["python3", "-c", _PROBE],
        "Cmd": [],
        "NetworkDisabled": True,
        "Labels": {f"{LABEL}.probe": "1"},
    }
    probe = f"constellation-probe-{os.getpid()}-{os.urandom(4).hex()}"
    with engine.temporary_container(probe, config) as container:
        engine.start(container)
        code = engine.wait(container, timeout_seconds=60)
        output = engine.logs(container)
    if code != 0:
        raise BaseImageUnavailable(
            f"The base image {wanted} has no Python that runs: {output.strip()[-300:]}.",
            remedy="Name another one in the setting base_image.python.",
            reference=wanted,
        )
    path, (major, minor), (libc, libc_version) = json.loads(output.strip().splitlines()[-1])
    version = str(libc_version).replace(".", "_")
    found = _PROBED[facts.id] = BaseImage(
        reference=_pinned(name, facts),
        image_id=facts.id,
        origin="registry",
        python_version=f"{major}.{minor}",
        python_path=path,
        libc=f"manylinux_{version}" if libc == "glibc" else "musllinux_1_1",
        architecture=facts.architecture,
        size_bytes=facts.size_bytes,
    )
    return found


def _pinned(name: ImageReference, facts: ImageFacts) -> str:
    digest = (
        name.digest
        or facts.digest_in(name.repository)
        or facts.digest_in(f"docker.io/library/{name.repository}")
    )
    if digest is None:
        digest = facts.repo_digests[0].partition("@")[2]
    return f"{name.repository}@{digest}"


_BALANCER_DOCKERFILE = """\
FROM {base}
USER 0:0
RUN command -v socat || (apt-get update && apt-get install -y --no-install-recommends socat && rm -rf /var/lib/apt/lists/*)
RUN mkdir -p /etc/haproxy /run/haproxy /var/lib/haproxy && chown {user}:{user} /etc/haproxy /run/haproxy /var/lib/haproxy
ENTRYPOINT []
CMD {command}
STOPSIGNAL SIGUSR1
USER {user}:{user}
"""


def _balancer_upon(
    engine: Engine, kind: Kind, wanted: str, facts: ImageFacts, on_line: Callable[[str], None]
) -> BaseImage:
    """The registry's HAProxy with socat, and with the user and the folders that the packages' one has."""
    pinned = _pinned(ImageReference.parse(wanted), facts)
    dockerfile = _BALANCER_DOCKERFILE.format(base=pinned, user=USER_ID, command=json.dumps(BALANCER_COMMAND))
    tag = f"{_repository(kind)}{hashlib.sha256(dockerfile.encode()).hexdigest()[:16]}"
    labels = {f"{LABEL}.kind": "balancer", f"{LABEL}.source": wanted, f"{LABEL}.upon": pinned}
    engine.build(
        [render_archive({"Dockerfile": dockerfile.encode()})], tag=tag, labels=labels, on_line=on_line
    )
    return _described(engine.require_image(tag), kind, "registry")


# From Debian packages


def _from_debian(
    engine: Engine,
    recipe: Recipe,
    settings: BaseImageSettings,
    on_line: Callable[[str], None],
    *,
    refresh: bool,
) -> BaseImage:
    made = _newest(engine, recipe.kind, {f"{LABEL}.recipe": recipe.digest})
    if made is None or refresh:
        tag = load_debian_image(engine, recipe, _repository(recipe.kind), settings.debian_mirror, on_line)
        made = engine.require_image(tag)
    return _described(made, recipe.kind, "debian")


@contextlib.contextmanager
def _only_one(what: str) -> Iterator[None]:
    """Let one process of this user at a time make the same base image; the others then find it made."""
    folder = Path(tempfile.gettempdir()) / f"constellation-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    name = hashlib.sha256(what.encode()).hexdigest()[:16]
    with (folder / f"base-image-{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
