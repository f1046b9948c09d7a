"""Puts a task's adapter on an ONNX graph."""

from __future__ import annotations

from ..config import Config
from ..cpu import count_cpus
from ..model import LoadFailed, Model
from .network import Network
from .onnx import OnnxNetwork
from .repository import Repository
from .text_assembly import TEXT_TASKS, assemble_text_task, choose_strategy

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


def _load_image_task(config: Config, repository: Repository, network: Network) -> Model:
    from ..tasks.image_classification import ImageClassification, NetworkScorer
    from .image_processor import load_image_processor

    if len(network.input_names) != 1:
        raise LoadFailed(
            f"the ONNX graph takes {', '.join(sorted(network.input_names))}; an image gives one array"
        )
    scorer = NetworkScorer(load_image_processor(repository), network)
    return ImageClassification(scorer, repository, max_batch_size=config.options.max_batch_size)
