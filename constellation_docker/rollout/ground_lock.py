"""One at a time makes an environment's network and balancer.

Engines let two networks have one name, and a balancer that does not run yet cannot be asked for its lock. Containers'
names are unique, so one that is created and never started is the lock. Its holder may be killed: whoever waits removes
it when it has not changed for long.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from constellation_docker.compose import ComposeFile, labels
from constellation_docker.engine import Conflict, Engine
from constellation_docker.rollout.pace import Pace

STALE_SECONDS = 90.0


@contextmanager
def ground_lock(engine: Engine, compose_file: ComposeFile, pace: Pace) -> Iterator[None]:
    """Hold the right to make, start and replace an environment's network and balancer.

    Args:
        engine: The environment's engine.
        compose_file: The environment's Compose file.
        pace: How to wait.
    """
    name = f"{compose_file.project}-ground-lock"
    body = {
        "Image": compose_file.balancer.image,
        "Labels": {
            labels.COMPOSE_PROJECT: compose_file.project,
            labels.ROLE: labels.LOCK_ROLE,
            "constellation.token": uuid.uuid4().hex,
        },
    }
    held, since = "", pace.clock()
    while True:
        try:
            mine = pace.endure(lambda: engine.create_container(name, body))
            break
        except Conflict:
            present = (engine.container(name) or {}).get("Id", "")
            if present != held:
                held, since = present, pace.clock()
            elif pace.clock() - since > STALE_SECONDS:
                engine.remove(present, force=True)
            pace.pause()
    try:
        yield
    finally:
        engine.remove(mine, force=True)
