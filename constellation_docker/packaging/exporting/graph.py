"""torch's exporter: from a model to an ONNX graph with free batch and sequence axes."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .reference import Array, Reference, shorten
from .refusal import ExportRefused

MAX_INLINE_BYTES = 1_500_000_000
"""A protobuf message ends at 2 GB; larger weights lie in a file beside the graph."""


class _OneOutput(torch.nn.Module):  # type: ignore[misc]
    """The model as a function of named arrays with a single output, which is all that is served."""

    def __init__(self, model: torch.nn.Module, names: tuple[str, ...], output: str) -> None:
        super().__init__()
        self.model = model
        self._names = names
        self._output = output

    def forward(self, *arrays: torch.Tensor) -> torch.Tensor:
        named = dict(zip(self._names, arrays, strict=True))
        return self.model(**named)[self._output]


def write_graph(reference: Reference, sample: dict[str, Array], path: Path) -> None:
    """Export the model.

    Args:
        reference: The model.
        sample: Arrays to trace it with, at least two rows, some of them padded.
        path: Where the graph goes.

    Raises:
        ExportRefused: torch cannot export this architecture.
    """
    is_text = "input_ids" in reference.input_names
    axes = {0: torch.export.Dim.DYNAMIC, **({1: torch.export.Dim.DYNAMIC} if is_text else {})}
    names = reference.input_names
    arrays = tuple(torch.from_numpy(np.ascontiguousarray(sample[name])) for name in names)
    module = _OneOutput(reference.model, names, reference.output_name).eval()
    weights = sum(parameter.numel() * parameter.element_size() for parameter in reference.model.parameters())
    logging.getLogger("torch").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            program: Any = torch.onnx.export(
                module,
                arrays,
                dynamo=True,
                input_names=list(names),
                output_names=[reference.output_name],
                dynamic_shapes=(tuple(axes for _ in names),),
                verbose=False,
            )
            program.save(str(path), external_data=weights > MAX_INLINE_BYTES)
        except Exception as problem:
            kind = type(reference.model).__name__
            raise ExportRefused(
                f"torch {torch.__version__} cannot export {kind}: {shorten(problem)}"
            ) from problem
