"""onnxruntime: loads a graph and runs it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as native

from ..model import LoadFailed, ModelFault
from .network import Array

_FAILURES: tuple[type[Exception], ...] = (
    native.Fail,
    native.InvalidArgument,
    native.InvalidGraph,
    native.InvalidProtobuf,
    native.ModelLoadCanceled,
    native.NoModel,
    native.NoSuchFile,
    native.NotImplemented,
    native.RuntimeException,
)
_ERRORS_ONLY = 3


class OnnxNetwork:
    """An ONNX graph in an onnxruntime session.

    Args:
        path: The graph; weights that it keeps outside itself lie beside it.
        threads: How many threads one pass computes with.

    Raises:
        LoadFailed: onnxruntime cannot read the graph.
    """

    runtime = "onnx"

    def __init__(self, path: Path, *, threads: int) -> None:
        disable_telemetry()
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Memory patterns are kept for every shape ever seen; texts have many lengths.
        options.enable_mem_pattern = False
        options.log_severity_level = _ERRORS_ONLY
        # A thread that spins while it waits spends the container's CPU quota on nothing.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        available = onnxruntime.get_available_providers()
        is_cuda = "CUDAExecutionProvider" in available
        providers = ["CUDAExecutionProvider"] if is_cuda else []
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), sess_options=options, providers=[*providers, "CPUExecutionProvider"]
            )
        except _FAILURES as problem:
            raise LoadFailed(
                f"onnxruntime {onnxruntime.__version__} cannot load {path.name}: {_first_line(problem)}"
            ) from None
        self.device = "cuda:0" if self._session.get_providers()[0].startswith("CUDA") else "cpu"
        self._types = {item.name: _dtype(item.type) for item in self._session.get_inputs()}
        self.input_names = frozenset(self._types)
        self.output_names = tuple(item.name for item in self._session.get_outputs())
        self.text_names = frozenset(name for name, kind in self._types.items() if kind is np.object_)
        self.integer_names = frozenset(n for n, kind in self._types.items() if issubclass(kind, np.integer))

    def run(self, feeds: Mapping[str, Array], output: str | None = None) -> Array:
        """One forward pass; see `Network.run`."""
        with np.errstate(
            over="ignore"
        ):  # the graph gets an infinity, as the same number would be in its type
            cast = {name: np.asarray(feeds[name], dtype=self._types[name]) for name in self._types}
        try:
            (result,) = self._session.run([output or self.output_names[0]], cast)
        except _FAILURES as problem:
            raise ModelFault("The model failed on this input.") from problem
        return result.astype(np.float32) if result.dtype == np.float16 else result  # type: ignore[no-any-return]


def disable_telemetry() -> None:
    """Keep onnxruntime from sending anything home, in the builds of it that would (Microsoft's for Windows)."""
    disable = getattr(onnxruntime, "disable_telemetry_events", None)
    if disable is not None:
        disable()


def _dtype(name: str) -> type[np.generic]:
    """The numpy type of onnxruntime's `tensor(int64)`."""
    kinds: dict[str, type[np.generic]] = {
        "tensor(int64)": np.int64,
        "tensor(int32)": np.int32,
        "tensor(float)": np.float32,
        "tensor(float16)": np.float16,
        "tensor(double)": np.float64,
        "tensor(bool)": np.bool_,
        "tensor(string)": np.object_,
    }
    if name not in kinds:
        raise LoadFailed(f"the ONNX graph takes an input of type {name}, which this server cannot feed")
    return kinds[name]


def _first_line(problem: Exception) -> str:
    return str(problem).strip().splitlines()[0][:300] if str(problem).strip() else type(problem).__name__
