"""Which runtime serves a repository, for which task, from which weights. Decided by its files alone.

Nothing of the repository is imported or unpickled here; its JSON is read as data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict

from constellation_docker.cards import ModelCard
from constellation_docker.errors import ConstellationError
from constellation_docker.packaging.source import Source

ONNX_TASKS = frozenset(
    {
        "text-classification",
        "token-classification",
        "zero-shot-classification",
        "feature-extraction",
        "sentence-similarity",
        "fill-mask",
        "image-classification",
        "tabular-classification",
        "tabular-regression",
    }
)
"""What the onnx runtime of the inference server serves."""

_ONNX_GRAPHS = (
    "onnx/model.onnx",
    "model.onnx",
    "onnx/model_quantized.onnx",
    "onnx/model_int8.onnx",
    "model_quantized.onnx",
)
"""Where graphs lie in Hugging Face repositories, the most exact first."""
_CHOSEN_VARIANTS = ("onnx/model_quantized.onnx", "onnx/model_int8.onnx", "model_quantized.onnx")
_HANDLER = "handler.py"
_MAX_JSON_BYTES = 32 * 1024 * 1024

_ARCHITECTURES = (
    ("ForSequenceClassification", "text-classification"),
    ("ForTokenClassification", "token-classification"),
    ("ForMaskedLM", "fill-mask"),
    ("ForCausalLM", "text-generation"),
    ("LMHeadModel", "text-generation"),
    ("ForQuestionAnswering", "question-answering"),
    ("ForImageClassification", "image-classification"),
    ("ForObjectDetection", "object-detection"),
    ("ForSemanticSegmentation", "image-segmentation"),
    ("ForImageSegmentation", "image-segmentation"),
    ("ForUniversalSegmentation", "image-segmentation"),
    ("ForDepthEstimation", "depth-estimation"),
    ("ForAudioClassification", "audio-classification"),
    ("ForSpeechSeq2Seq", "automatic-speech-recognition"),
    ("WhisperForConditionalGeneration", "automatic-speech-recognition"),
    ("ForCTC", "automatic-speech-recognition"),
    ("ForConditionalGeneration", "text2text-generation"),
)
_ENCODERS = re.compile(r"bert|mpnet|electra|xlm|nomic|gte|e5", re.IGNORECASE)


class Runtime(StrEnum):
    """What answers requests inside an image."""

    ONNX = "onnx"
    TRANSFORMERS = "transformers"
    CUSTOM = "custom"
    DOCKERFILE = "dockerfile"
    IMAGE = "image"


class RuntimeChoice(BaseModel):
    """The runtime of one model version, and why.

    Attributes:
        runtime: The runtime.
        reason: One sentence: what in the card or the repository decided.
        task: The task that it serves; None where a handler or an image of its own decides.
        weights: The weight files that the runtime reads, by path.
        handler: The path of the handler, for `custom`.
        notes: What is not wrong, but worth knowing.
    """

    model_config = ConfigDict(frozen=True)

    runtime: Runtime
    reason: str
    task: str | None
    weights: tuple[str, ...] = ()
    handler: str | None = None
    notes: tuple[str, ...] = ()


class RuntimeRefusal(ConstellationError):
    """No runtime serves this repository as its card says."""

    code = "no_runtime"


class WeightsMissing(RuntimeRefusal):
    """The repository holds no weights that any runtime reads; `files` says what it holds."""

    code = "weights_missing"


class TaskUnknown(RuntimeRefusal):
    """Neither the card nor the repository says which task the model serves."""

    code = "task_unknown"


class RuntimeMismatch(RuntimeRefusal):
    """The card asks for a runtime that the repository does not fit."""

    code = "runtime_mismatch"


def choose_runtime(source: Source | None, card: ModelCard) -> RuntimeChoice:
    """The runtime that serves a model.

    A repository's own `handler.py` wins over weights, and ONNX over other weights where the onnx runtime
    serves the task, unless the card names a runtime. A Dockerfile is used only when the card says so.

    Args:
        source: The repository; None for `runtime: image`.
        card: The card, merged with the repository's.

    Raises:
        WeightsMissing: There is nothing to serve.
        TaskUnknown: The task is not given and cannot be told.
        RuntimeMismatch: The card's runtime does not fit the repository.
    """
    wanted = card.serving.runtime
    if wanted == "image":
        return RuntimeChoice(
            runtime=Runtime.IMAGE, reason=f"The card names the image {card.serving.image}.", task=card.task
        )
    if source is None:
        raise RuntimeMismatch(
            f"{card.key} has no repository, and its card names no ready-made image.",
            remedy="Give repo_url, or runtime: image with image.",
        )
    contents = _Contents(source)
    if wanted == "dockerfile":
        return _choose_dockerfile(contents, card)
    if wanted == "custom" or (wanted == "auto" and contents.handler):
        return _choose_handler(contents, card)
    if wanted == "onnx":
        return _choose_onnx(contents, card, "The card asks for onnx.")
    if wanted == "transformers":
        return _choose_transformers(contents, card, "The card asks for transformers.")
    return _choose_by_weights(contents, card)


class _Contents:
    """What decides, of a repository's files."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.paths = tuple(file.path for file in source.files)
        known = set(self.paths)
        self.handler = _HANDLER if _HANDLER in known else None
        self.safetensors = tuple(p for p in self.paths if p.endswith(".safetensors") and _is_model_file(p))
        self.pickles = tuple(p for p in self.paths if p.endswith(".bin") and _is_model_file(p))
        self.graph = self._graph(known)
        self.has_config = "config.json" in known
        self.has_tokenizer = "tokenizer.json" in known
        self.has_preprocessor = "preprocessor_config.json" in known

    def has(self, path: str) -> bool:
        return path in self.paths

    def _graph(self, known: set[str]) -> str | None:
        for path in _ONNX_GRAPHS:
            if path in known:
                return path
        others = [p for p in self.paths if p.endswith(".onnx") and p.count("/") <= 1]
        return others[0] if len(others) == 1 else None

    def read_object(self, path: str) -> dict[str, Any]:
        """A JSON file that holds an object; empty where there is none."""
        place = self._source.path / path
        if path not in self.paths or place.stat().st_size > _MAX_JSON_BYTES:
            return {}
        try:
            document = json.loads(place.read_bytes())
        except (ValueError, RecursionError):
            raise RuntimeMismatch(
                f"{path} in the repository is not JSON.", remedy="Save the model again.", path=path
            ) from None
        return document if isinstance(document, dict) else {}

    def summary(self) -> list[str]:
        """The largest files, for messages."""
        largest = sorted(self._source.files, key=lambda file: -file.size_bytes)
        return [f"{file.path} ({file.size_bytes:,} bytes)" for file in largest[:10]]


