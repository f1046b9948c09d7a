"""One rollout in a process of its own, for the benchmark to kill. What to do comes as JSON from standard input."""

from __future__ import annotations

import json
import sys

from constellation_docker.compose import WantedService, compile_environment
from constellation_docker.engine import Engine
from constellation_docker.rollout import roll_out
from constellation_docker.settings import EnvironmentSettings


def main() -> None:
    """Roll the service out and print a line for every step."""
    order = json.load(sys.stdin)
    settings = EnvironmentSettings.model_validate(order["settings"])
    services = [WantedService.model_validate(service) for service in order["services"]]
    file = compile_environment("benchmark", settings, services, balancer_image=order["balancer_image"])
    roll_out(
        file,
        order["slug"],
        engine=Engine.connect(order["engine"]),
        settings=settings,
        on_line=lambda line: print(line, flush=True),
    )


if __name__ == "__main__":
    main()
