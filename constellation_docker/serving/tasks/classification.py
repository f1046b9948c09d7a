"""What every classification shares: its parameters, its answer, and how outputs become scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..runtimes.repository import Repository
from .parameter import Parameter
from .scores import Floats, LabelledScore, rank, require_finite, sigmoid, softmax

TOP_K = Parameter("top_k", "integer", "How many labels are answered; all where absent.", minimum=1)
FUNCTION_TO_APPLY = Parameter(
    "function_to_apply",
    "string",
    "What makes scores of the model's outputs; where absent, what its configuration says.",
    choices=("sigmoid", "softmax", "none"),
)
LABELLED_SCORES_SCHEMA: dict[str, Any] = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["label", "score"],
        "properties": {"label": {"type": "string"}, "score": {"type": "number"}},
    },
}


def choose_function(repository: Repository, count: int) -> str:
    """What makes scores of a classifier's outputs, as transformers' pipelines choose it.

    Args:
        repository: The model's files: `problem_type` and `function_to_apply` in config.json.
        count: How many outputs there are.
    """
    problem = repository.config.get("problem_type")
    if problem == "regression":
        return "none"
    if problem == "multi_label_classification" or (problem is None and count == 1):
        return "sigmoid"
    return "softmax"


def score_labels(
    logits: Floats, labels: Sequence[str], *, function: str, top_k: int | None
) -> list[LabelledScore]:
    """Labels with scores, best first.

    Args:
        logits: The model's outputs, shape `(labels,)`.
        labels: Their names.
        function: `softmax`, `sigmoid` or `none`.
        top_k: How many; all where None.

    Raises:
        ModelFault: the outputs are not numbers.
    """
    require_finite(logits)
    scores = (
        softmax(logits) if function == "softmax" else sigmoid(logits) if function == "sigmoid" else logits
    )
    return rank(scores, labels, top_k)
