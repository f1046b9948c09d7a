"""The Dockerfile, as text.

It is an ordinary multi-stage file, which `docker buildx build` takes, too, on a context that was written out.
(It gives directories of its context the time of the build; only there the layers then differ from ours.)
Layers lie in the order in which they change least: base, environment, server, model, card.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

SERVED_BY = "65532:65532"
"""User and group of every server: the distroless `nonroot`, known to no host."""

_HEAD = """\
# Assembled by constellation_docker. The same inputs give the same layers.
# Without a build argument the environment is built here; with one, an image that holds it already is used.
ARG ENVIRONMENT=environment-built

FROM {base} AS foundation

FROM foundation AS environment-assembly
RUN --mount=type=bind,source=build,target=/build \\
    --mount=type=cache,id=constellation-uv,target=/var/cache/uv \\
    PYTHONHASHSEED=0 {python} /build/assembly.py environment {python}

FROM foundation AS environment-built
COPY --from=environment-assembly /out/ /

FROM foundation AS server-assembly
RUN --mount=type=bind,source=build/assembly.py,target=/build/assembly.py \\
    --mount=type=bind,source=build/server,target=/build/server \\
    PYTHONHASHSEED=0 {python} /build/assembly.py server {python}

FROM ${{ENVIRONMENT}} AS model
COPY --from=server-assembly /out/ /
COPY layers/model/ /
COPY layers/card/ /
"""

_VARIABLES = {
    "PATH": "/env/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "PYTHONPATH": "/server",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "1",
    # The root is read-only: whatever wants to write gets /tmp, which is a tmpfs.
    "HOME": "/tmp",  # noqa: S108 - inside the container, where it belongs to one process
    "TMPDIR": "/tmp",  # noqa: S108
    # Weights lie in the image; nothing is fetched when it starts.
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_OFFLINE": "1",
    # Forking after tokenizers has used its threads deadlocks; the server has threads of its own.
    "TOKENIZERS_PARALLELISM": "false",
}


def render_dockerfile(*, base: str, python: str, labels: Mapping[str, str], port: int) -> str:
    """The Dockerfile of an image with our server.

    Args:
        base: Pinned reference of the base image.
        python: Path of its Python.
        labels: Labels of the image.
        port: Where the server listens.
    """
    variables = {**_VARIABLES, "SERVING_PORT": str(port)}
    return _HEAD.format(base=base, python=python) + "".join(
        [
            _instruction("ENV", variables),
            _instruction("LABEL", labels),
            f"EXPOSE {port}\n",
            f"USER {SERVED_BY}\n",
            "STOPSIGNAL SIGTERM\n",
            _healthcheck(["/env/bin/python", "-S", "-E", "/server/constellation_serving/probe.py"]),
            'ENTRYPOINT ["/env/bin/python", "-m", "constellation_serving"]\n',
            "CMD []\n",
        ]
    )


def render_adoption(
    *, image: str, labels: Mapping[str, str], port: int, user: str | None, health: Sequence[str] | None
) -> str:
    """The Dockerfile that makes one of ours of an image with a server of its own.

    Args:
        image: The image to adopt.
        labels: Labels to add.
        port: Where its server listens.
        user: User to run as, where the image would run as root.
        health: Command of the health check, where the image has none.
    """
    variables = {"HOME": "/tmp", "TMPDIR": "/tmp"} if user else {}  # noqa: S108 - as above
    return "".join(
        [
            f"# Assembled by constellation_docker.\nFROM {image}\n",
            _instruction("ENV", variables),
            _instruction("LABEL", labels),
            f"EXPOSE {port}\n",
            f"USER {user}\n" if user else "",
            _healthcheck(health) if health else "",
        ]
    )


def _healthcheck(command: Sequence[str]) -> str:
    return f"HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 CMD {json.dumps(list(command))}\n"


def _instruction(name: str, values: Mapping[str, str]) -> str:
    if not values:
        return ""
    pairs = (f"{key}={_quoted(value)}" for key, value in sorted(values.items()))
    return f"{name} " + " \\\n    ".join(pairs) + "\n"


def _quoted(value: str) -> str:
    """A value between double quotes, with nothing left that the Dockerfile would interpret."""
    plain = " ".join(value.split())
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$") + '"'
