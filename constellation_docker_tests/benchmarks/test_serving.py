"""The serving benchmark turns what it measured into the promised figures, and says where one is not kept."""

from __future__ import annotations

from benchmarks.http_load import LoadResult
from benchmarks.serving import CLIENTS, Measured, plan_figures, render_section
from benchmarks.serving_containers import ContainerTimes


def _server(milliseconds: float, rate: float, failures: int = 0) -> Measured:
    load = LoadResult(rate, milliseconds, 2 * milliseconds, failures)
    return Measured([1.0], [100], {clients: [load] for clients in CLIENTS})


def _container(runtime: str, megabytes: int, *stops: tuple[int, int]) -> ContainerTimes:
    layers = {"base": 50_000_000, "environment": 150_000_000}
    return ContainerTimes(runtime, [0.5, 0.7], [megabytes * 10**6], 200_000_000, layers, list(stops))


def test_every_promise_is_a_figure_with_its_bound() -> None:
    results = {
        "constellation-onnx": _server(1.0, 3000),
        "litserve": _server(2.0, 1500),
        "bentoml": _server(3.0, 1000),
    }
    containers = {
        "onnx": _container("onnx", 60, (0, 0), (0, 0)),
        "transformers": _container("transformers", 300),
    }
    figures = {figure.name: figure for figure in plan_figures(results, containers)}
    assert [round(figure.measured, 3) for figure in figures.values()] == [2.0, 2.0, 0, 0.2, 0]
    assert all(figure.is_kept for figure in figures.values())
    section = render_section(results, containers, "Measured today.")
    assert "| throughput at 32 clients: ours / the best peer's | 2 × | ≥ 1.5 × | yes |" in section
    assert "| container start to first answer | 0.60 s (0.50–0.70) | 0.60 s (0.50–0.70) |" in section
    assert "| · layer environment | 143.1 MiB | 143.1 MiB |" in section


def test_a_broken_promise_stands_out() -> None:
    results = {"constellation-onnx": _server(2.0, 1000, failures=1), "litserve": _server(1.0, 1000)}
    containers = {
        "onnx": _container("onnx", 200, (1, 0), (0, 137)),
        "transformers": _container("transformers", 300),
    }
    figures = plan_figures(results, containers)
    assert not any(figure.is_kept for figure in figures)
    assert figures[-1].measured == 2, "a request that failed, and a server that did not end by itself"
    assert render_section(results, containers, "").count("**no**") == len(figures)
