"""Every role, action and environment, against a table that was written down a second time."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from constellation_docker.gateway.access.permissions import TABLE, Action, is_allowed
from constellation_docker.gateway.access.principal import Principal, Role

PROTECTED = ("production", "live")
ENVIRONMENTS = ("dev", "staging", "production", "live", None)
EVERYWHERE = {"dev", "staging", "production", "live"}
GRANTS: tuple[frozenset[str] | None, ...] = (
    None,
    frozenset(),
    frozenset({"dev"}),
    frozenset({"production"}),
    frozenset({"dev", "production"}),
    frozenset({"*"}),
)

# Who may change what where: (role, what the key names) → environments.
CHANGES: dict[tuple[Role, frozenset[str] | None], set[str]] = {
    **{(Role.VIEWER, grant): set() for grant in GRANTS},
    (Role.OPERATOR, None): {"dev", "staging"},
    (Role.ADMIN, None): EVERYWHERE,
    **{
        (role, grant): EVERYWHERE if "*" in grant else set(grant)
        for role in (Role.OPERATOR, Role.ADMIN)
        for grant in GRANTS
        if grant is not None
    },
}
FOR_ALL = {Action.READ, Action.READ_METRICS, Action.USE_UI}
FOR_OPERATORS = {Action.REGISTER, Action.PULL_IMAGE, Action.PUSH_IMAGE}
BY_ENVIRONMENT = {Action.DEPLOY, Action.ROLLBACK, Action.CANCEL, Action.DELETE}
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "gateway-access.md"


def expected(role: Role, grant: frozenset[str] | None, action: Action, environment: str | None) -> bool:
    if action in FOR_ALL:
        return True
    if role is Role.VIEWER:
        return False
    if action in FOR_OPERATORS:
        return True
    if action in BY_ENVIRONMENT:
        return environment is None or environment in CHANGES[role, grant]
    assert action is Action.CHANGE_IN_UI
    return CHANGES[role, grant] == EVERYWHERE


@pytest.mark.parametrize(
    "grant", GRANTS, ids=lambda grant: "none" if grant is None else "+".join(sorted(grant))
)
@pytest.mark.parametrize("role", Role)
def test_every_action_in_every_environment_is_decided_as_written_down(
    role: Role, grant: frozenset[str] | None
) -> None:
    principal = Principal("ann", role, grant)
    decided = {
        (action, environment): is_allowed(principal, action, environment, protected=PROTECTED)
        for action, environment in itertools.product(Action, ENVIRONMENTS)
    }
    wanted = {
        (action, environment): expected(role, grant, action, environment)
        for action, environment in itertools.product(Action, ENVIRONMENTS)
    }
    assert decided == wanted


def test_every_action_is_in_the_table() -> None:
    assert set(TABLE) == set(Action)


def test_who_may_do_more_may_do_all_that_others_may() -> None:
    for grant, action, environment in itertools.product(GRANTS, Action, ENVIRONMENTS):
        answers = [is_allowed(Principal("ann", role, grant), action, environment) for role in Role]
        assert answers == sorted(answers), (grant, action, environment)


def test_the_documents_table_is_the_codes() -> None:
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", DOCUMENT.read_text(), re.M)
    assert {action: tuple(reach) for action, *reach in rows} == {
        action.value: tuple(reach.value for reach in reaches) for action, reaches in TABLE.items()
    }
