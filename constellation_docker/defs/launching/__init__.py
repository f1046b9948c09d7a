"""How a run gets from the queue into a process of its own, quickly.

Dagster's own launcher starts a fresh interpreter for each run, which imports Dagster and the location before
the first step: about two seconds, each time. Here a run is forked from a *nursery*, a process that has imported
them already and does nothing else. What the room offers is named in `dagster.yaml`:

* `run_launcher`: `WarmRunLauncher`;
* `run_coordinator`: `QuickRunCoordinator`, Dagster's queue with all its limits, looked at twice a second.
"""

from constellation_docker.defs.launching.coordinator import QuickRunCoordinator
from constellation_docker.defs.launching.launcher import WarmRunLauncher

__all__ = ["QuickRunCoordinator", "WarmRunLauncher"]
