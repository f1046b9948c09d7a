"""Puts a task's adapter on an ONNX graph."""

from __future__ import annotations

from typing import Any

from ..config import Config
from ..cpu import count_cpus
from ..model import LoadFailed, Model
from .network import Network
from .onnx import OnnxNetwork
from .repository import Repository

TEXT_TASKS = (
    "text-classification",
    "token-classification",
    "zero-shot-classification",
    "feature-extraction",
    "sentence-similarity",
    "fill-mask",
)
TABULAR_TASKS = ("tabular-classification", "tabular-regression")
TASKS = (*TEXT_TASKS, "image-classification", *TABULAR_TASKS)
"""What the onnx runtime serves."""


def load_onnx(config: Config) -> Model:
    """Load the repository's ONNX graph for the configured task.

    Raises:
        LoadFailed: the task is not one of this runtime's, or a file is missing or cannot be read.
    """
    if config.task not in TASKS:
        raise LoadFailed(
            f"the onnx runtime does not serve the task {config.task or 'that no card names'}; it serves "
            f"{', '.join(TASKS)}"
        )
    repository = Repository(config.model_path)
    network = OnnxNetwork(
        repository.onnx_file(config.extra.get("weights_file")),
        threads=config.options.threads or count_cpus(),
    )
    if config.task == "image-classification":
        return _load_image_task(config, repository, network)
    if config.task in TABULAR_TASKS:
        from ..tasks.tabular import Tabular

        return Tabular(
            network,
            repository,
            task=config.task,
            texts=network.text_names,
            whole=network.integer_names,
            max_batch_size=config.options.max_batch_size,
        )
    from .tokenizer import TextTokenizer

    strategy = choose_strategy(config.task)
    return assemble_text_task(config, repository, network, TextTokenizer.load(repository, strategy=strategy))


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


def _load_image_task(config: Config, repository: Repository, network: Network) -> Model:
    from ..tasks.image_classification import ImageClassification, NetworkScorer
    from .image_processor import load_image_processor

    if len(network.input_names) != 1:
        raise LoadFailed(
            f"the ONNX graph takes {', '.join(sorted(network.input_names))}; an image gives one array"
        )
    scorer = NetworkScorer(load_image_processor(repository), network)
    return ImageClassification(scorer, repository, max_batch_size=config.options.max_batch_size)
