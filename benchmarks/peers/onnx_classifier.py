"""The sentiment graph on onnxruntime, as anyone would write it; shared by the peers so that the servers differ only."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

MODEL = Path(os.environ["PEER_MODEL"])


class Classifier:
    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ["PEER_THREADS"])
        graph = MODEL / "onnx" / "model.onnx"
        self.session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        self.tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
        self.tokenizer.enable_truncation(128)
        self.tokenizer.enable_padding()
        self.names = {one.name for one in self.session.get_inputs()}
        self.labels = json.loads((MODEL / "config.json").read_text())["id2label"]

    def __call__(self, texts: list[str]) -> list[list[dict[str, object]]]:
        encodings = self.tokenizer.encode_batch(texts)
        feed = {
            "input_ids": np.array([one.ids for one in encodings], np.int64),
            "attention_mask": np.array([one.attention_mask for one in encodings], np.int64),
            "token_type_ids": np.array([one.type_ids for one in encodings], np.int64),
        }
        logits = self.session.run(None, {name: feed[name] for name in self.names})[0]
        exponents = np.exp(logits - logits.max(-1, keepdims=True))
        scores = exponents / exponents.sum(-1, keepdims=True)
        return [
            [{"label": self.labels[str(i)], "score": float(row[i])} for i in np.argsort(-row)]
            for row in scores
        ]
