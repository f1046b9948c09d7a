"""A container's own health check, run now instead of at the engine's next interval.

The engine runs a container's first check a whole interval after its start: ten seconds in our images, while most models
are ready sooner. A shorter interval would cost processor time as long as the container lives, and Docker's
`start_interval` exists only since Engine 25 and only within the image's start period.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from constellation_docker.engine import Conflict, DeadlineExceeded, Engine, NotFound
from constellation_docker.rollout.observed import Replica

# A check that takes longer is left to the engine, which can end it; a call cannot.
LONGEST_SECONDS = 5.0
_PARALLEL = 4


class OwnChecks:
    """The health checks of containers that the engine still calls `starting`.

    Args:
        engine: The engine that runs them.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._commands: dict[str, tuple[str, ...]] = {}
        self._passed: set[str] = set()

    def have_passed(self, replica: Replica) -> bool:
        """Whether a container that is still `starting` has passed its check."""
        return replica.is_running and replica.health == "starting" and replica.id in self._passed

    def run(self, replicas: Sequence[Replica]) -> None:
        """Run the checks of containers side by side.

        Raises:
            EngineUnreachable: The engine went away.
        """
        asked = [
            replica
            for replica in replicas
            if replica.is_running and replica.health == "starting" and replica.id not in self._passed
        ]
        if not asked:
            return
        with ThreadPoolExecutor(_PARALLEL, thread_name_prefix="check") as pool:
            found = list(pool.map(self._passes, asked))
        self._passed |= {replica.id for replica, passes in zip(asked, found, strict=True) if passes}

    def _passes(self, replica: Replica) -> bool:
        command = self._command(replica.id)
        if not command:
            return False
        try:
            result = self._engine.execute(replica.id, command, timeout_seconds=LONGEST_SECONDS)
        except (Conflict, NotFound):
            return False
        except DeadlineExceeded:
            self._commands[replica.id] = ()
            return False
        return result.exit_code == 0

    def _command(self, container: str) -> tuple[str, ...]:
        if container not in self._commands:
            facts = self._engine.container(container)
            if facts is None:
                return ()
            self._commands[container] = read_check_command(facts.get("Config") or {})
        return self._commands[container]


def read_check_command(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The command of a container's health check, as the engine would run it; empty where it has none.

    Args:
        config: `Config` of the container's description.

    Source: moby, `daemon/health.go` (`getProbe`, `cmdProbe.run`).
    """
    kind, *words = (config.get("Healthcheck") or {}).get("Test") or ["NONE"]
    if kind == "CMD":
        return tuple(words)
    if kind == "CMD-SHELL":
        return (*(config.get("Shell") or ("/bin/sh", "-c")), *words)
    return ()
