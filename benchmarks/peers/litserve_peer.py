"""LitServe with batching on."""

from __future__ import annotations

import os

import litserve
from onnx_classifier import Classifier


class Sentiment(litserve.LitAPI):
    def setup(self, device):
        self.classify = Classifier()

    def decode_request(self, request):
        return request["inputs"]

    def predict(self, texts):
        return self.classify(list(texts))

    def encode_response(self, output):
        return [output]


if __name__ == "__main__":
    api = Sentiment(max_batch_size=32, batch_timeout=0.001)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(
        port=int(os.environ["PEER_PORT"]), num_api_servers=1, generate_client_file=False, log_level="error"
    )
