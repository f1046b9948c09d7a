"""Puts a text task's adapter on a network, whichever runtime computes it. Imports neither runtime."""

from __future__ import annotations

from typing import Any

from ..config import Config
from ..model import Model
from .network import Network
from .repository import Repository

TEXT_TASKS = (
    "text-classification",
    "token-classification",
    "zero-shot-classification",
    "feature-extraction",
    "sentence-similarity",
    "fill-mask",
)


def choose_strategy(task: str) -> Any:
    """What is cut of a pair that is too long: never a hypothesis, else the longer text."""
    return "only_first" if task == "zero-shot-classification" else "longest_first"


def assemble_text_task(config: Config, repository: Repository, network: Network, tokenizer: Any) -> Model:
    """The adapter of a text task on a network, whichever runtime computes it.

    Args:
        config: Names the task, which must be one of TEXT_TASKS.
        repository: The model's files.
        network: Computes.
        tokenizer: A `TextTokenizer`.

    Raises:
        LoadFailed: the network or the repository lacks what the task needs.
    """
    from ..tasks.embedding import Embedding
    from ..tasks.fill_mask import FillMask
    from ..tasks.text_classification import TextClassification
    from ..tasks.token_classification import TokenClassification
    from ..tasks.zero_shot_classification import ZeroShotClassification
    from .encoder import TextEncoder

    options: dict[str, Any] = {
        "max_batch_size": config.options.max_batch_size,
        "long_input": config.options.long_input,
    }
    encoder = TextEncoder(tokenizer, network, max_rows=config.options.max_batch_size)
    if config.task == "fill-mask":
        # One score for every word of the vocabulary at every token: a pass must stay small.
        words = max(1, tokenizer.core.get_vocab_size())
        most = max(256, FILL_MASK_BYTES // (4 * words))
        encoder = TextEncoder(tokenizer, network, max_rows=config.options.max_batch_size, max_tokens=most)
        return FillMask(encoder, repository, **options)
    if config.task in ("feature-extraction", "sentence-similarity"):
        return Embedding(encoder, repository, task=config.task, **options)
    if config.task == "token-classification":
        return TokenClassification(encoder, repository, **options)
    if config.task == "zero-shot-classification":
        return ZeroShotClassification(encoder, repository, **options)
    return TextClassification(encoder, repository, **options)


FILL_MASK_BYTES = 128 * 1024 * 1024
"""Largest output of one pass of fill-mask."""
