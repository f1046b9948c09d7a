"""BentoML with adaptive batching on."""

from __future__ import annotations

import bentoml
from onnx_classifier import Classifier


@bentoml.service(workers=1, traffic={"timeout": 60})
class Sentiment:
    def __init__(self) -> None:
        self.model = Classifier()

    @bentoml.api(batchable=True, route="/predict", max_batch_size=32, max_latency_ms=1000)
    def classify(self, inputs: list[str]) -> list[list[dict]]:
        return self.model(inputs)
