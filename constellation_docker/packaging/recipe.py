"""What an image is made of, decided before anything is built.

A recipe's digest is the content address of all that goes into the image, so an image that carries the
digest as a label is that image, and is not built again.
"""

from __future__ import annotations

import hashlib
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from pydantic import BaseModel, ConfigDict

import constellation_docker.serving
from constellation_docker.cards import ModelCard, WidgetExample
from constellation_docker.packaging.base_image import BaseImage
from constellation_docker.packaging.dockerfile import render_dockerfile
from constellation_docker.packaging.lock import DependencyLock
from constellation_docker.packaging.runtime import Runtime, RuntimeChoice
from constellation_docker.packaging.source import Source
from constellation_docker.packaging.tree import SourceFile

RECIPE_FORMAT = 1
"""Raised when images built from the same inputs would differ from those that older code built."""

SERVING_PATH = Path(constellation_docker.serving.__file__).parent
NOT_SERVED = frozenset({"requirements", "__pycache__"})
"""Directories of the server that images do not need."""

_SAFETENSORS = (".safetensors",)
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_ONNX = (".onnx", ".onnx_data", ".onnx.data")
_FOREIGN_WEIGHTS = (".h5", ".msgpack", ".ot", ".tflite", ".mlmodel", ".gguf")
_OWN_SERVER = frozenset({Runtime.ONNX, Runtime.TRANSFORMERS, Runtime.CUSTOM})
_SERVING_OPTIONS = (
    "max_batch_size",
    "max_batch_wait_ms",
    "max_queue",
    "request_timeout_seconds",
    "max_body_bytes",
)


class ServerTree(BaseModel):
    """The inference server's files, as they go into the image.

    Attributes:
        path: The directory that becomes `/server/constellation_serving`.
        digest: `sha256:…` over its files' paths and contents.
        version: The server's own version.
    """

    model_config = ConfigDict(frozen=True)

    path: Path
    digest: str
    version: str

    def files(self) -> list[Path]:
        """The files that are copied, sorted, absolute."""
        return sorted(
            path
            for path in self.path.rglob("*")
            if path.is_file() and not NOT_SERVED.intersection(path.relative_to(self.path).parts)
        )


class ImageRecipe(BaseModel):
    """Everything that goes into one image.

    Attributes:
        model: `name@version`.
        name: Repository and tag below the prefix: `slug:version`.
        runtime: How the image serves.
        base: The base image; images with a server of their own are verified with its Python.
        lock: The locked packages; None where the image has a server of its own.
        source: The repository; None for a ready-made image.
        server: The inference server; None where the image has a server of its own.
        files: The repository's files that the image needs.
        image: The ready-made image's reference, for the runtime `image`.
        card_text: The maintained card (`/card/README.md`).
        serving_text: The server's configuration (`/card/serving.json`).
        labels: All labels but the recipe's own digest.
        port: Where it listens.
        ready_path: Where a server that can answer says 2xx.
        own_dockerfile: Path of the repository's own Dockerfile, for the runtime `dockerfile`.
        dockerfile: The Dockerfile's text.
        environment_digest: Content address of the environment layer and what is below it.
        digest: Content address of the whole.
    """

    model_config = ConfigDict(frozen=True)

    model: str
    name: str
    runtime: Runtime
    base: BaseImage
    lock: DependencyLock | None
    source: Source | None
    server: ServerTree | None
    files: tuple[SourceFile, ...]
    image: str | None = None
    card_text: str
    serving_text: str
    labels: dict[str, str]
    port: int
    ready_path: str
    own_dockerfile: str | None = None
    dockerfile: str
    environment_digest: str
    digest: str

    @property
    def has_own_server(self) -> bool:
        """Whether the image brings a server that is not ours."""
        return self.server is None


def read_server_tree(path: Path = SERVING_PATH) -> ServerTree:
    """The inference server that images get, with its digest.

    Args:
        path: Its package directory.
    """
    tree = ServerTree(path=path, digest="", version=_server_version(path))
    sums = [
        (str(file.relative_to(path)), hashlib.sha256(file.read_bytes()).hexdigest()) for file in tree.files()
    ]
    return tree.model_copy(update={"digest": digest_of(sums)})


