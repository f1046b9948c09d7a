"""The steps: load, plan what to ask, export, compare, quantise, compare again."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from .comparison import measure_deviations, open_graph
from .graph import write_graph
from .quantization import quantize_graph
from .reference import load_reference
from .refusal import ExportRefused
from .trials import plan_trials, require_same_tokens, trace_sample

TOLERANCE = 1e-3
"""Largest deviation of a score that is accepted; float32 graphs deviate by about 1e-6."""
QUANTIZED_TOLERANCE = 0.05
"""The same for 8-bit weights."""

GRAPH = "model.onnx"
QUANTIZED = "model_quantized.onnx"


def export_model(
    model: Path,
    out: Path,
    *,
    task: str,
    examples: list[Any],
    tolerance: float | None = None,
    is_quantized: bool = False,
    threads: int = 0,
) -> dict[str, Any]:
    """Export a repository, and say whether its graph may replace the original.

    Args:
        model: The repository.
        out: Where the graph goes; where it is not kept, nothing is left.
        task: The task.
        examples: The card's examples.
        tolerance: Largest deviation of a score that is accepted (default: TOLERANCE, or QUANTIZED_TOLERANCE).
        is_quantized: Whether 8-bit weights are wanted; where they deviate too much, the exact graph is kept.
        threads: Computing threads; 0: as torch sees fit.

    Returns:
        The report: kept, reason, file, largest_deviation, tolerance, deviations, size_bytes, steps.

    Raises:
        ExportRefused: the model cannot be exported.
    """
    if threads:
        torch.set_num_threads(threads)
    steps: dict[str, float] = {}
    clock = _Clock(steps)
    reference = load_reference(model, task)
    clock.note("load")
    trials = plan_trials(reference, task, examples)
    if task != "image-classification":
        texts = [text for example in examples if isinstance(text := _plain(example), str)]
        require_same_tokens(
            reference, model / "tokenizer.json", texts or ["A plain sentence, with punctuation."]
        )
    graph = out / GRAPH
    write_graph(reference, trace_sample(trials), graph)
    clock.note("export")
    limit = TOLERANCE if tolerance is None else tolerance
    deviations = measure_deviations(reference, open_graph(graph, threads=threads), trials, task)
    clock.note("compare")
    report = _judge(graph, deviations, limit)
    if not report["kept"]:
        _remove(out)
    elif is_quantized:
        limit = QUANTIZED_TOLERANCE if tolerance is None else tolerance
        report = _quantize(
            graph,
            report,
            lambda path: measure_deviations(reference, open_graph(path, threads=threads), trials, task),
            limit,
        )
        clock.note("quantize")
    return report | {"steps": steps}


def _quantize(graph: Path, exact: dict[str, Any], measure: Any, limit: float) -> dict[str, Any]:
    target = graph.with_name(QUANTIZED)
    try:
        quantize_graph(graph, target)
        report = _judge(target, measure(target), limit)
    except ExportRefused as refusal:
        return exact | {"notes": [f"8-bit weights are not used: {refusal}"]}
    if not report["kept"]:
        target.unlink(missing_ok=True)
        return exact | {"notes": [f"8-bit weights are not used: {report['reason']}"]}
    for file in graph.parent.glob(f"{GRAPH}*"):
        file.unlink()
    return report


def _judge(graph: Path, deviations: dict[str, float], limit: float) -> dict[str, Any]:
    worst = max(deviations, key=lambda name: deviations[name])
    largest = deviations[worst]
    is_kept = largest <= limit
    told = f"its outputs deviate by at most {largest:.2g} from the original's (on {worst})"
    return {
        "kept": is_kept,
        "reason": f"{told}, within {limit:g}" if is_kept else f"{told}, more than {limit:g}",
        "file": graph.name if is_kept else None,
        "largest_deviation": largest,
        "tolerance": limit,
        "deviations": deviations,
        "size_bytes": sum(file.stat().st_size for file in graph.parent.glob(f"{graph.name}*")),
    }


def _remove(out: Path) -> None:
    for file in out.glob("model*.onnx*"):
        file.unlink()


def _plain(example: Any) -> Any:
    return example.get("inputs") if isinstance(example, dict) else None


class _Clock:
    def __init__(self, steps: dict[str, float]) -> None:
        self._steps = steps
        self._last = time.monotonic()

    def note(self, name: str) -> None:
        now = time.monotonic()
        self._steps[name] = round(now - self._last, 3)
        self._last = now
