"""Serves the echo model: `python -m constellation_docker_tests.serving.echo_server`."""

from __future__ import annotations

import os
import time
from pathlib import Path

from constellation_docker.serving.config import Config, resolve_config
from constellation_docker.serving.model import LoadFailed, Model
from constellation_docker.serving.server import serve
from constellation_docker_tests.serving.echo import EchoModel


def load(config: Config) -> Model:
    """`ECHO_LOAD`: a file to wait for, or `fail`, `raise`, `exit`."""
    instruction = os.environ.get("ECHO_LOAD", "")
    if instruction == "fail":
        raise LoadFailed("the model echo cannot be loaded: model.onnx is missing")
    if instruction == "raise":
        raise RuntimeError("an unforeseen fault")
    if instruction == "exit":
        raise SystemExit(5)
    while instruction and not Path(instruction).exists():
        time.sleep(0.01)
    return EchoModel(int(os.environ.get("ECHO_MAX_BATCH_SIZE", "32")))


if __name__ == "__main__":
    document = {
        "model_name": "echo",
        "model_version": "1.0",
        "task": "text-classification",
        "description": "Answers what it is asked.",
        "examples": [{"inputs": "hello", "name": "A greeting"}, {"inputs": "again"}],
    }
    os._exit(serve(resolve_config(document, os.environ), load))
