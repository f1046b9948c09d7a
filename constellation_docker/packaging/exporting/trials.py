"""What both are asked: the card's examples, and the shapes that a server meets."""

from __future__ import annotations

import base64
import binascii
import io
from typing import Any

import numpy as np

from .comparison import Trial
from .reference import Array, Reference, tokenize
from .refusal import ExportRefused

_SENTENCES = (
    "Yes.",
    "The quick brown fox jumps over the lazy dog.",
    "In 2019, after months of delay, the committee met in Geneva and published a report of 42 pages; few read it.",
)
_LABELS = ("politics", "sports")


def plan_trials(reference: Reference, task: str, examples: list[Any]) -> list[Trial]:
    """Each example by itself, all of them in one padded batch, and one text that fills the model.

    Args:
        reference: The model.
        task: The task.
        examples: The card's: `{"inputs", "parameters"}`. Those of another form are left out.
    """
    if task == "image-classification":
        return _plan_images(reference, examples)
    texts = [text for example in examples for text in _texts_of(example, task)]
    if task == "fill-mask":
        texts = [text for text in texts if reference.preprocessor.mask_token in text]
    texts = texts or _default_texts(reference, task)
    trials = [Trial(f"example {i + 1}", tokenize(reference, [text])) for i, text in enumerate(texts)]
    several = [*texts, *_default_texts(reference, task)]
    long = several[0] if isinstance(several[0], str) else several[0][0]
    longest = long + " " + " ".join(_SENTENCES * 400)
    whole = longest if isinstance(several[0], str) else (longest, several[0][1])
    trials.append(Trial("a batch of different lengths", tokenize(reference, several)))
    trials.append(Trial("the longest text", tokenize(reference, [whole])))
    return trials


def trace_sample(trials: list[Trial]) -> dict[str, Array]:
    """The batch to trace with: several rows, some of them padded."""
    return max(trials, key=lambda trial: min(len(array) for array in trial.feeds.values())).feeds


def require_same_tokens(reference: Reference, path: Any, texts: list[str]) -> None:
    """The server tokenizes with tokenizer.json alone; it must read texts as transformers does.

    Raises:
        ExportRefused: there is no tokenizer.json, or it reads an example otherwise.
    """
    from tokenizers import Tokenizer

    if not path.is_file():
        raise ExportRefused("the repository has no tokenizer.json, which the onnx runtime needs")
    fast = Tokenizer.from_file(str(path))
    fast.no_padding()
    fast.no_truncation()
    for text in texts:
        if fast.encode(text).ids != reference.preprocessor(text)["input_ids"]:
            raise ExportRefused(
                f"tokenizer.json reads {text[:60]!r} otherwise than the model's tokenizer does"
            )


def _texts_of(example: Any, task: str) -> list[Any]:
    inputs = example.get("inputs") if isinstance(example, dict) else None
    parameters = (example.get("parameters") or {}) if isinstance(example, dict) else {}
    texts = [inputs] if isinstance(inputs, (str, dict)) else inputs if isinstance(inputs, list) else []
    if task == "zero-shot-classification":
        labels = parameters.get("candidate_labels") or _LABELS
        labels = labels.split(",") if isinstance(labels, str) else labels
        return [
            (text, f"This example is {label}.") for text in texts if isinstance(text, str) for label in labels
        ]
    found: list[Any] = []
    for text in texts:
        if isinstance(text, str):
            found.append(text)
        elif isinstance(text, dict) and isinstance(text.get("source_sentence"), str):
            found += [
                text["source_sentence"],
                *(s for s in text.get("sentences") or [] if isinstance(s, str)),
            ]
        elif isinstance(text, dict) and isinstance(text.get("text"), str) and not text.get("text_pair"):
            found.append(text["text"])
    return found


def _default_texts(reference: Reference, task: str) -> list[Any]:
    if task == "fill-mask":
        mask = reference.preprocessor.mask_token
        return [f"{sentence} It was {mask}." for sentence in _SENTENCES]
    if task == "zero-shot-classification":
        return [(sentence, f"This example is {label}.") for sentence in _SENTENCES for label in _LABELS]
    return list(_SENTENCES)


def _plan_images(reference: Reference, examples: list[Any]) -> list[Trial]:
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 256, (3, 240, 320, 3), dtype=np.uint8)
    images = [Image.fromarray(array) for array in noise]
    for example in examples:
        inputs = example.get("inputs") if isinstance(example, dict) else None
        if isinstance(inputs, str):
            try:
                images.insert(
                    0, Image.open(io.BytesIO(base64.b64decode(inputs, validate=True))).convert("RGB")
                )
            except (binascii.Error, ValueError, OSError):
                continue
    arrays = [
        np.asarray(reference.preprocessor(images=image, return_tensors="np")["pixel_values"])
        for image in images
    ]
    trials = [Trial(f"image {i + 1}", {"pixel_values": array}) for i, array in enumerate(arrays)]
    same = [array for array in arrays if array.shape == arrays[-1].shape]
    return [*trials, Trial("a batch of images", {"pixel_values": np.concatenate(same)})]
