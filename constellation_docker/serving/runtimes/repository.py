"""A model repository on disk: its configuration files, labels and weights."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

from ..model import LoadFailed

_ONNX_FILES = (
    "onnx/model.onnx",
    "model.onnx",
    "onnx/model_quantized.onnx",
    "onnx/model_int8.onnx",
    "model_quantized.onnx",
)


class Repository:
    """A Hugging Face model repository in a directory.

    Args:
        path: The directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_dir():
            raise LoadFailed(f"there is no model directory at {path}")

    def read_json(self, name: str) -> Any:
        """A JSON file of the repository, or None where it has none.

        Raises:
            LoadFailed: the file is there and is not JSON.
        """
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as problem:
            raise LoadFailed(f"{name} in the model repository cannot be read: {problem}") from None

    def read_object(self, name: str) -> dict[str, Any]:
        """A JSON file that must hold an object; empty where the repository has none.

        Raises:
            LoadFailed: the file holds something else.
        """
        document = self.read_json(name)
        if document is None:
            return {}
        if not isinstance(document, dict):
            raise LoadFailed(f"{name} in the model repository must hold an object")
        return document

    @cached_property
    def config(self) -> dict[str, Any]:
        """`config.json`."""
        return self.read_object("config.json")

    @cached_property
    def tokenizer_config(self) -> dict[str, Any]:
        """`tokenizer_config.json`."""
        return self.read_object("tokenizer_config.json")

    @cached_property
    def architecture(self) -> str:
        """The class that saved the model, such as `BertForSequenceClassification`; empty where unknown."""
        architectures = self.config.get("architectures") or [""]
        return str(architectures[0])

    def labels(self, count: int) -> list[str]:
        """The name of each class, by index, `LABEL_<i>` where config.json does not say.

        Args:
            count: How many classes the model has.
        """
        given = self.config.get("id2label")
        names = {str(key): str(value) for key, value in given.items()} if isinstance(given, dict) else {}
        return [names.get(str(index), f"LABEL_{index}") for index in range(count)]

    def onnx_file(self, name: str | None = None) -> Path:
        """The ONNX graph to load.

        Args:
            name: Its path inside the repository, where the packaging has chosen one.

        Raises:
            LoadFailed: there is none, or the path leads outside.
        """
        root = self.path.resolve()
        candidates = [name] if name else list(_ONNX_FILES)
        for candidate in candidates:
            path = (self.path / candidate).resolve()
            if path.is_file() and path.is_relative_to(root):
                return path
        if name is None:
            found = sorted(self.path.glob("*.onnx")) or sorted(self.path.glob("onnx/*.onnx"))
            if len(found) == 1:
                return found[0]
            if found:
                names = ", ".join(path.relative_to(self.path).as_posix() for path in found)
                raise LoadFailed(f"the repository has several ONNX graphs ({names}); name one model.onnx")
        raise LoadFailed(f"the repository has no ONNX graph at {' or '.join(candidates[:2])}")