def _is_model_file(path: str) -> bool:
    name = path.rpartition("/")[2]
    return "/" not in path and name.startswith(("model", "pytorch_model")) and "training_args" not in name


def _choose_dockerfile(contents: _Contents, card: ModelCard) -> RuntimeChoice:
    path = card.serving.dockerfile
    if not contents.has(path):
        raise RuntimeMismatch(
            f"The card of {card.key} asks for the repository's own {path}, which is not there.",
            remedy=f"Commit {path}, or choose another runtime in the card.",
            path=path,
        )
    if not card.serving.declares_endpoint:
        raise RuntimeMismatch(
            f"The card of {card.key} asks for the repository's own {path} and does not say where it serves.",
            remedy="Give constellation.port and constellation.health_path in the card.",
            path=path,
        )
    reason = f"The card asks for the repository's own {path}, on port {card.serving.port}."
    return RuntimeChoice(runtime=Runtime.DOCKERFILE, reason=reason, task=card.task)


def _choose_handler(contents: _Contents, card: ModelCard) -> RuntimeChoice:
    if contents.handler is None:
        raise RuntimeMismatch(
            f"The card of {card.key} asks for a custom handler, and the repository has no {_HANDLER}.",
            remedy=f"Add {_HANDLER} with a class EndpointHandler, or choose another runtime in the card.",
            path=_HANDLER,
        )
    weights = (*contents.safetensors, *contents.pickles, *([contents.graph] if contents.graph else []))
    return RuntimeChoice(
        runtime=Runtime.CUSTOM,
        reason=f"The repository has a {_HANDLER}.",
        task=card.task,
        weights=weights,
        handler=_HANDLER,
        notes=_pickle_notes(contents.pickles) if not contents.safetensors else (),
    )


