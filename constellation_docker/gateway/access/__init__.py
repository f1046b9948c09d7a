"""Who calls, and what they may do. The table is `permissions.py`; `docs/gateway-access.md` tells it to people."""

from constellation_docker.gateway.access.principal import Principal, Role

__all__ = ["Principal", "Role"]
