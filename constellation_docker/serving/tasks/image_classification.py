"""image-classification: labels with scores for an image."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from PIL import Image

from ..model import Call, ModelFault, ServingError
from ..runtimes.image_processor import ImageProcessor
from ..runtimes.network import Array, Network
from ..runtimes.repository import Repository
from .binary_task import BinaryTask
from .classification import FUNCTION_TO_APPLY, LABELLED_SCORES_SCHEMA, TOP_K, choose_function, score_labels
from .image import open_image

DEFAULT_TOP_K = 5


class ImageScorer(Protocol):
    """What a runtime computes for images."""

    runtime: str
    device: str

    def prepare(self, image: Image.Image) -> Array:
        """One image's array; images whose arrays have the same shape share a pass."""
        ...

    def score(self, pixels: Array) -> Array:
        """Logits of shape `(images, labels)` for arrays of shape `(images, channels, height, width)`."""
        ...


class NetworkScorer:
    """An image processor in numpy before a network."""

    def __init__(self, processor: ImageProcessor, network: Network) -> None:
        self.runtime = network.runtime
        self.device = network.device
        self._processor = processor
        self._network = network
        self._input = "pixel_values" if "pixel_values" in network.input_names else min(network.input_names)

    def prepare(self, image: Image.Image) -> Array:
        """See `ImageScorer.prepare`."""
        return self._processor.process(image)

    def score(self, pixels: Array) -> Array:
        """See `ImageScorer.score`."""
        names = self._network.output_names
        return self._network.run({self._input: pixels}, "logits" if "logits" in names else None)


class ImageClassification(BinaryTask):
    """Answers a list of labels with scores, best first."""

    task = "image-classification"
    family = "image"
    parameters = (TOP_K, FUNCTION_TO_APPLY)

    def __init__(self, scorer: ImageScorer, repository: Repository, *, max_batch_size: int) -> None:
        super().__init__(runtime=scorer.runtime, device=scorer.device, max_batch_size=max_batch_size)
        self._scorer = scorer
        self._repository = repository

    def decode(self, content: bytes) -> Array:
        """See `BinaryTask.decode`."""
        return self._scorer.prepare(open_image(io.BytesIO(content)))

    def compute(self, calls: Sequence[Call], decoded: Sequence[Array]) -> Sequence[Any]:
        """See `BinaryTask.compute`."""
        answers: list[Any] = [None] * len(calls)
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for index, pixels in enumerate(decoded):
            by_shape.setdefault(pixels.shape, []).append(index)
        for group in by_shape.values():
            rows = self._scorer.score(np.stack([decoded[index] for index in group]))
            if rows.ndim != 2 or len(rows) != len(group):
                raise ModelFault(f"The model gave an array of shape {rows.shape} where labels were expected.")
            for index, row in zip(group, rows, strict=True):
                answers[index] = self._answer(calls[index], row)
        return answers

    def _answer(self, call: Call, row: Array) -> Any:
        labels = self._repository.labels(len(row))
        function = call.parameters["function_to_apply"] or choose_function(self._repository, len(labels))
        top_k = call.parameters["top_k"] or DEFAULT_TOP_K
        try:
            return score_labels(row, labels, function=function, top_k=top_k)
        except ServingError as problem:
            return problem

    def warm_up(self) -> None:
        """Run one grey image."""
        self._scorer.score(self._scorer.prepare(Image.new("RGB", (64, 64), (128, 128, 128)))[None])

    def response_schema(self) -> dict[str, Any]:
        """See `BinaryTask.response_schema`."""
        return LABELLED_SCORES_SCHEMA
