"""Eight-bit weights: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html (dynamic)."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

from .reference import shorten
from .refusal import ExportRefused


def quantize_graph(path: Path, target: Path) -> None:
    """Write the graph with matrix products in 8 bits, activations quantised as they come.

    Raises:
        ExportRefused: onnxruntime cannot quantise this graph.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    logging.getLogger().setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(dir=target.parent) as directory:
        prepared = Path(directory) / "prepared.onnx"
        try:
            quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
            quantize_dynamic(
                str(prepared),
                str(target),
                weight_type=QuantType.QInt8,
                per_channel=True,
                # Embeddings are looked up, not multiplied; the head is small and decides.
                op_types_to_quantize=["MatMul", "Gemm", "Attention"],
            )
        except Exception as problem:
            raise ExportRefused(f"onnxruntime cannot quantise the graph: {shorten(problem)}") from problem
