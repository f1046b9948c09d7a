"""torch: runs a transformers model on named arrays."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ..model import ModelFault
from .network import Array


class TorchNetwork:
    """A transformers model behind the `Network` protocol.

    Args:
        model: The model, in evaluation mode, on its device.
        output_names: What its outputs are called, the first one first.
    """

    runtime = "transformers"

    def __init__(self, model: Any, *, output_names: tuple[str, ...]) -> None:
        self._model = model
        self._device = model.device
        self._dtype = model.dtype
        self.device = str(model.device)
        known = {"input_ids", "attention_mask", "token_type_ids", "pixel_values"}
        self.input_names = frozenset(known & inspect.signature(model.forward).parameters.keys())
        self.output_names = output_names

    def run(self, feeds: Mapping[str, Array], output: str | None = None) -> Array:
        """One forward pass; see `Network.run`."""
        name = output or self.output_names[0]
        try:
            with torch.inference_mode():
                result = self._model(**{key: self._tensor(value) for key, value in feeds.items()})[name]
                return result.float().cpu().numpy()  # type: ignore[no-any-return]
        except (RuntimeError, IndexError, ValueError) as problem:
            raise ModelFault("The model failed on this input.") from problem

    def _tensor(self, value: Array) -> torch.Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(value)).to(self._device)
        return tensor.to(self._dtype) if tensor.is_floating_point() else tensor
