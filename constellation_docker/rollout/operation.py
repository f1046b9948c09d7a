"""A plan as data: operations, each with what it does, to what, and why."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


class Kind(StrEnum):
    """What an operation does."""

    PULL_IMAGE = "pull image"
    CREATE_NETWORK = "create network"
    CREATE_BALANCER = "create balancer"
    START_BALANCER = "start balancer"
    REPLACE_BALANCER = "replace balancer"
    TAKE_OVER_BALANCER = "take over balancer"
    RELOAD_BALANCER = "reload balancer"
    CREATE_REPLICA = "create replica"
    START_REPLICA = "start replica"
    WAIT_HEALTHY = "wait until healthy"
    REGISTER = "register"
    WAIT_UP = "wait until reachable"
    SWITCH = "switch"
    WAIT_DRAINED = "wait until drained"
    UNREGISTER = "unregister"
    REMOVE_ROUTE = "remove route"
    STOP_REPLICA = "stop replica"
    MONITOR = "monitor"
    REMOVE_REPLICA = "remove replica"


Action = Literal["create", "keep", "replace", "scale", "heal", "remove"]


@dataclass(frozen=True)
class Operation:
    """One step of a plan.

    Attributes:
        id: Names it within the plan.
        kind: What it does.
        target: The container, network or service that it does it to.
        cause: Why, in words.
        service: The service that it belongs to; empty for network and balancer.
        after: Ids of the operations that must have succeeded before.
        number: The new replica's number, where one is created.
        hosts: The replicas it concerns, by their names in the network; those that become ready in a switch.
        drain: The replicas that are given no more requests in a switch.
    """

    id: str
    kind: Kind
    target: str
    cause: str
    service: str = ""
    after: tuple[str, ...] = ()
    number: int = 0
    hosts: tuple[str, ...] = ()
    drain: tuple[str, ...] = ()


@dataclass(frozen=True)
class Change:
    """What a plan does to one service, in one line."""

    service: str
    action: Action
    running: str
    wanted: str
    cause: str


@dataclass(frozen=True)
class Plan:
    """All operations that move an environment, or one service of it, to what is wanted.

    Attributes:
        project: The Compose project.
        operations: In an order in which they may be executed one after another.
        changes: What happens to each service.
    """

    project: str
    operations: tuple[Operation, ...] = ()
    changes: tuple[Change, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not self.operations

    def rows(self) -> list[dict[str, str]]:
        """The operations as a table: step, operation, target, why, after."""
        numbers = {operation.id: str(index) for index, operation in enumerate(self.operations, start=1)}
        return [
            {
                "step": numbers[operation.id],
                "operation": operation.kind.value,
                "target": operation.target,
                "cause": operation.cause,
                "after": ", ".join(numbers[earlier] for earlier in operation.after),
            }
            for operation in self.operations
        ]

    def change_rows(self) -> list[dict[str, str]]:
        """What happens to each service as a table: service, action, running, wanted, why."""
        return [
            {
                "service": change.service,
                "action": change.action,
                "running": change.running,
                "wanted": change.wanted,
                "cause": change.cause,
            }
            for change in self.changes
        ]
