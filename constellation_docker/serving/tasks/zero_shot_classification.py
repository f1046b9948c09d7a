"""zero-shot-classification: candidate labels as hypotheses of a natural language inference model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tokenizers import Encoding

from ..model import Call, InvalidParameters, LoadFailed
from ..runtimes.encoder import TextEncoder
from ..runtimes.network import Array
from ..runtimes.repository import Repository
from .classification import LABELLED_SCORES_SCHEMA
from .parameter import Parameter
from .payload import MAX_INPUTS, read_texts
from .scores import LabelledScore, rank, require_finite, softmax
from .text_task import TEXTS_SCHEMA, TextTask

MAX_LABELS = 256
DEFAULT_TEMPLATE = "This example is {}."


class ZeroShotClassification(TextTask):
    """Answers a list of labels with scores for one text, and a list of such lists for several."""

    task = "zero-shot-classification"
    parameters = (
        Parameter(
            "candidate_labels",
            "strings",
            "The labels to choose from; a string is split at its commas.",
            minimum=1,
            maximum=MAX_LABELS,
            is_required=True,
            is_single_allowed=True,
        ),
        Parameter("multi_label", "boolean", "Whether each label is judged by itself.", default=False),
        Parameter(
            "hypothesis_template",
            "string",
            "A sentence in which {} stands for the label.",
            default=DEFAULT_TEMPLATE,
            maximum=2000,
        ),
    )

    def __init__(self, encoder: TextEncoder, repository: Repository, **options: Any) -> None:
        super().__init__(encoder, repository, **options)
        self._entailment = find_entailment(repository)

    def read_call(self, inputs: Any, parameters: dict[str, Any]) -> Call:
        """One text or several; each makes one pair a label."""
        texts = read_texts(inputs)
        labels = _read_labels(parameters["candidate_labels"])
        template = parameters["hypothesis_template"]
        if "{}" not in template:
            raise InvalidParameters("The parameter `hypothesis_template` must hold {}, where the label goes.")
        pairs = [(text, template.replace("{}", label)) for text in texts.items for label in labels]
        if len(pairs) > MAX_INPUTS:
            raise InvalidParameters(
                f"{len(texts.items)} inputs with {len(labels)} labels are {len(pairs)} pairs; "
                f"at most {MAX_INPUTS} are taken."
            )
        return Call(pairs, parameters | {"candidate_labels": labels}, size=len(pairs), context=texts.is_list)

    def answer(self, call: Call, encodings: Sequence[Encoding], rows: Sequence[Array]) -> Any:
        """See `TextTask.answer`."""
        labels = call.parameters["candidate_labels"]
        logits = require_finite(np.stack(rows).reshape(-1, len(labels), rows[0].shape[-1]))
        answers = [self._score(part, labels, is_multi=call.parameters["multi_label"]) for part in logits]
        return answers if call.context else answers[0]

    def _score(self, logits: Array, labels: list[str], *, is_multi: bool) -> list[LabelledScore]:
        if is_multi or len(labels) == 1:
            # Entailment against contradiction, which models put first or, where that is entailment, last.
            contradiction = -1 if self._entailment == 0 else 0
            scores = softmax(logits[:, [contradiction, self._entailment]])[:, 1]
        else:
            scores = softmax(logits[:, self._entailment])
        return rank(scores, labels, None)

    def schema(self) -> dict[str, dict[str, Any]]:
        """See `Model.schema`."""
        response = {"anyOf": [LABELLED_SCORES_SCHEMA, {"type": "array", "items": LABELLED_SCORES_SCHEMA}]}
        return {"/": {"request": self.request_schema(TEXTS_SCHEMA), "response": response}}


def find_entailment(repository: Repository) -> int:
    """The class that stands for entailment, by its name in config.json.

    Raises:
        LoadFailed: no class has that name, so the model is not one of natural language inference.
    """
    names = repository.config.get("id2label")
    for index, name in names.items() if isinstance(names, dict) else ():
        if str(name).lower().startswith("entail"):
            return int(index)
    raise LoadFailed(
        "config.json names no class `entailment` in id2label, which zero-shot-classification is computed from"
    )


def _read_labels(given: list[str]) -> list[str]:
    labels = [part.strip() for part in given[0].split(",")] if len(given) == 1 else given
    labels = [label for label in labels if label]
    if not labels:
        raise InvalidParameters("The parameter `candidate_labels` holds no label.")
    if len(labels) > MAX_LABELS:
        raise InvalidParameters(f"The parameter `candidate_labels` must be at most {MAX_LABELS} items.")
    return labels
