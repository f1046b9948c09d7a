"""From a model card to a verified, published image.

May touch: the network (through git, the Hub's client and uv), the engine (through `engine/`), the
content-addressed store below `home`. Model code runs nowhere but in containers.

* `source` (`git`, `hub`, `directory`, `tree`, `source_store`) — a repository at one commit
* `runtime`, `inspection` — what serves it; its Python read, never run
* `export` (`exporting/`) — its weights as an ONNX graph, where that is proven to answer alike
* `lock` (`requirements`, `resolution`) — every package, with hashes
* `base_image`, `recipe`, `dockerfile`, `context`, `image` — the image
* `verification/` — the image tried before anyone may use it
* `publishing`, `registry` — the image under a name that never means anything else
"""

from constellation_docker.packaging.base_image import BaseImage, ensure_base_image, find_base_image
from constellation_docker.packaging.delivery import deliver_image
from constellation_docker.packaging.export import ExportRequired, export_source
from constellation_docker.packaging.export_record import Export, ExportReport
from constellation_docker.packaging.image import BuiltImage, build_image
from constellation_docker.packaging.inspection import CodeFinding, inspect_code
from constellation_docker.packaging.lock import DependencyLock, resolve_lock
from constellation_docker.packaging.publishing import PublishedImage, publish_image
from constellation_docker.packaging.recipe import ImageRecipe, plan_image
from constellation_docker.packaging.registry import pull_image, push_image
from constellation_docker.packaging.runtime import Runtime, RuntimeChoice, choose_runtime
from constellation_docker.packaging.source import Source, fetch_source
from constellation_docker.packaging.uv_container import ContainerUv
from constellation_docker.packaging.verification import CheckResult, VerificationReport, verify_image

__all__ = [
    "BaseImage",
    "BuiltImage",
    "CheckResult",
    "CodeFinding",
    "ContainerUv",
    "DependencyLock",
    "Export",
    "ExportReport",
    "ExportRequired",
    "ImageRecipe",
    "PublishedImage",
    "Runtime",
    "RuntimeChoice",
    "Source",
    "VerificationReport",
    "build_image",
    "choose_runtime",
    "deliver_image",
    "ensure_base_image",
    "export_source",
    "fetch_source",
    "find_base_image",
    "inspect_code",
    "plan_image",
    "publish_image",
    "pull_image",
    "push_image",
    "resolve_lock",
    "verify_image",
]
