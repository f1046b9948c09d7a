"""Two hashes of a service: Compose's own, and ours.

Compose's decides whether `docker compose up` would recreate a container; with it on our containers, Compose leaves
them alone. Ours decides what we replace; a new Compose version never changes it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from constellation_docker.compose.model import Service

# encoding/json in Go escapes these in strings.
_GO_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def config_hash(service: Service, secrets: Mapping[str, str] | None = None) -> str:
    """Compose's hash of a service (`docker compose config --hash`), from 2.29.3 on, and before for our services.

    Args:
        service: The service.
        secrets: The values behind its references, by name in the container. Compose hashes them too; the hash is
            no more readable than the container's environment, which everyone who can see the label can see.

    Source: docker/compose, `pkg/compose/hash.go` (`ServiceHash`).
    """
    canonical = service.canonical(secrets or {})
    canonical["deploy"].pop("replicas")
    # Go prints these even where they are not set. Within what we write, its order is alphabetical.
    keys = sorted({*canonical, "command", "entrypoint"})
    return hashlib.sha256(_go_json({key: canonical.get(key) for key in keys}).encode("utf-8")).hexdigest()


def network_hash(name: str) -> str:
    """Compose's hash of a network that has nothing set but its name."""
    return hashlib.sha256(_go_json({"name": name, "ipam": {}}).encode("utf-8")).hexdigest()


def spec_hash(service: Service) -> str:
    """Our hash of what a replica is created from: equal hashes mean that a container need not be replaced.

    The number of replicas, deadlines and secrets' values are not in it (their references are).
    """
    document = service.document()
    document.pop("x-constellation", None)
    document["deploy"].pop("replicas")
    document["environment"] = {
        key: {"secret": value.reference} if not isinstance(value, str) else value
        for key, value in sorted(service.environment.items())
    }
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _go_json(value: Any) -> str:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    for character, escape in _GO_ESCAPES.items():
        text = text.replace(character, escape)
    return text
