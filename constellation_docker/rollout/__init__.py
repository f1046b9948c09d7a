"""Moving services on an engine: observe → plan → execute, behind a balancer that drops nothing.

It touches the containers, networks and images of one Compose project, through `engine`, and the balancer in it. What is
wanted comes from `compose`; whatever else is known is read from labels.
"""

from constellation_docker.rollout.alteration import (
    IN_TURN,
    altered_ids,
    choose_inspected,
    find_alterations,
    inspect_replicas,
)
from constellation_docker.rollout.balancer import Balancer, BalancerState, Member, Route
from constellation_docker.rollout.certificates import (
    Certificate,
    InvalidCertificate,
    private_authority,
    renew_certificate,
    resolve_certificate,
)
from constellation_docker.rollout.drift import Drift, DriftReport, find_drift
from constellation_docker.rollout.errors import (
    BalancerRefused,
    BalancerUnavailable,
    RolloutCancelled,
    RolloutFailed,
    StepFailed,
)
from constellation_docker.rollout.executor import StepRecord
from constellation_docker.rollout.haproxy import HaproxyBalancer
from constellation_docker.rollout.news import News, read_news
from constellation_docker.rollout.observed import Observed, ObservedBalancer, Replica, observe
from constellation_docker.rollout.operation import Change, Kind, Operation, Plan
from constellation_docker.rollout.outliers import (
    Watched,
    choose_restored,
    choose_spared,
    complaints_of,
    mark_outliers,
    outliers_of,
    watch_traffic,
)
from constellation_docker.rollout.pace import Lease
from constellation_docker.rollout.plan import plan_environment, plan_rollout
from constellation_docker.rollout.removal import (
    RemovalResult,
    remove_environment,
    remove_service,
    remove_unused_images,
)
from constellation_docker.rollout.rollout import RolloutResult, roll_out

__all__ = [
    "IN_TURN",
    "Balancer",
    "BalancerRefused",
    "BalancerState",
    "BalancerUnavailable",
    "Certificate",
    "Change",
    "Drift",
    "DriftReport",
    "HaproxyBalancer",
    "InvalidCertificate",
    "Kind",
    "Lease",
    "Member",
    "News",
    "Observed",
    "ObservedBalancer",
    "Operation",
    "Plan",
    "RemovalResult",
    "Replica",
    "RolloutCancelled",
    "RolloutFailed",
    "RolloutResult",
    "Route",
    "StepFailed",
    "StepRecord",
    "Watched",
    "altered_ids",
    "choose_inspected",
    "choose_restored",
    "choose_spared",
    "complaints_of",
    "find_alterations",
    "find_drift",
    "inspect_replicas",
    "mark_outliers",
    "observe",
    "outliers_of",
    "plan_environment",
    "plan_rollout",
    "private_authority",
    "read_news",
    "remove_environment",
    "remove_service",
    "remove_unused_images",
    "renew_certificate",
    "resolve_certificate",
    "roll_out",
    "watch_traffic",
]
