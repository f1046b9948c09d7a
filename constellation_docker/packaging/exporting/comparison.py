"""Whether the graph answers as the original does, in the numbers that clients get."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from .reference import Array, Reference, shorten
from .refusal import ExportRefused


@dataclass(frozen=True)
class Trial:
    """One batch that both are asked.

    Attributes:
        name: What it is, for the report.
        feeds: Arrays by input.
    """

    name: str
    feeds: dict[str, Array]


def open_graph(path: Path, *, threads: int = 0) -> onnxruntime.InferenceSession:
    """Load a graph.

    Raises:
        ExportRefused: onnxruntime cannot.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as problem:
        raise ExportRefused(f"onnxruntime cannot load the graph: {shorten(problem)}") from problem


def measure_deviations(
    reference: Reference, session: onnxruntime.InferenceSession, trials: list[Trial], task: str
) -> dict[str, float]:
    """The largest difference of each trial, between 0 and 1 for scores.

    Raises:
        ExportRefused: the graph cannot run a trial, or answers in another shape or with what is no number.
    """
    deviations = {}
    for trial in trials:
        expected = reference.run(trial.feeds)
        feeds = {item.name: trial.feeds[item.name] for item in session.get_inputs()}
        try:
            (given,) = session.run([reference.output_name], feeds)
        except Exception as problem:
            raise ExportRefused(f"the graph cannot run {trial.name}: {shorten(problem)}") from problem
        if given.shape != expected.shape:
            raise ExportRefused(
                f"on {trial.name} the graph answers in shape {given.shape}, not {expected.shape}"
            )
        if not np.isfinite(given).all() and np.isfinite(expected).all():
            raise ExportRefused(f"on {trial.name} the graph answers with what is no number")
        mask = trial.feeds.get("attention_mask")
        deviations[trial.name] = deviation(expected, given, mask, task, reference.model.config)
    return deviations


def deviation(expected: Array, given: Array, mask: Array | None, task: str, config: Any) -> float:
    """The largest difference in what clients get.

    For classifications and fill-mask it is of the scores, for vectors of the vectors scaled to length 1.
    Where a model's outputs are answered as they are (regression), it is relative to the largest of them.

    Args:
        expected: The original's outputs.
        given: The graph's.
        mask: 1 for tokens and 0 for padding, whose outputs nobody sees.
        task: The task.
        config: The model's configuration.
    """
    if mask is not None and expected.ndim == 3:
        expected, given = expected[mask == 1], given[mask == 1]
    if task in ("feature-extraction", "sentence-similarity"):
        expected, given = _unit(expected), _unit(given)
    elif getattr(config, "problem_type", None) == "regression":
        scale = max(1.0, float(np.abs(expected).max()))
        expected, given = expected / scale, given / scale
    elif getattr(config, "problem_type", None) == "multi_label_classification" or expected.shape[-1] == 1:
        expected, given = _sigmoid(expected), _sigmoid(given)
    else:
        expected, given = _softmax(expected), _softmax(given)
    return float(np.abs(expected - given).max())


def _softmax(values: Array) -> Array:
    shifted = np.exp(values - values.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)  # type: ignore[no-any-return]


def _sigmoid(values: Array) -> Array:
    return 0.5 * (1 + np.tanh(0.5 * values))


def _unit(values: Array) -> Array:
    return values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-12)  # type: ignore[no-any-return]
