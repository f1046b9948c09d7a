"""Trying a built image before anyone may use it: as in production, without network, with real requests.

May touch: the engine, through containers that carry `constellation.role=verification`. The code under test
runs nowhere but in those.

* `verify` — the five checks, in order; `report` — what they found
* `container` — how containers are run; `readiness` — waiting, and why it is in vain
* `relay` (and `relay_program`, which runs inside) — a way into a container without network
* `examples` (and `client_program`, which asks them), `default_inputs`, `answers` — requests and their answers
* `probes` — malformed input, and SIGTERM with requests in flight
"""

from constellation_docker.packaging.verification.container import remove_trials
from constellation_docker.packaging.verification.report import (
    CheckResult,
    VerificationFailed,
    VerificationReport,
)
from constellation_docker.packaging.verification.verify import CHECKS, verify_image

__all__ = [
    "CHECKS",
    "CheckResult",
    "VerificationFailed",
    "VerificationReport",
    "remove_trials",
    "verify_image",
]
