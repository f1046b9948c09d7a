"""What Prometheus reads: counters, histograms and gauges in the text format 0.0.4.

`prometheus_client` would be a third of this server's import time, for a page of arithmetic.
"""

from __future__ import annotations

import os
import time
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Histogram:
    """Counts of observations at or below each bound, their sum and their number."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Add one observation."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def render(self, name: str, help_text: str) -> Iterable[str]:
        """The lines of the text format."""
        yield f"# HELP {name} {help_text}"
        yield f"# TYPE {name} histogram"
        cumulative = 0
        for bound, count in zip(self.bounds, self.counts, strict=False):
            cumulative += count
            yield f'{name}_bucket{{le="{bound:g}"}} {cumulative}'
        cumulative += self.counts[-1]
        yield f'{name}_bucket{{le="+Inf"}} {cumulative}'
        yield f"{name}_sum {self.total:.6f}"
        yield f"{name}_count {cumulative}"


class Metrics:
    """Everything that is counted. Written by the event loop's thread only."""

    def __init__(self) -> None:
        self.requests: dict[tuple[str, int, str], int] = {}
        self.latency = Histogram(SECONDS)
        self.queue_wait = Histogram(SECONDS)
        self.batch_rows = Histogram(ROWS)
        self.in_flight = 0
        self.cancelled = 0
        self.load_seconds = 0.0
        self.started_at = time.time()

    def count(self, path: str, status: int, error_type: str) -> None:
        """Count a finished request; `path` is a route's, never a client's."""
        key = (path, status, error_type)
        self.requests[key] = self.requests.get(key, 0) + 1

    def render(self, gauges: Mapping[str, tuple[str, float]], info: Mapping[str, str]) -> bytes:
        """The whole page.

        Args:
            gauges: Further gauges, name → (help, value), without the `constellation_` prefix.
            info: Labels of `constellation_model_info`.
        """
        lines = [
            "# HELP constellation_model_info The model being served.",
            "# TYPE constellation_model_info gauge",
            f"constellation_model_info{{{_labels(info)}}} 1",
            "# HELP constellation_requests_total Requests answered, by route, status and kind of error.",
            "# TYPE constellation_requests_total counter",
        ]
        for (path, status, error_type), number in self.requests.items():
            labels = _labels({"path": path, "status": str(status), "outcome": error_type or "ok"})
            lines.append(f"constellation_requests_total{{{labels}}} {number}")
        lines += _single(
            "constellation_requests_cancelled_total", "counter", "Clients gone early.", self.cancelled
        )
        lines += self.latency.render("constellation_request_seconds", "Last byte in to first byte out.")
        lines += self.queue_wait.render("constellation_queue_seconds", "Waiting for the model.")
        lines += self.batch_rows.render("constellation_batch_size", "Calls that ran together.")
        lines += _single(
            "constellation_in_flight", "gauge", "Inference requests not yet answered.", self.in_flight
        )
        lines += _single("constellation_model_load_seconds", "gauge", "Load and warm-up.", self.load_seconds)
        for name, (help_text, value) in gauges.items():
            lines += _single(f"constellation_{name}", "gauge", help_text, value)
        lines += _process(self.started_at)
        return ("\n".join(lines) + "\n").encode()


def _single(name: str, kind: str, help_text: str, value: float) -> list[str]:
    return [f"# HELP {name} {help_text}", f"# TYPE {name} {kind}", f"{name} {value:.10g}"]


def _labels(values: Mapping[str, str]) -> str:
    escaped = (
        (key, value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n"))
        for key, value in values.items()
    )
    return ",".join(f'{key}="{value}"' for key, value in escaped)


def read_resident_bytes() -> int:
    """This process's resident memory, or 0 where the kernel does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _process(started_at: float) -> list[str]:
    times = os.times()
    return [
        *_single("process_resident_memory_bytes", "gauge", "Resident memory.", read_resident_bytes()),
        *_single("process_cpu_seconds_total", "counter", "CPU time.", times.user + times.system),
        *_single("process_start_time_seconds", "gauge", "Start, in Unix time.", started_at),
    ]
