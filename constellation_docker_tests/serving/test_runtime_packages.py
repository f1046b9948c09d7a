"""Each runtime serves its tasks with the packages of its own image, and imports no other runtime's."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
PROGRAM = """
import json, sys
from pathlib import Path

order = json.load(sys.stdin)
from constellation_docker.serving.config import Config, Options
from constellation_docker.serving.loading import load_model
from constellation_docker.serving.model import Request

for task, path, body in order["models"]:
    config = Config(task=task, runtime=order["runtime"], model_path=Path(path), options=Options(threads=1))
    model = load_model(config)
    model.warm_up()
    if body is not None:
        (answer,) = model.run([model.parse(Request(json.dumps(body).encode()))])
        assert not isinstance(answer, Exception), (task, answer)
    print(task)
"""
TEXTS: dict[str, tuple[str, Any]] = {
    "text-classification": ("classifier", {"inputs": "good"}),
    "token-classification": ("tagger", {"inputs": "sarah"}),
    "zero-shot-classification": ("nli", {"inputs": "good", "parameters": {"candidate_labels": ["sports"]}}),
    "feature-extraction": ("encoder", {"inputs": "good"}),
    "sentence-similarity": ("sentence", {"inputs": {"source_sentence": "a", "sentences": ["i"]}}),
    "fill-mask": ("masked", {"inputs": "the [MASK] was good"}),
}
GENERATION = {"text-generation": ("gpt2", {"inputs": "a", "parameters": {"max_new_tokens": 2}})}
TABLES = {
    "tabular-classification": ("table-classifier", {"table": {"length": [1], "width": [2], "height": [3]}}),
}
IMAGES = {"image-classification": ("vit", None)}
# What requirements/onnx.txt leaves out, also of what its own packages declare (requirements/overrides.txt).
NOT_IN_ONNX = {
    "torch",
    "transformers",
    "safetensors",
    "onnx",
    "soundfile",
    "huggingface_hub",
    "sympy",
    "google",
}
NOT_IN_TRANSFORMERS = {"onnxruntime", "onnx", "onnxscript", "soundfile"}


@pytest.mark.parametrize(
    ("runtime", "models", "missing"),
    [
        ("onnx", TEXTS | TABLES, NOT_IN_ONNX | {"flatbuffers", "coloredlogs", "PIL"}),
        ("onnx", IMAGES, NOT_IN_ONNX | {"flatbuffers", "coloredlogs"}),
        ("transformers", TEXTS | GENERATION, NOT_IN_TRANSFORMERS | {"PIL"}),
        pytest.param(
            "transformers",
            {
                **IMAGES,
                "object-detection": ("detector", None),
                "automatic-speech-recognition": ("speech", None),
            },
            NOT_IN_TRANSFORMERS,
            marks=pytest.mark.slow,
        ),
    ],
    ids=["onnx", "onnx with images", "transformers", "transformers with images"],
)
def test_a_runtime_needs_nothing_that_its_image_lacks(
    tiny_model: Callable[[str], Path],
    tmp_path: Path,
    runtime: str,
    models: dict[str, tuple[str, Any]],
    missing: set[str],
) -> None:
    for entry in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if re.split(r"[-.]", entry.name)[0] not in missing:
            (tmp_path / entry.name).symlink_to(entry)
    order = {
        "runtime": runtime,
        "models": [(task, str(tiny_model(name)), body) for task, (name, body) in models.items()],
    }
    done = subprocess.run(
        [sys.executable, "-S", "-c", PROGRAM],  # without the packages of this environment
        input=json.dumps(order),
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY}:{tmp_path}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == list(models)
