"""The facade: everything that may be asked of one Docker engine."""

from __future__ import annotations

from typing import Self

from constellation_docker.engine.build import Builds
from constellation_docker.engine.connection import open_connection
from constellation_docker.engine.containers import Containers
from constellation_docker.engine.events import Events
from constellation_docker.engine.execution import Execution
from constellation_docker.engine.networks import Networks
from constellation_docker.engine.registry import Registries
from constellation_docker.engine.volumes import Volumes


class Engine(Builds, Registries, Containers, Execution, Networks, Volumes, Events):
    """One Docker engine. Any thread may use it.

    Example:
        >>> engine = Engine.connect()
        >>> engine.version.platform
        'linux/amd64'
    """

    @classmethod
    def connect(cls, url: str | None = None, *, timeout_seconds: float = 60) -> Self:
        """Connect to an engine.

        Args:
            url: `unix://…`, `tcp://…`, `ssh://…` or `context://name`. None: DOCKER_HOST, the Docker CLI's current context,
                the default socket, in this order.
            timeout_seconds: Longest silence in a call that is expected to answer at once. Builds, pulls and the like
                have deadlines of their own.

        Raises:
            EngineUnreachable: None answers there (transient).
            EngineIncompatible: Its API is too old or too new.
            InvalidInput: The address cannot be read.
        """
        address, version = open_connection(url, timeout_seconds)
        return cls(address, version, timeout_seconds)