def plan_image(
    card: ModelCard,
    source: Source | None,
    lock: DependencyLock | None,
    choice: RuntimeChoice,
    base: BaseImage,
    *,
    model_id: str,
    created_at: datetime | None = None,
    server: ServerTree | None = None,
) -> ImageRecipe:
    """Decide what the image of one model version is made of. Pure but for reading the server's files.

    Args:
        card: The model card, merged with the repository's own.
        source: The pinned repository; None only for the runtime `image`.
        lock: The locked packages; not used by images with a server of their own.
        choice: The runtime and the weights that it reads.
        base: The base image.
        model_id: The row's UUID.
        created_at: When the version was registered, for the OCI label; never the time of the build, so
            that building again gives the same image.
        server: The inference server's files (default: the one of this installation).

    Returns:
        The recipe, with its content address.
    """
    runtime = Runtime(choice.runtime)
    is_ours = runtime in _OWN_SERVER
    tree = (server or read_server_tree()) if is_ours else None
    facts = _facts(card, source, lock if is_ours else None, choice, base, tree)
    labels = _labels(card, source, facts, model_id=model_id, created_at=created_at)
    serving_text = _serving_text(card, source, choice, model_id) if is_ours else ""
    dockerfile = render_dockerfile(
        base=base.reference, python=base.python_path or "", labels=labels, port=card.serving.port
    )
    card_text = card.render(facts)
    environment_digest = digest_of(
        [RECIPE_FORMAT, base.reference, facts.get("lock_digest", ""), assembly_digest()]
    )
    image = card.serving.image if runtime is Runtime.IMAGE else None
    files = choose_files(source, choice) if source else ()
    return ImageRecipe(
        model=card.key,
        name=f"{card.slug}:{card.image_tag}",
        runtime=runtime,
        base=base,
        lock=lock if is_ours else None,
        source=source,
        server=tree,
        files=files,
        image=image,
        card_text=card_text,
        serving_text=serving_text,
        labels=labels,
        port=card.serving.port,
        ready_path="/ready" if is_ours else card.serving.ready_path,
        own_dockerfile=card.serving.dockerfile if runtime is Runtime.DOCKERFILE else None,
        dockerfile=dockerfile,
        environment_digest=environment_digest,
        digest=digest_of(
            {
                "format": RECIPE_FORMAT,
                "environment": environment_digest if is_ours else base.reference,
                "server": tree.digest if tree else None,
                "files": [(file.path, file.sha256) for file in files],
                "source": source.digest if source else None,
                "image": image,
                "own_dockerfile": card.serving.dockerfile if runtime is Runtime.DOCKERFILE else None,
                "card": [card.digest, card_text, serving_text],
                "dockerfile": dockerfile,
            }
        ),
    )


def choose_files(source: Source, choice: RuntimeChoice) -> tuple[SourceFile, ...]:
    """The repository's files that the chosen runtime can use.

    Weights in formats that it does not read stay out, as they are often half of a repository. A custom
    handler may read anything, and so may a repository's own Dockerfile.
    """
    runtime = Runtime(choice.runtime)
    chosen = set(choice.weights)
    unread: tuple[str, ...] = ()
    if runtime is Runtime.ONNX and any(path.endswith(".onnx") for path in chosen):
        unread = (*_SAFETENSORS, *_PICKLES, *_FOREIGN_WEIGHTS)
    elif runtime is Runtime.TRANSFORMERS and any(path.endswith(_SAFETENSORS) for path in chosen):
        unread = (*_ONNX, *_PICKLES, *_FOREIGN_WEIGHTS)
    elif runtime is Runtime.TRANSFORMERS and chosen:
        unread = (*_ONNX, *_FOREIGN_WEIGHTS)
    stems = tuple(path.removesuffix(".onnx") for path in chosen if path.endswith(".onnx"))

    def is_used(path: str) -> bool:
        if path in chosen or not unread:
            return True
        if runtime is Runtime.ONNX and path.endswith(_ONNX):
            # External data lies beside its graph and starts with its name; other graphs are other variants.
            return not path.endswith(".onnx") and path.startswith(stems)
        return not path.endswith(unread)

    return tuple(sorted((file for file in source.files if is_used(file.path)), key=lambda file: file.path))


