"""transformers on torch: checks that a repository can be read, loads it, and puts a task's adapter on it.

Nothing is ever fetched, and no code of the repository is run; a model that needs either is refused.
"""

from __future__ import annotations

import os
from pickle import UnpicklingError
from typing import Any

from ..config import Config
from ..cpu import count_cpus
from ..model import LoadFailed, Model
from .repository import Repository

_FAILURES = (OSError, ValueError, KeyError, ImportError, RuntimeError, AttributeError, TypeError)
"""What transformers raises on files that are missing, broken or of another kind."""

_TEXT_CLASSES = {
    "text-classification": ("AutoModelForSequenceClassification", "logits"),
    "zero-shot-classification": ("AutoModelForSequenceClassification", "logits"),
    "token-classification": ("AutoModelForTokenClassification", "logits"),
    "fill-mask": ("AutoModelForMaskedLM", "logits"),
    "feature-extraction": ("AutoModel", "last_hidden_state"),
    "sentence-similarity": ("AutoModel", "last_hidden_state"),
}


def load_transformers(config: Config) -> Model:
    """Load the repository for the configured task.

    Raises:
        LoadFailed: this version of transformers cannot read it, or has nothing for the task.
    """
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
        os.environ[variable] = "1"
    repository = Repository(config.model_path)
    try:
        import torch
        import transformers
        from safetensors import SafetensorError
    except ImportError as problem:
        raise LoadFailed(f"the transformers runtime needs torch and transformers: {problem}") from None
    require_readable(repository, transformers.__version__)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(config.options.threads or count_cpus())
    try:
        return _load_task(config, repository)
    except (SafetensorError, UnpicklingError, *_FAILURES) as problem:
        raise LoadFailed(
            f"transformers {transformers.__version__} cannot load the model for {config.task}: {_sentence(problem)}"
        ) from problem


def require_readable(repository: Repository, installed: str) -> None:
    """Refuse what this version of transformers would misread or fail on with a riddle.

    Args:
        repository: The model's files.
        installed: Version of transformers.

    Raises:
        LoadFailed: a newer major version saved it, or it needs code of its own.
    """
    if not repository.config:
        raise LoadFailed("the repository has no config.json, which the transformers runtime needs")
    saved = str(repository.config.get("transformers_version") or "")
    own, major = installed.partition(".")[0], saved.partition(".")[0]
    if major.isdigit() and own.isdigit() and int(major) > int(own):
        raise LoadFailed(
            f"the model was saved by transformers {saved}, which transformers {installed} in this image cannot "
            f"read; require transformers>={major} in the model card's dependencies"
        )
    tokenizer_class = str(repository.tokenizer_config.get("tokenizer_class") or "")
    if tokenizer_class == "TokenizersBackend" and own.isdigit() and int(own) < 5:
        raise LoadFailed(
            f"the tokenizer was saved by transformers 5 (TokenizersBackend), which transformers {installed} in "
            "this image cannot read; require transformers>=5 in the model card's dependencies"
        )
    model_type = repository.config.get("model_type")
    if repository.config.get("auto_map") and not _is_known(model_type):
        raise LoadFailed(
            f"the model ({model_type}) brings Python of its own (auto_map), which is not run here; "
            "serve it with a handler.py"
        )


def _is_known(model_type: Any) -> bool:
    from transformers import CONFIG_MAPPING

    return model_type in CONFIG_MAPPING


def _load_task(config: Config, repository: Repository) -> Model:
    task = config.task or ""
    if task in _TEXT_CLASSES:
        return _load_text_task(config, repository)
    if task == "text-generation":
        from ..tasks.text_generation import TextGeneration
        from .generation import Generator

        generator = Generator(load_tokenizer(repository), load_network(repository, "AutoModelForCausalLM"))
        return TextGeneration(generator, config)
    if task == "image-classification":
        from ..tasks.image_classification import ImageClassification
        from .pipelines import TransformersScorer

        scorer = TransformersScorer(repository)
        return ImageClassification(scorer, repository, max_batch_size=config.options.max_batch_size)
    from .pipelines import load_pipeline_task

    return load_pipeline_task(config, repository)


def _load_text_task(config: Config, repository: Repository) -> Model:
    from .text_assembly import assemble_text_task, choose_strategy
    from .tokenizer import TextTokenizer
    from .torch_network import TorchNetwork

    assert config.task is not None
    tokenizer = load_tokenizer(repository)
    core = getattr(tokenizer, "backend_tokenizer", None)
    if core is None:
        raise LoadFailed(
            f"the tokenizer {type(tokenizer).__name__} has no fast form (tokenizer.json); save the model with one, "
            "or serve it with a handler.py"
        )
    class_name, output = _TEXT_CLASSES[config.task]
    network = TorchNetwork(load_network(repository, class_name), output_names=(output,))
    text_tokenizer = TextTokenizer(core, repository, strategy=choose_strategy(config.task))
    return assemble_text_task(config, repository, network, text_tokenizer)


def load_tokenizer(repository: Repository) -> Any:
    """The repository's tokenizer."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(
        repository.path, local_files_only=True, trust_remote_code=False, use_fast=True
    )


def load_network(repository: Repository, class_name: str) -> Any:
    """The repository's model, in evaluation mode, on the GPU where there is one.

    On a CPU it computes in float32: half precision is slow there.

    Args:
        repository: The model's files.
        class_name: One of transformers' `AutoModel…`.
    """
    import torch
    import transformers

    is_cuda = torch.cuda.is_available()
    model = getattr(transformers, class_name).from_pretrained(
        repository.path,
        local_files_only=True,
        trust_remote_code=False,
        dtype="auto" if is_cuda else torch.float32,
    )
    return model.to("cuda:0" if is_cuda else "cpu").eval()


def _sentence(problem: Exception) -> str:
    text = " ".join(str(problem).split())
    return text[:400] or type(problem).__name__
