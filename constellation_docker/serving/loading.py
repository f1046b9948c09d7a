"""Loads the model that the configuration describes: chooses its runtime, and the adapter of its task."""

from __future__ import annotations

from .config import Config
from .model import LoadFailed, Model


def load_model(config: Config) -> Model:
    """Load the model. Slow: it reads the weights.

    Args:
        config: What to load.

    Raises:
        LoadFailed: it cannot be loaded; the message is one sentence that says why.
    """
    if config.runtime == "onnx":
        from .runtimes.onnx_loading import load_onnx

        return load_onnx(config)
    if config.runtime == "transformers":
        from .runtimes.transformers_loading import load_transformers

        return load_transformers(config)
    if config.runtime == "custom":
        from .runtimes.handler import load_handler

        return load_handler(config)
    raise LoadFailed(f"the runtime {config.runtime!r} is not one of onnx, transformers, custom")
