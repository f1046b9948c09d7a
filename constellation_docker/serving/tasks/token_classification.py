"""token-classification: entities with their places in the text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers import Encoding

from ..model import Call, InvalidParameters
from ..runtimes.encoder import TextEncoder
from ..runtimes.network import Array
from ..runtimes.repository import Repository
from ..runtimes.tokenizer import find_special_token
from .entity import Piece, aggregate, drop_overlaps
from .parameter import Parameter
from .payload import read_texts
from .scores import require_finite, softmax
from .text_task import TEXTS_SCHEMA, TextTask

MAX_WINDOWS = 256


class TokenClassification(TextTask):
    """Answers a list of entities for one text, and a list of such lists for several."""

    task = "token-classification"
    parameters = (
        Parameter(
            "aggregation_strategy",
            "string",
            "How tokens become entities; `none` answers tokens. The hosted API's default.",
            default="simple",
            choices=("none", "simple", "first", "average", "max"),
        ),
        Parameter("ignore_labels", "strings", "Labels that are left out.", default=["O"]),
        Parameter(
            "stride",
            "integer",
            "Read a long text in windows that share this many tokens, instead of cutting it.",
            minimum=0,
        ),
    )

    def __init__(self, encoder: TextEncoder, repository: Repository, **options: Any) -> None:
        super().__init__(encoder, repository, **options)
        core = encoder.tokenizer.core
        self._unknown = find_special_token(core, repository, "unk_token")
        self._prefix = getattr(core.model, "continuing_subword_prefix", None)

    def read_call(self, inputs: Any, parameters: dict[str, Any]) -> Call:
        """One text or several."""
        texts = read_texts(inputs)
        stride = parameters["stride"]
        room = self.encoder.tokenizer.max_length - self.encoder.tokenizer.core.num_special_tokens_to_add(
            is_pair=False
        )
        if stride is not None and stride >= room:
            raise InvalidParameters(
                f"The parameter `stride` must be less than {room}, the tokens that this model reads."
            )
        if stride is not None and parameters["aggregation_strategy"] == "none":
            raise InvalidParameters(
                "The parameter `stride` needs an `aggregation_strategy` other than `none`."
            )
        return Call(list(texts.items), parameters, size=len(texts.items), context=texts.is_list)

    def encode(self, call: Call) -> list[Encoding]:
        """See `TextTask.encode`. With a stride, a text has several encodings; `type_ids` tell nothing of it."""
        stride = call.parameters["stride"]
        encodings = self.encoder.tokenizer.encode(
            call.inputs, direction="right", stride=stride or 0, are_offsets_needed=True
        )
        if stride is None:
            self.check_length(call, encodings)
            return encodings
        windows = [[encoding, *encoding.overflowing] for encoding in encodings]
        if any(len(part) > MAX_WINDOWS for part in windows):
            raise InvalidParameters(f"An input needs more than {MAX_WINDOWS} windows; send it in parts.")
        call.parameters["windows"] = [len(part) for part in windows]
        return [window for part in windows for window in part]

    def answer(self, call: Call, encodings: Sequence[Encoding], rows: Sequence[Array]) -> Any:
        """See `TextTask.answer`."""
        parameters = call.parameters
        counts = parameters.get("windows") or [1] * len(call.inputs)
        strategy, ignored = parameters["aggregation_strategy"], set(parameters["ignore_labels"])
        answers, at = [], 0
        for text, count in zip(call.inputs, counts, strict=True):
            entities = []
            for encoding, row in zip(encodings[at : at + count], rows[at : at + count], strict=True):
                labels = self.repository.labels(row.shape[-1])
                found = aggregate(self._pieces(text, encoding, row), labels, strategy, self._join)
                entities += [e for e in found if (e.get("entity_group") or e.get("entity")) not in ignored]
            answers.append(drop_overlaps(entities) if count > 1 else entities)
            at += count
        return answers if call.context else answers[0]

    def _pieces(self, text: str, encoding: Encoding, row: Array) -> list[Piece]:
        scores = softmax(require_finite(row))
        special, ids = encoding.special_tokens_mask, encoding.ids
        tokens, offsets = encoding.tokens, encoding.offsets
        pieces = []
        for index in range(len(ids)):
            if special[index]:
                continue
            (start, end), word = offsets[index], tokens[index]
            if ids[index] == self._unknown:
                word, is_continuation = text[start:end], False
            elif self._prefix:
                is_continuation = len(word) != end - start
            else:
                # A tokenizer that marks no words: what follows no space continues one.
                is_continuation = start > 0 and " " not in text[start - 1 : start + 1]
            pieces.append(Piece(word, scores[index], start, end, index, is_continuation))
        return pieces

    def _join(self, words: list[str]) -> str:
        decoder = self.encoder.tokenizer.core.decoder
        return str(decoder.decode(words)) if decoder is not None else " ".join(words)

    def schema(self) -> dict[str, dict[str, Any]]:
        """See `Model.schema`."""
        entity = {
            "type": "object",
            "required": ["score", "word", "start", "end"],
            "properties": {
                "entity_group": {"type": "string", "description": "Unless the strategy is `none`."},
                "entity": {"type": "string", "description": "Where the strategy is `none`."},
                "index": {"type": "integer", "description": "The token's, where the strategy is `none`."},
                "score": {"type": "number"},
                "word": {"type": "string"},
                "start": {"type": "integer", "description": "First character in the text."},
                "end": {"type": "integer", "description": "One past the last character."},
            },
        }
        response = {"type": "array", "items": {"anyOf": [entity, {"type": "array", "items": entity}]}}
        return {"/": {"request": self.request_schema(TEXTS_SCHEMA), "response": response}}
