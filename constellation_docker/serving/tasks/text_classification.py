"""text-classification: a list of labels with scores for every text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers import Encoding

from ..model import Call, InvalidParameters
from ..runtimes.network import Array
from ..runtimes.repository import Repository
from ..runtimes.tokenizer import Text
from .parameter import Parameter
from .payload import check_count, check_text
from .scores import Floats, LabelledScore, rank, require_finite, sigmoid, softmax
from .text_task import TextTask

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


class TextClassification(TextTask):
    """The answer is nested (`[[{label, score}, …]]`), also for one text: the clients take its first element."""

    task = "text-classification"
    parameters = (TOP_K, FUNCTION_TO_APPLY)

    def read_call(self, inputs: Any, parameters: dict[str, Any]) -> Call:
        """A text, a pair as `{"text", "text_pair"}`, or a list of these."""
        if isinstance(inputs, list):
            check_count(inputs, of="inputs")
            texts = [_read_text(item) for item in inputs]
        else:
            texts = [_read_text(inputs)]
        return Call(texts, parameters, size=len(texts))

    def answer(self, call: Call, encodings: Sequence[Encoding], rows: Sequence[Array]) -> Any:
        """See `TextTask.answer`."""
        labels = self.repository.labels(rows[0].shape[-1])
        function = call.parameters["function_to_apply"] or choose_function(self.repository, len(labels))
        top_k = call.parameters["top_k"]
        return [score_labels(row, labels, function=function, top_k=top_k) for row in rows]

    def schema(self) -> dict[str, dict[str, Any]]:
        """See `Model.schema`."""
        pair = {
            "type": "object",
            "required": ["text"],
            "properties": {"text": {"type": "string"}, "text_pair": {"type": "string"}},
            "additionalProperties": False,
        }
        one = {"anyOf": [{"type": "string"}, pair]}
        inputs = {
            "description": "One text (or pair of texts), or a list of them.",
            "anyOf": [*one["anyOf"], {"type": "array", "items": one, "minItems": 1}],
        }
        return {
            "/": {
                "request": self.request_schema(inputs),
                "response": {"type": "array", "items": LABELLED_SCORES_SCHEMA},
            }
        }


def _read_text(item: Any) -> Text:
    if isinstance(item, dict):
        unknown = set(item) - {"text", "text_pair"}
        if unknown or "text" not in item:
            raise InvalidParameters('A pair of texts is sent as {"text": …, "text_pair": …}.')
        text = check_text(item["text"], of="inputs.text")
        if item.get("text_pair") is None:
            return text
        return (text, check_text(item["text_pair"], of="inputs.text_pair"))
    return check_text(item, of="inputs")
