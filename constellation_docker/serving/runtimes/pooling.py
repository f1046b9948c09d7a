"""From a vector a token to a vector a text, as a sentence-transformers repository describes it.

`modules.json` lists what follows the network: a pooling (`1_Pooling/config.json`), perhaps dense layers, perhaps
a normalization.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..model import LoadFailed
from .network import Array
from .repository import Repository

_MODES = ("cls", "mean", "max", "mean_sqrt_len", "weightedmean", "lasttoken")
_LEGACY_KEYS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "torch.nn.modules.linear.Identity": lambda x: x,
    "torch.nn.modules.activation.Tanh": np.tanh,
    "torch.nn.modules.activation.ReLU": lambda x: np.maximum(x, 0),
}


@dataclass(frozen=True, slots=True)
class Dense:
    """A dense layer: `activation(x @ weight.T + bias)`."""

    weight: Array
    bias: Array | None
    activation: Callable[[Array], Array]

    def apply(self, vector: Array) -> Array:
        """The layer's output for one vector."""
        result = vector @ self.weight.T
        return self.activation(result if self.bias is None else result + self.bias)


@dataclass(frozen=True, slots=True)
class Pooling:
    """What makes one vector of a text's token vectors.

    Attributes:
        modes: Poolings whose results are put behind one another.
        dense: Layers after that.
        is_normalized: Whether the repository itself scales the result to length 1.
        are_prompts_pooled: Whether a prompt's tokens count.
        prompts: Texts put before the input, by name.
        default_prompt: The prompt's name that holds when the client says nothing.
        similarity: `cosine`, `dot`, `euclidean` or `manhattan`.
    """

    modes: tuple[str, ...] = ("mean",)
    dense: tuple[Dense, ...] = ()
    is_normalized: bool = False
    are_prompts_pooled: bool = True
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    similarity: str = "cosine"

    def pool(self, tokens: Array, *, skipped: int = 0) -> Array:
        """One vector.

        Args:
            tokens: Shape `(tokens, size)`, without padding; or one vector, where the network pools itself.
            skipped: How many tokens at the start belong to a prompt that does not count.
        """
        if tokens.ndim == 1:
            return tokens
        counted = tokens[skipped:] if 0 < skipped < len(tokens) else tokens
        vector = np.concatenate([_pool(mode, tokens, counted) for mode in self.modes])
        for layer in self.dense:
            vector = layer.apply(vector)
        return vector


def normalize(vectors: Array) -> Array:
    """The vectors scaled to length 1; those of length 0 stay."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.maximum(lengths, 1e-12)  # type: ignore[no-any-return]


def load_pooling(repository: Repository) -> Pooling | None:
    """What `modules.json` says, or None for a repository that is no sentence-transformers one.

    Raises:
        LoadFailed: it lists a module or a pooling that this server does not know.
    """
    modules = repository.read_json("modules.json")
    if modules is None:
        return None
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise LoadFailed("modules.json in the model repository must hold a list of objects")
    found: dict[str, Any] = {}
    dense: list[Dense] = []
    for module in modules:
        kind, path = str(module.get("type", "")).rpartition(".")[2], str(module.get("path", ""))
        if kind == "Pooling":
            config = repository.read_object(f"{path}/config.json")
            found["modes"] = _read_modes(config)
            found["are_prompts_pooled"] = bool(config.get("include_prompt", True))
        elif kind == "Normalize":
            found["is_normalized"] = True
        elif kind == "Dense":
            dense.append(_load_dense(repository, path))
        elif kind not in ("Transformer", "Dropout"):
            raise LoadFailed(
                f"modules.json lists a {kind or 'module without a type'}, which this server does not know"
            )
    options = repository.read_object("config_sentence_transformers.json")
    prompts = options.get("prompts") or {}
    return Pooling(
        **found,
        dense=tuple(dense),
        prompts={str(name): str(text) for name, text in prompts.items()},
        default_prompt=options.get("default_prompt_name"),
        similarity=str(options.get("similarity_fn_name") or "cosine"),
    )


def _pool(mode: str, tokens: Array, counted: Array) -> Array:
    if mode == "cls":
        return tokens[0]  # type: ignore[no-any-return]
    if mode == "lasttoken":
        return tokens[-1]  # type: ignore[no-any-return]
    if mode == "max":
        return counted.max(axis=0)  # type: ignore[no-any-return]
    if mode == "weightedmean":
        weights = np.arange(1, len(counted) + 1, dtype=counted.dtype)
        return (weights @ counted) / weights.sum()  # type: ignore[no-any-return]
    divisor = len(counted) ** 0.5 if mode == "mean_sqrt_len" else len(counted)
    return counted.sum(axis=0) / np.float32(divisor)  # type: ignore[no-any-return]


def _read_modes(config: dict[str, Any]) -> tuple[str, ...]:
    named = config.get("pooling_mode")
    if isinstance(named, str):
        modes = tuple(named.split("+"))
    else:
        modes = tuple(mode for key, mode in _LEGACY_KEYS.items() if config.get(key))
    unknown = [mode for mode in modes if mode not in _MODES]
    if unknown or not modes:
        raise LoadFailed(
            f"the pooling {unknown[0] if unknown else 'of the repository'!r} is not one of {', '.join(_MODES)}"
        )
    return modes


def _load_dense(repository: Repository, path: str) -> Dense:
    config = repository.read_object(f"{path}/config.json")
    activation = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    if activation not in _ACTIVATIONS:
        raise LoadFailed(f"the dense layer {path} uses {activation}, which this server does not know")
    weights = read_safetensors(repository.path / path / "model.safetensors")
    if "linear.weight" not in weights:
        raise LoadFailed(f"{path}/model.safetensors holds no linear.weight")
    return Dense(weights["linear.weight"], weights.get("linear.bias"), _ACTIVATIONS[activation])


def read_safetensors(path: Path) -> dict[str, Array]:
    """The arrays of a small safetensors file, in float32, without the safetensors package.

    The format: https://huggingface.co/docs/safetensors (eight bytes of header length, a JSON header, the data).

    Raises:
        LoadFailed: the file is missing or is not one.
    """
    kinds = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
    try:
        raw = path.read_bytes()
        size = int.from_bytes(raw[:8], "little")
        header = json.loads(raw[8 : 8 + size])
        arrays = {}
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            start, end = entry["data_offsets"]
            array = np.frombuffer(raw[8 + size + start : 8 + size + end], dtype=kinds[entry["dtype"]])
            if entry["dtype"] == "BF16":
                array = (array.astype(np.uint32) << 16).view(np.float32)
            arrays[name] = array.reshape(entry["shape"]).astype(np.float32)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise LoadFailed(f"{path.parent.name}/{path.name} cannot be read: {problem}") from None
    return arrays
