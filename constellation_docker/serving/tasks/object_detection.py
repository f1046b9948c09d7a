"""object-detection: labelled boxes in an image."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

from PIL import Image

from ..model import Call, ModelFault
from ..runtimes.json_value import to_json_value
from .binary_task import BinaryTask
from .image import open_image
from .parameter import Parameter


class ObjectDetection(BinaryTask):
    """Answers a list of `{"label", "score", "box"}`.

    Args:
        detect: transformers' pipeline: `(image, threshold=…)` → the list.
        device: Where it computes.
    """

    task = "object-detection"
    family = "image"
    parameters = (
        Parameter(
            "threshold", "number", "Least score of an answered box.", default=0.5, minimum=0, maximum=1
        ),
    )

    def __init__(self, detect: Callable[..., Any], *, device: str) -> None:
        super().__init__(runtime="transformers", device=device, max_batch_size=1)
        self._detect = detect

    def decode(self, content: bytes) -> Image.Image:
        """See `BinaryTask.decode`."""
        return open_image(io.BytesIO(content))

    def compute(self, calls: Sequence[Call], decoded: Sequence[Image.Image]) -> Sequence[Any]:
        """See `BinaryTask.compute`."""
        try:
            found = [
                self._detect(image, threshold=call.parameters["threshold"])
                for call, image in zip(calls, decoded, strict=True)
            ]
        except (RuntimeError, ValueError, IndexError) as problem:
            raise ModelFault("The model failed on this image.") from problem
        return [sorted(to_json_value(boxes), key=lambda box: -box["score"]) for boxes in found]

    def warm_up(self) -> None:
        """Look at one grey image."""
        self._detect(Image.new("RGB", (64, 64), (128, 128, 128)))

    def response_schema(self) -> dict[str, Any]:
        """See `BinaryTask.response_schema`."""
        sides = ("xmin", "ymin", "xmax", "ymax")
        box = {
            "type": "object",
            "required": list(sides),
            "properties": {side: {"type": "integer"} for side in sides},
        }
        return {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["label", "score", "box"],
                "properties": {"label": {"type": "string"}, "score": {"type": "number"}, "box": box},
            },
        }
