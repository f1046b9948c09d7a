"""What an adapter needs of a runtime: named arrays in, one array out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from numpy.typing import NDArray

Array = NDArray[Any]


class Network(Protocol):
    """A loaded neural network."""

    runtime: str
    """`onnx` or `transformers`."""
    device: str
    """`cpu`, `cuda:0`…"""
    input_names: frozenset[str]
    """The arrays that it takes, such as `input_ids` and `attention_mask`."""
    output_names: tuple[str, ...]
    """The arrays that it gives, such as `logits`, the first one first."""

    def run(self, feeds: Mapping[str, Array], output: str | None = None) -> Array:
        """One forward pass.

        Args:
            feeds: An array for each name of `input_names`.
            output: Which output; the first where None.

        Returns:
            That output in float32 (integers as they are).

        Raises:
            ModelFault: the pass failed.
        """
        ...
