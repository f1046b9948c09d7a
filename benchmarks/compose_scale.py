"""How long compiling and validating an environment's Compose file takes, by the number of its models."""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from statistics import median
from typing import Final
from uuid import UUID

from constellation_docker.compose import WantedService, compile_environment
from constellation_docker.settings import EnvironmentSettings

COUNTS: Final = (500, 1000, 2000)
BALANCER: Final = f"haproxy@sha256:{'0' * 64}"


def many_services(count: int) -> list[WantedService]:
    """Services as a large environment has them: two replicas, variables, a secret here and there."""
    return [
        WantedService(
            model_name=f"team-{number % 40}/model-{number}",
            slug=f"team-{number % 40}-model-{number}",
            model_version=f"1.{number % 7}.0",
            model_id=str(UUID(int=number)),
            revision=1 + number % 9,
            image=f"registry.example:5000/models/model-{number}@sha256:{number:064x}",
            replicas=1 + number % 3,
            env={"LOG_LEVEL": "info", "MODEL_NUMBER": str(number)},
            secrets={"API_KEY": "env:MODEL_API_KEY"} if number % 5 == 0 else {},
        )
        for number in range(count)
    ]


def measure_compiling(counts: Sequence[int] = COUNTS, *, repeats: int = 3) -> dict[int, float]:
    """Median processor seconds of compiling and validating, by number of models.

    Processor time, as another process on the same core must not count.
    """
    compile_environment("benchmark", EnvironmentSettings(), many_services(10), balancer_image=BALANCER)
    measured = {}
    for count in counts:
        services = many_services(count)
        seconds = []
        for _ in range(repeats):
            gc.collect()
            began = time.process_time()
            compiled = compile_environment(
                "benchmark", EnvironmentSettings(), services, balancer_image=BALANCER
            )
            seconds.append(time.process_time() - began)
            assert len(compiled.services) == count
        measured[count] = median(seconds)
    return measured