def digest_of(facts: Any) -> str:
    """`sha256:…` of JSON-like facts in their canonical form."""
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def assembly_digest() -> str:
    """Digest of the program that assembles layers, as it decides what they hold."""
    return f"sha256:{hashlib.sha256(ASSEMBLY_PATH.read_bytes()).hexdigest()}"


ASSEMBLY_PATH = Path(__file__).with_name("assembly.py")


def _server_version(path: Path) -> str:
    text = (path / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r"""^__version__\s*=\s*["']([^"']+)["']""", text, re.MULTILINE)
    return found[1] if found else "unknown"


def _facts(
    card: ModelCard,
    source: Source | None,
    lock: DependencyLock | None,
    choice: RuntimeChoice,
    base: BaseImage,
    server: ServerTree | None,
) -> dict[str, str]:
    """What packaging has learned before the build, for the maintained card and the labels."""
    facts = {
        "runtime": str(choice.runtime),
        "task": choice.task or "",
        "base_image": base.reference,
        "port": str(card.serving.port),
        "health_path": card.serving.health_path,
        "ready_path": "/ready" if server else card.serving.ready_path,
    }
    if source:
        facts |= {
            "repository": without_password(source.url),
            "commit": source.commit,
            "source_digest": source.digest,
        }
    if lock:
        facts["lock_digest"] = lock.digest
    if server:
        facts |= {"server_version": server.version, "server_digest": server.digest}
    return {name: value for name, value in facts.items() if value}


def _labels(
    card: ModelCard,
    source: Source | None,
    facts: dict[str, str],
    *,
    model_id: str,
    created_at: datetime | None,
) -> dict[str, str]:
    oci = "org.opencontainers.image."
    labels = {
        f"{oci}title": card.model_name,
        f"{oci}version": card.model_version,
        f"{oci}description": " ".join(card.description.split())[:500],
        f"{oci}licenses": _licences(card.license),
        f"{oci}source": facts.get("repository", ""),
        f"{oci}revision": source.commit if source else "",
        f"{oci}base.name": facts["base_image"].partition("@")[0],
        f"{oci}base.digest": facts["base_image"].partition("@")[2],
        f"{oci}created": created_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if created_at else "",
        "constellation.role": "model",
        "constellation.model": card.model_name,
        "constellation.version": card.model_version,
        "constellation.model-id": model_id,
        "constellation.card-digest": card.digest,
        "constellation.source-digest": facts.get("source_digest", ""),
        "constellation.lock-digest": facts.get("lock_digest", ""),
        "constellation.runtime": facts["runtime"],
        "constellation.task": facts.get("task", ""),
        "constellation.server-version": facts.get("server_version", ""),
        "constellation.port": facts["port"],
        "constellation.health-path": facts["health_path"],
        "constellation.ready-path": facts["ready_path"],
    }
    return {name: value for name, value in labels.items() if value}


def _licences(licence: object) -> str:
    if licence is None:
        return ""
    return ", ".join(map(str, licence)) if isinstance(licence, list | tuple) else str(licence)


def _serving_text(card: ModelCard, source: Source | None, choice: RuntimeChoice, model_id: str) -> str:
    options = {name: getattr(card.serving, name, None) for name in _SERVING_OPTIONS}
    document = {
        "model_id": model_id,
        "model_name": card.model_name,
        "model_version": card.model_version,
        "revision": source.commit if source else "",
        "task": choice.task,
        "runtime": str(choice.runtime),
        "model_path": "/model",
        "handler": choice.handler,
        "description": card.description,
        "labels": {"license": _licences(card.license)} if card.license else {},
        "examples": [_example(example) for example in card.widget if example.inputs is not None],
        "options": {name: value for name, value in options.items() if value is not None},
    }
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _example(example: WidgetExample) -> dict[str, Any]:
    written: dict[str, Any] = {"inputs": example.inputs}
    if example.parameters:
        written["parameters"] = example.parameters
    if example.name:
        written["name"] = example.name
    return written


def without_password(url: str) -> str:
    """An address without its user and password, for labels and logs."""
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
