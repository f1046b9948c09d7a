"""text-classification: a list of labels with scores for every text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers import Encoding

from ..model import Call, InvalidParameters
from ..runtimes.network import Array
from ..runtimes.tokenizer import Text
from .classification import (
    FUNCTION_TO_APPLY,
    LABELLED_SCORES_SCHEMA,
    TOP_K,
    choose_function,
    score_labels,
)
from .payload import check_count, check_text
from .text_task import TextTask


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
