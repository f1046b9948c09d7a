"""The numbers that the gateway keeps of itself, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The gateway's own metrics: its process's, not those of others that share the library's default registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ("method", "route")
        self.calls = Counter(
            "constellation_gateway_requests", "Calls answered.", (*labels, "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "constellation_gateway_request_seconds",
            "From a call's arrival to the end of its answer, streams left out.",
            labels,
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.running = Gauge(
            "constellation_gateway_requests_running", "Calls being answered.", registry=self.registry
        )

    def render(self) -> bytes:
        """The metrics as Prometheus reads them."""
        return bytes(generate_latest(self.registry))
