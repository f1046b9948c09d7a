"""transformers' own pipelines and image processors, for tasks that are not computed here."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image

from ..config import Config
from ..model import LoadFailed, Model, ModelFault
from .network import Array
from .repository import Repository

_OWN_CLASSES = {"automatic-speech-recognition", "object-detection"}


class TransformersScorer:
    """transformers' image processor before an image classifier."""

    runtime = "transformers"

    def __init__(self, repository: Repository) -> None:
        from transformers import AutoImageProcessor

        from .transformers_loading import load_network

        self._processor = AutoImageProcessor.from_pretrained(
            repository.path, local_files_only=True, trust_remote_code=False
        )
        self._model = load_network(repository, "AutoModelForImageClassification")
        self.device = str(self._model.device)

    def prepare(self, image: Image.Image) -> Array:
        """See `ImageScorer.prepare`."""
        pixels = self._processor(images=image, return_tensors="np")["pixel_values"]
        return pixels[0]  # type: ignore[no-any-return]

    def score(self, pixels: Array) -> Array:
        """See `ImageScorer.score`."""
        try:
            with torch.inference_mode():
                tensor = torch.from_numpy(pixels).to(self._model.device, self._model.dtype)
                logits = self._model(pixel_values=tensor).logits
        except (RuntimeError, ValueError) as problem:
            raise ModelFault("The model failed on this image.") from problem
        return logits.float().cpu().numpy()  # type: ignore[no-any-return]


def load_pipeline_task(config: Config, repository: Repository) -> Model:
    """A pipeline of transformers with the adapter of its task.

    Raises:
        LoadFailed: transformers has no pipeline for the task, or it is not one that can be served as it is.
    """
    from transformers import __version__, pipeline
    from transformers.pipelines import SUPPORTED_TASKS

    from ..tasks.pipeline import FORMS, PipelineTask

    task = config.task or ""
    if task not in FORMS and task not in _OWN_CLASSES:
        reason = (
            "cannot be served as it is"
            if task in SUPPORTED_TASKS
            else f"is unknown to transformers {__version__}"
        )
        raise LoadFailed(
            f"the task {task or 'that no card names'} {reason}; serve the model with a handler.py"
        )
    is_cuda = torch.cuda.is_available()
    made: Any = pipeline(
        "text-to-audio" if task == "text-to-speech" else task,
        model=str(repository.path),
        device=0 if is_cuda else -1,
        dtype="auto" if is_cuda else torch.float32,
        trust_remote_code=False,
    )
    device = str(made.device)
    rate = int(getattr(getattr(made, "feature_extractor", None), "sampling_rate", 16_000))
    if task == "object-detection":
        from ..tasks.object_detection import ObjectDetection

        return ObjectDetection(made, device=device)
    if task == "automatic-speech-recognition":
        from ..tasks.speech_recognition import SpeechRecognition

        return SpeechRecognition(made, rate=rate, kind=str(made.type), device=device)
    return PipelineTask(task, made, device=device, rate=rate)
