"""Who may do what: one table. docs/gateway-access.md shows the same one to people; a test compares the two."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum

from constellation_docker.gateway.access.principal import EVERY_ENVIRONMENT, Principal, Role


class Action(StrEnum):
    """What somebody may want to do."""

    READ = "read"
    READ_METRICS = "read_metrics"
    REGISTER = "register"
    DEPLOY = "deploy"
    ROLLBACK = "rollback"
    CANCEL = "cancel"
    DELETE = "delete"
    PULL_IMAGE = "pull_image"
    PUSH_IMAGE = "push_image"
    USE_UI = "use_ui"
    CHANGE_IN_UI = "change_in_ui"


class Reach(StrEnum):
    """How far a permission goes."""

    NO = "no"
    YES = "yes"
    # In environments that are not protected, and in those that the key or token names.
    GRANTED = "where granted"
    # Only for those who may change every environment: what is done cannot be told apart by environment.
    EVERYWHERE = "if everywhere granted"


_NO, _YES, _GRANTED, _EVERYWHERE = Reach.NO, Reach.YES, Reach.GRANTED, Reach.EVERYWHERE

TABLE: dict[Action, tuple[Reach, Reach, Reach]] = {
    # action               viewer  operator     admin
    Action.READ: (_YES, _YES, _YES),
    Action.READ_METRICS: (_YES, _YES, _YES),
    Action.REGISTER: (_NO, _YES, _YES),
    Action.DEPLOY: (_NO, _GRANTED, _GRANTED),
    Action.ROLLBACK: (_NO, _GRANTED, _GRANTED),
    Action.CANCEL: (_NO, _GRANTED, _GRANTED),
    Action.DELETE: (_NO, _GRANTED, _GRANTED),
    Action.PULL_IMAGE: (_NO, _YES, _YES),
    Action.PUSH_IMAGE: (_NO, _YES, _YES),
    Action.USE_UI: (_YES, _YES, _YES),
    Action.CHANGE_IN_UI: (_NO, _EVERYWHERE, _EVERYWHERE),
}
_COLUMN = {Role.VIEWER: 0, Role.OPERATOR: 1, Role.ADMIN: 2}


def is_allowed(
    principal: Principal,
    action: Action,
    environment: str | None = None,
    *,
    protected: Collection[str] = ("production",),
) -> bool:
    """Whether somebody may do something.

    Args:
        principal: Who.
        action: What.
        environment: Where. None: in no environment (such as cancelling a packaging), or not known yet: then a
            second question must follow once it is.
        protected: The environments that operators change only with a grant of their own.
    """
    reach = TABLE[action][_COLUMN[principal.role]]
    if reach is Reach.NO or reach is Reach.YES:
        return reach is Reach.YES
    if reach is Reach.EVERYWHERE:
        return _is_granted_everywhere(principal)
    return environment is None or _is_granted(principal, environment, protected)


def _is_granted(principal: Principal, environment: str, protected: Collection[str]) -> bool:
    if principal.environments is None:
        return principal.role is Role.ADMIN or environment not in protected
    return not principal.environments.isdisjoint({environment, EVERY_ENVIRONMENT})


def _is_granted_everywhere(principal: Principal) -> bool:
    if principal.environments is None:
        return principal.role is Role.ADMIN
    return EVERY_ENVIRONMENT in principal.environments