def _choose_by_weights(contents: _Contents, card: ModelCard) -> RuntimeChoice:
    if contents.graph is None and not contents.safetensors and not contents.pickles:
        raise _weights_missing(contents, card)
    task = _resolve_task(contents, card)
    if contents.graph and task in ONNX_TASKS and _missing_for_onnx(contents, task) is None:
        return _choose_onnx(contents, card, f"The repository has {contents.graph}, and onnx serves {task}.")
    if contents.safetensors or contents.pickles:
        weights = (contents.safetensors or contents.pickles)[0]
        why = f"The repository has {weights}"
        if contents.graph and task not in ONNX_TASKS:
            why += f", and onnx does not serve {task}"
        elif contents.graph:
            why += f", and for onnx it lacks {_missing_for_onnx(contents, task)}"
        return _choose_transformers(contents, card, why + ".")
    return _choose_onnx(contents, card, f"The repository has {contents.graph}.")


def _choose_onnx(contents: _Contents, card: ModelCard, reason: str) -> RuntimeChoice:
    if contents.graph is None:
        raise _weights_missing(contents, card, looked_for=_ONNX_GRAPHS[:2])
    task = _resolve_task(contents, card)
    if task not in ONNX_TASKS:
        raise RuntimeMismatch(
            f"{card.key} is for {task}, which the onnx runtime does not serve.",
            remedy="Add safetensors weights for the transformers runtime, or a handler.py.",
            task=task,
        )
    missing = _missing_for_onnx(contents, task)
    if missing:
        raise RuntimeMismatch(
            f"{card.key} has {contents.graph}, and lacks {missing}, which the onnx runtime reads for {task}.",
            remedy=f"Add {missing} to the repository.",
            path=missing,
        )
    is_variant = contents.graph in _CHOSEN_VARIANTS
    notes = (f"Only the quantised graph {contents.graph} is there.",) if is_variant else ()
    return RuntimeChoice(
        runtime=Runtime.ONNX, reason=reason, task=task, weights=(contents.graph,), notes=notes
    )


def _choose_transformers(contents: _Contents, card: ModelCard, reason: str) -> RuntimeChoice:
    weights = contents.safetensors or contents.pickles
    if not weights:
        raise _weights_missing(contents, card, looked_for=("model.safetensors", "pytorch_model.bin"))
    if not contents.has_config:
        raise RuntimeMismatch(
            f"{card.key} has {weights[0]}, and no config.json that says what it is.",
            remedy="Save the model with save_pretrained, which writes config.json, or add a handler.py.",
            path="config.json",
        )
    notes = () if contents.safetensors else _pickle_notes(contents.pickles)
    return RuntimeChoice(
        runtime=Runtime.TRANSFORMERS,
        reason=reason,
        task=_resolve_task(contents, card),
        weights=weights,
        notes=notes,
    )


def _missing_for_onnx(contents: _Contents, task: str) -> str | None:
    """The file that the onnx runtime needs for a task and that is not there."""
    if task.startswith("tabular-"):
        return None
    if task == "image-classification":
        return None if contents.has_preprocessor else "preprocessor_config.json"
    if task.startswith("tabular-"):
        return None
    return None if contents.has_tokenizer else "tokenizer.json"


def _resolve_task(contents: _Contents, card: ModelCard) -> str:
    """The card's task, else the one that config.json's architecture was made for."""
    if card.task:
        return card.task
    if contents.has("modules.json"):  # written by sentence-transformers
        return "sentence-similarity"
    given = contents.read_object("config.json").get("architectures")
    names = [name for name in given if isinstance(name, str)] if isinstance(given, list) else []
    for name in names:
        for ending, task in _ARCHITECTURES:
            if name.endswith(ending):
                return task
        if name.endswith("Model") and _ENCODERS.search(name):
            return "feature-extraction"
    raise TaskUnknown(
        f"Neither the card of {card.key} nor config.json says which task it serves"
        f"{f' (architecture {names[0]})' if names else ''}.",
        remedy="Set pipeline_tag in the card, for example to text-classification.",
        architectures=names,
    )


def _weights_missing(contents: _Contents, card: ModelCard, looked_for: Sequence[str] = ()) -> WeightsMissing:
    wanted = looked_for or (_HANDLER, *_ONNX_GRAPHS[:2], "model.safetensors", "pytorch_model.bin")
    held = contents.summary()
    return WeightsMissing(
        f"The repository of {card.key} has none of {', '.join(wanted)}; it holds {', '.join(held[:5])}.",
        remedy="Commit the weights (with Git LFS where they are large), or give the branch that has them.",
        looked_for=list(wanted),
        files=held,
    )


def _pickle_notes(paths: Sequence[str]) -> tuple[str, ...]:
    if not paths:
        return ()
    return (
        f"{paths[0]} is a pickle, which may run code when it is loaded; save it as safetensors "
        "(model.save_pretrained(..., safe_serialization=True)).",
    )
