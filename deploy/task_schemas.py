"""Write constellation_docker/gateway/task_schemas.json from the inference server's tasks: `make docs`.

The gateway tells what goes into a model and what comes out. The tasks themselves know, but they need numpy and
tokenizers, which belong into images and not beside the gateway; so what they say is kept as a file, and a test
compares the two.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from constellation_docker.serving.tasks.binary_task import BinaryTask
from constellation_docker.serving.tasks.embedding import Embedding
from constellation_docker.serving.tasks.fill_mask import FillMask
from constellation_docker.serving.tasks.image_classification import ImageClassification
from constellation_docker.serving.tasks.object_detection import ObjectDetection
from constellation_docker.serving.tasks.pipeline import FORMS, PipelineTask
from constellation_docker.serving.tasks.speech_recognition import SpeechRecognition
from constellation_docker.serving.tasks.tabular import Tabular
from constellation_docker.serving.tasks.text_classification import TextClassification
from constellation_docker.serving.tasks.token_classification import TokenClassification
from constellation_docker.serving.tasks.zero_shot_classification import ZeroShotClassification

# Each with what its `schema` reads of an instance; a whole one would need a model's files.
ADAPTERS: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "text-classification": (TextClassification, {}),
    "token-classification": (TokenClassification, {}),
    "zero-shot-classification": (ZeroShotClassification, {}),
    "fill-mask": (FillMask, {}),
    "feature-extraction": (Embedding, {"task": "feature-extraction"}),
    "sentence-similarity": (Embedding, {"task": "sentence-similarity"}),
    "image-classification": (ImageClassification, {}),
    "object-detection": (ObjectDetection, {}),
    "automatic-speech-recognition": (SpeechRecognition, {}),
    "tabular-classification": (Tabular, {"task": "tabular-classification", "_columns": []}),
    "tabular-regression": (Tabular, {"task": "tabular-regression", "_columns": []}),
    **{task: (PipelineTask, {"_form": form}) for task, form in FORMS.items()},
}


def render_task_schemas() -> str:
    """By task: the paths that a model answers at, each with its request and response as JSON Schema."""
    schemas = {task: _schema_of(kind, parts) for task, (kind, parts) in ADAPTERS.items()}
    schemas["text-generation"] = _generation()
    return json.dumps(dict(sorted(schemas.items())), indent=1, ensure_ascii=False) + "\n"


def _schema_of(kind: type[Any], parts: dict[str, Any]) -> dict[str, Any]:
    adapter = object.__new__(kind)
    for name, value in parts.items():
        object.__setattr__(adapter, name, value)
    schema: dict[str, Any] = kind.schema(adapter)
    if issubclass(kind, BinaryTask):
        schema["/"]["media_types"] = [f"{kind.family}/*"]
    return schema


def _generation() -> dict[str, Any]:
    from constellation_docker.serving.tasks.chat import ChatFormat
    from constellation_docker.serving.tasks.completion import CompletionFormat
    from constellation_docker.serving.tasks.text_generation import RootFormat

    forms = {"/": RootFormat, "/v1/chat/completions": ChatFormat, "/v1/completions": CompletionFormat}
    return {path: form.schema(object.__new__(form)) for path, form in forms.items()}


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(render_task_schemas(), encoding="utf-8")
