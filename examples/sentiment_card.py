"""The model card of the sentiment example, written from what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
from huggingface_hub import EvalResult, ModelCardData
from tokenizers import Tokenizer

from examples.sentiment_text.sentences import LABELS

WIDGET_SENTENCES: Final = {
    "Praise": "I loved this film, the acting was wonderful.",
    "Complaint": "The food was not good and the service was terrible.",
    "Negated complaint": "Not bad at all, I would happily watch it again.",
    "Turn": "I wanted to like this book, but the characters were flat.",
    "Concession": "Although the room was small, the staff were so kind that we want to come back.",
}


@dataclass(frozen=True)
class Measurement:
    """Accuracy and F1 (of POSITIVE), both from 0 to 1, on `count` sentences."""

    name: str
    count: int
    accuracy: float
    f1: float


def classify(repository: Path, sentence: str) -> list[dict[str, Any]]:
    """Labels with scores, best first, as a text-classification endpoint answers.

    Args:
        repository: A directory with `tokenizer.json` and `onnx/model.onnx`.
        sentence: Any text.
    """
    tokenizer = Tokenizer.from_file(str(repository / "tokenizer.json"))
    session = onnxruntime.InferenceSession(
        str(repository / "onnx" / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    ids = np.array([tokenizer.encode(sentence).ids], dtype=np.int64)
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    (logits,) = session.run(["logits"], feed)
    powers = np.exp(logits[0] - logits[0].max())
    scores = powers / powers.sum()
    return [
        {"label": LABELS[i], "score": round(float(scores[i]), 4)}
        for i in sorted(range(len(LABELS)), key=lambda i: -scores[i])
    ]


def render_card(
    repository: Path, measured: Sequence[Measurement], *, parameters: int, trained_on: int
) -> str:
    """The README.md of the repository: front matter and Markdown."""
    data = ModelCardData(
        language="en",
        license="apache-2.0",
        library_name="transformers",
        pipeline_tag="text-classification",
        tags=["sentiment-analysis", "bert", "onnx"],
        datasets=["constellation/generated-sentiment"],
        metrics=["accuracy", "f1"],
        model_name="sentiment",
        eval_results=[
            EvalResult(
                task_type="text-classification",
                task_name="Sentiment analysis",
                dataset_type="constellation/generated-sentiment",
                dataset_name=measurement.name,
                dataset_split=measurement.name.replace(" ", "_").replace("-", "_"),
                metric_type=metric,
                metric_name=name,
                metric_value=round(value, 4),
            )
            for measurement in measured
            for metric, name, value in (
                ("accuracy", "Accuracy", measurement.accuracy),
                ("f1", "F1", measurement.f1),
            )
        ],
        widget=[
            {"example_title": title, "text": sentence, "output": classify(repository, sentence)}
            for title, sentence in WIDGET_SENTENCES.items()
        ],
        constellation={"resources": {"memory": "512m", "cpus": 1.0, "pids": 128}, "replicas": 1},
    )
    rows = "\n".join(f"| {m.name} | {m.count:,} | {m.accuracy:.1%} | {m.f1:.3f} |" for m in measured)
    return f"---\n{data.to_yaml()}\n---\n{_BODY.format(rows=rows, parameters=f'{parameters:,}', trained_on=f'{trained_on:,}')}"


_BODY: Final = """
# Sentiment

Says whether an English sentence is **POSITIVE** or **NEGATIVE**: reviews of films, books, food, hotels, gadgets and
services. A BERT of two layers with {parameters} parameters, small enough to live in a Git repository and to answer in
about a millisecond on one core. It is the example that Constellation is shown and tested with.

## Use

```python
from transformers import pipeline

classify = pipeline("text-classification", model=".")
classify("The food was not good and the service was terrible.")
```

`onnx/model.onnx` holds the same weights for onnxruntime, with free batch and sequence lengths. At most 128 tokens are
read; the tokenizer cuts longer texts.

## Training data

{trained_on} sentences put together from a lexicon of about two thousand words by a grammar that knows negation ("not good",
"hardly bad", "nothing to complain about"), degree ("too loud", "could have been better"), contrast ("although …",
"…, but …"), comparison, idioms, neutral asides, invented names and slips of the finger. Lexicon, grammar and training
script lie beside this repository in `examples/`. No text of other people was used.

## Evaluation

| held-out set | sentences | accuracy | F1 |
|---|---|---|---|
{rows}

*Sentence patterns never trained on* are clause patterns that the grammar keeps back. *Hand-written sentences* are
pairs that differ in a few words ("I can't recommend this place enough", "I can't recommend this place to anyone"),
written before the model was trained; they were not used to choose words or patterns. That row is the honest one for
text from outside.

## Limits

It knows the words of its lexicon and the constructions of its grammar. Irony, mixed feelings, words it has not met and
texts of several paragraphs are beyond it, and there is no neutral answer. Do not use it to judge people.
"""
