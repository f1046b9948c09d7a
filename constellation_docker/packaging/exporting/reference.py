"""The original model: loaded by transformers, and asked what the graph is asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from .refusal import ExportRefused

CLASSES = {
    "text-classification": ("AutoModelForSequenceClassification", "logits"),
    "zero-shot-classification": ("AutoModelForSequenceClassification", "logits"),
    "token-classification": ("AutoModelForTokenClassification", "logits"),
    "fill-mask": ("AutoModelForMaskedLM", "logits"),
    "feature-extraction": ("AutoModel", "last_hidden_state"),
    "sentence-similarity": ("AutoModel", "last_hidden_state"),
    "image-classification": ("AutoModelForImageClassification", "logits"),
}
"""The tasks that can be exported: the class that has the task's head, and the output that is read."""

Array = NDArray[Any]


@dataclass(frozen=True)
class Reference:
    """A loaded model.

    Attributes:
        model: It, on the CPU, in float32, in evaluation mode.
        preprocessor: Its tokenizer or image processor.
        input_names: What it reads, in order.
        output_name: What is read of it.
    """

    model: Any
    preprocessor: Any
    input_names: tuple[str, ...]
    output_name: str

    def run(self, feeds: dict[str, Array]) -> Array:
        """One forward pass."""
        with torch.inference_mode():
            tensors = {name: torch.from_numpy(feeds[name]) for name in self.input_names}
            return self.model(**tensors)[self.output_name].numpy()  # type: ignore[no-any-return]


def load_reference(path: Path, task: str) -> Reference:
    """Load a repository for a task.

    Raises:
        ExportRefused: the task is not one that is exported, or transformers cannot load the model for it.
    """
    if task not in CLASSES:
        raise ExportRefused(f"models for {task} are not exported, only those for {', '.join(CLASSES)}")
    class_name, output_name = CLASSES[task]
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    is_image = task == "image-classification"
    try:
        loader = transformers.AutoImageProcessor if is_image else transformers.AutoTokenizer
        preprocessor = loader.from_pretrained(path, **options)
        model, info = getattr(transformers, class_name).from_pretrained(
            # torch's fused attention would be taken apart again into more operations than the plain one has.
            path,
            dtype=torch.float32,
            attn_implementation="eager",
            output_loading_info=True,
            **options,
        )
    except Exception as problem:
        # transformers and what it loads with raise of every kind on files that are missing or broken.
        raise ExportRefused(
            f"transformers {transformers.__version__} cannot load it: {shorten(problem)}"
        ) from problem
    if info["missing_keys"] and output_name == "logits":
        missing = ", ".join(sorted(info["missing_keys"])[:3])
        raise ExportRefused(f"its weights lack what {task} needs ({missing}), so its answers would be random")
    accepted = model.forward.__code__.co_varnames[: model.forward.__code__.co_argcount]
    wanted = ("pixel_values",) if is_image else ("input_ids", "attention_mask", "token_type_ids")
    produced = wanted if is_image else preprocessor.model_input_names
    names = tuple(name for name in wanted if name in produced and name in _parameters(model, accepted))
    return Reference(model.eval(), preprocessor, names, output_name)


def _parameters(model: Any, accepted: tuple[str, ...]) -> set[str]:
    import inspect

    return set(accepted) | set(inspect.signature(model.forward).parameters)


def tokenize(reference: Reference, texts: list[Any]) -> dict[str, Array]:
    """Texts (or pairs) as one padded batch, cut to what the model reads."""
    tokenizer = reference.preprocessor
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    limit = min(tokenizer.model_max_length, max_tokens(reference.model.config))
    first = [text if isinstance(text, str) else text[0] for text in texts]
    second = None if all(isinstance(text, str) for text in texts) else [text[1] for text in texts]
    batch = tokenizer(first, second, padding=True, truncation=True, max_length=limit, return_tensors="np")
    return {name: batch[name].astype(np.int64) for name in reference.input_names}


def max_tokens(config: Any) -> int:
    """Most tokens that the model's positions reach to."""
    positions = getattr(config, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions <= 0:
        return 512
    # Positions of RoBERTa's family begin after the padding token's.
    return positions - 2 if positions % 16 == 2 else positions


def shorten(problem: BaseException) -> str:
    """An exception in a few words."""
    text = " ".join(str(problem).split())
    return f"{type(problem).__name__}: {text[:300]}" if text else type(problem).__name__
