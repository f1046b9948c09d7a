"""Turns a model's numbers into labelled scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from ..model import ModelFault

Floats = NDArray[np.floating[Any]]


class LabelledScore(TypedDict):
    """One element of a classification's answer."""

    label: str
    score: float


def softmax(logits: Floats) -> Floats:
    """Probabilities along the last axis, in float32 or better."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)  # type: ignore[no-any-return]


def sigmoid(logits: Floats) -> Floats:
    """The logistic function, without overflow for large negative logits."""
    return 0.5 * (1.0 + np.tanh(0.5 * logits))  # type: ignore[no-any-return]


def require_finite(values: Floats) -> Floats:
    """The values, where all of them are numbers: NaN and infinity have no JSON.

    Raises:
        ModelFault: some are not.
    """
    if not np.isfinite(values).all():
        raise ModelFault("The model gave scores that are not numbers (NaN or infinity) for this input.")
    return values


def rank(scores: Floats, labels: Sequence[str], top_k: int | None) -> list[LabelledScore]:
    """The labels with their scores, best first; of equal scores, the first label first.

    Args:
        scores: One score a label, shape `(labels,)`.
        labels: The labels.
        top_k: How many; all where None.
    """
    order = np.argsort(-scores, kind="stable")[:top_k]
    values = scores.tolist()
    return [{"label": labels[i], "score": values[i]} for i in order.tolist()]
