"""Puts a task's adapter on an ONNX graph."""

from __future__ import annotations

from ..config import Config
from ..cpu import count_cpus
from ..model import LoadFailed, Model
from ..tasks.text_classification import TextClassification
from .encoder import TextEncoder
from .onnx import OnnxNetwork
from .repository import Repository
from .tokenizer import TextTokenizer


def load_onnx(config: Config) -> Model:
    """Load the repository's ONNX graph for the configured task.

    Raises:
        LoadFailed: the task is not one of this runtime's, or a file is missing or cannot be read.
    """
    repository = Repository(config.model_path)
    network = OnnxNetwork(
        repository.onnx_file(), threads=config.options.threads or count_cpus()
    )
    encoder = TextEncoder(TextTokenizer.load(repository), network, max_rows=config.options.max_batch_size)
    if config.task != "text-classification":
        raise LoadFailed(f"the onnx runtime does not serve {config.task}")
    return TextClassification(
        encoder,
        repository,
        max_batch_size=config.options.max_batch_size,
        long_input=config.options.long_input,
    )
