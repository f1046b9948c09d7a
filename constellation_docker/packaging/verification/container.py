"""How a container is run while it is verified: as in production, and without any network."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from constellation_docker.cards import ModelCard
from constellation_docker.cards.quantities import byte_count
from constellation_docker.engine import Engine
from constellation_docker.packaging.image import EXPIRES_LABEL, ROLE_LABEL, BuiltImage

VERIFICATION_LABELS = {ROLE_LABEL: "verification"}
MODEL_ID_LABEL = "constellation.model-id"
SECOND = 1_000_000_000
"""In the engine's unit of time, nanoseconds."""

_RELAY_MEMORY_BYTES = 256 * 1024 * 1024
_PLACEHOLDER = "placeholder"


def render_container(
    image: BuiltImage, card: ModelCard, *, model_id: str, expires_at: float, ready_deadline_seconds: float
) -> dict[str, Any]:
    """The body of `POST /containers/create` for the container that is verified.

    Args:
        image: What is run.
        card: Gives limits and variables. Secrets are stood in for by a placeholder: code that nobody trusts
            yet gets none.
        model_id: The row that it is of. Only one trial of a row is under way at a time.
        expires_at: When it may be removed by whoever finds it, in seconds since 1970.
        ready_deadline_seconds: Longest that its health check may fail at first.
    """
    resources = card.serving.resources
    memory = byte_count(resources.memory)
    variables = {**card.serving.env, **dict.fromkeys(card.serving.secrets, _PLACEHOLDER)}
    return {
        "Image": image.image_id,
        "Env": [f"{name}={value}" for name, value in sorted(variables.items())],
        "Labels": trial_labels(model_id, image.model, expires_at),
        # The image's own test, more often than in production, so that nobody waits for it.
        "Healthcheck": {
            "Interval": SECOND,
            "Timeout": 5 * SECOND,
            "StartPeriod": round(ready_deadline_seconds) * SECOND,
            "Retries": 3,
        },
        "HostConfig": {
            **_confined(),
            "NetworkMode": "none",
            "Memory": memory,
            "MemorySwap": memory,
            "NanoCpus": round(float(resources.cpus) * SECOND),
            "PidsLimit": resources.pids,
            "Tmpfs": {"/tmp": "rw,nosuid,nodev,mode=1777"},  # noqa: S108 - the container's own
            "DeviceRequests": [{"Count": resources.gpus, "Capabilities": [["gpu"]]}]
            if resources.gpus
            else [],
        },
    }


def render_relay(
    image: BuiltImage, beside: str, *, model_id: str, expires_at: float, command: Sequence[str] = ()
) -> dict[str, Any]:
    """The body for a container of the base image that shares the network of another container.

    Args:
        image: Its base gives the image and its Python.
        beside: Id of the container whose network is shared.
        model_id: The row that it is of. Only one trial of a row is under way at a time.
        expires_at: When it may be removed by whoever finds it, in seconds since 1970.
        command: Arguments of its Python; none: it just stays, so that programs can be run in it.
    """
    staying = ["-c", f"import time; time.sleep(max(0, {expires_at:.0f} - time.time()))"]
    return {
        "Image": image.base.reference,
        "Entrypoint": [image.base.python_path or "python3"],
        "Cmd": list(command) or staying,
        "User": "65534:65534",
        "Labels": trial_labels(model_id, image.model, expires_at),
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": {
            **_confined(),
            "NetworkMode": f"container:{beside}",
            "Memory": _RELAY_MEMORY_BYTES,
            "MemorySwap": _RELAY_MEMORY_BYTES,
            "PidsLimit": 64,
        },
    }


def remove_trials(engine: Engine, *, model_id: str, now: Callable[[], float] = time.time) -> tuple[str, ...]:
    """Remove the containers of a row's trials, at their end or when their process was killed, and of any expired one.

    Args:
        engine: Where.
        model_id: The row. A run that works on it works alone, so what an earlier one left need not expire first.
        now: Seconds since 1970.

    Returns:
        Names of the removed containers.
    """
    removed = []
    for row in engine.list_containers(VERIFICATION_LABELS):
        found = row["Labels"]
        is_own = found.get(MODEL_ID_LABEL) == model_id
        if (is_own or float(found.get(EXPIRES_LABEL) or 0) < now()) and engine.remove(row["Id"], force=True):
            removed.append(str(row["Names"][0]).lstrip("/"))
    return tuple(removed)


def trial_labels(model_id: str, model: str, expires_at: float) -> dict[str, str]:
    """The labels of a container in which something is tried.

    Args:
        model_id: The row's id.
        model: `name@version`, for people.
        expires_at: When it may be removed by whoever finds it, in seconds since 1970.
    """
    return {
        **VERIFICATION_LABELS,
        MODEL_ID_LABEL: model_id,
        EXPIRES_LABEL: f"{expires_at:.0f}",
        "constellation.subject": model,
    }


def _confined() -> dict[str, Any]:
    return {
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges:true"],
        "RestartPolicy": {"Name": "no"},
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "5m", "max-file": "1"}},
    }
