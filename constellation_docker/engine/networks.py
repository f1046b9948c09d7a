"""Networks on the engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from constellation_docker.engine.connection import Connection
from constellation_docker.engine.errors import NotFound
from constellation_docker.engine.images import label_filter


class Networks(Connection):
    """Networks on the engine."""

    def create_network(
        self,
        name: str,
        *,
        labels: Mapping[str, str] | None = None,
        internal: bool = False,
        driver: str = "bridge",
        attachable: bool = False,
        options: Mapping[str, str] | None = None,
        ipam: Mapping[str, Any] | None = None,
    ) -> str:
        """Create a network.

        Args:
            name: Its name.
            labels: Its labels.
            internal: Without a way out.
            driver: `bridge`, or `overlay` on a swarm.
            attachable: Whether plain containers may join an overlay network.
            options: The driver's options.
            ipam: Address ranges, as the Engine API's `IPAM`.

        Returns:
            Its id.

        Raises:
            Conflict: The name is taken.
        """
        with self._calling(f"creating network {name}") as client:
            answer = client.ask(
                "POST",
                "/networks/create",
                body={
                    "Name": name,
                    "Driver": driver,
                    "Internal": internal,
                    "Attachable": attachable,
                    "Labels": dict(labels or {}),
                    "Options": dict(options or {}),
                    "IPAM": dict(ipam) if ipam else None,
                    # Without it the engine makes a second network of the same name.
                    "CheckDuplicate": True,
                },
            )
            return str(answer["Id"])

    def network(self, name: str) -> dict[str, Any] | None:
        """What the engine knows of a network (`GET /networks/{id}`); None where it has none."""
        try:
            with self._calling(f"inspecting network {name}") as client:
                return dict(client.inspect_network(name))
        except NotFound:
            return None

    def list_networks(self, labels: Mapping[str, str | None] | None = None) -> list[dict[str, Any]]:
        """The networks with these labels (a value of None: any)."""
        with self._calling("listing networks") as client:
            return list(client.networks(filters={"label": label_filter(labels or {})}))

    def connect_container(
        self,
        network: str,
        container: str,
        *,
        aliases: Sequence[str] = (),
        endpoint: Mapping[str, Any] | None = None,
    ) -> None:
        """Let a container join a network, also known there as `aliases`.

        Args:
            network: Name or id.
            container: Name or id.
            aliases: Further names on this network.
            endpoint: Further fields of the Engine API's `EndpointSettings`.
        """
        with self._calling(f"connecting container {container} to network {network}") as client:
            settings = dict(endpoint or {})
            if aliases:
                settings["Aliases"] = [*settings.get("Aliases", []), *aliases]
            client.call(
                "POST",
                "/networks/{0}/connect",
                network,
                body={"Container": container, "EndpointConfig": settings},
            )

    def disconnect_container(self, network: str, container: str, *, force: bool = False) -> bool:
        """Take a container off a network.

        Returns:
            False where network or container do not exist.
        """
        try:
            with self._calling(f"disconnecting container {container} from network {network}") as client:
                client.disconnect_container_from_network(container, network, force=force)
        except NotFound:
            return False
        return True

    def remove_network(self, name: str) -> bool:
        """Remove a network.

        Returns:
            False where there was none.
        """
        try:
            with self._calling(f"removing network {name}") as client:
                client.remove_network(name)
        except NotFound:
            return False
        return True
