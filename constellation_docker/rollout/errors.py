"""What can go wrong while a service is moved."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from constellation_docker.errors import ConstellationError

Outcome = Literal["failed", "rolled_back", "rollback_failed"]


class BalancerUnavailable(ConstellationError):
    """The environment's balancer does not run or does not answer."""

    code = "balancer_unavailable"
    is_transient: ClassVar[bool] = True


class BalancerRefused(ConstellationError):
    """The balancer did not accept a change."""

    code = "balancer_refused"


class StepFailed(ConstellationError):
    """One step of a rollout did not reach its goal. `details` may hold `log_tail`."""

    code = "step_failed"


class RolloutFailed(ConstellationError):
    """A rollout did not succeed. `details` holds `outcome`, `steps` and `log_tail`.

    Attributes:
        outcome: `rolled_back` (what ran before runs on), `failed` (nothing ran before, nothing runs now) or
            `rollback_failed` (somebody must look).
    """

    code = "rollout_failed"

    def __init__(
        self,
        message: str,
        *,
        outcome: Outcome,
        remedy: str,
        log_tail: tuple[str, ...] = (),
        **details: Any,
    ) -> None:
        super().__init__(message, remedy=remedy, outcome=outcome, log_tail=list(log_tail), **details)
        self.outcome = outcome
        self.log_tail = log_tail


class RolloutCancelled(ConstellationError):
    """Whoever asked for the rollout cancelled it. What ran before runs on."""

    code = "rollout_cancelled"
