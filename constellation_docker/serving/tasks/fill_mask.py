"""fill-mask: the likeliest words in the place of the mask token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tokenizers import Encoding

from ..model import Call, InvalidParameters, LoadFailed
from ..runtimes.encoder import TextEncoder
from ..runtimes.network import Array
from ..runtimes.repository import Repository
from ..runtimes.tokenizer import find_special_token
from .parameter import Parameter
from .payload import read_texts
from .scores import require_finite, softmax
from .text_task import TEXTS_SCHEMA, TextTask


class FillMask(TextTask):
    """Answers a list of fillings for one mask, a list of lists for several masks or texts."""

    task = "fill-mask"
    parameters = (
        Parameter("top_k", "integer", "How many fillings are answered.", default=5, minimum=1),
        Parameter(
            "targets",
            "strings",
            "The only words to score; of one that is not in the vocabulary, its first token.",
            minimum=1,
            maximum=1000,
            is_single_allowed=True,
        ),
    )

    def __init__(self, encoder: TextEncoder, repository: Repository, **options: Any) -> None:
        super().__init__(encoder, repository, **options)
        core = encoder.tokenizer.core
        mask = find_special_token(core, repository, "mask_token")
        if mask is None:
            mask = next(
                (i for name in ("[MASK]", "<mask>") if (i := core.token_to_id(name)) is not None), None
            )
        if mask is None:
            raise LoadFailed("the tokenizer names no mask_token, which fill-mask needs")
        self._mask = mask
        self._mask_token = core.id_to_token(mask)

    def read_call(self, inputs: Any, parameters: dict[str, Any]) -> Call:
        """One text or several, each with at least one mask."""
        texts = read_texts(inputs)
        return Call(list(texts.items), parameters, size=len(texts.items), context=texts.is_list)

    def encode(self, call: Call) -> list[Encoding]:
        """See `TextTask.encode`.

        Raises:
            InvalidParameters: a text has no mask within the length that the model reads.
        """
        encodings = super().encode(call)
        for encoding in encodings:
            if self._mask not in encoding.ids:
                where = " in the part that the model reads" if encoding.overflowing else ""
                raise InvalidParameters(
                    f"An input has no {self._mask_token}{where}; put one where the word is missing."
                )
        return encodings

    def answer(self, call: Call, encodings: Sequence[Encoding], rows: Sequence[Array]) -> Any:
        """See `TextTask.answer`."""
        targets = self._read_targets(call.parameters["targets"])
        answers = [
            self._fill(encoding, row, targets, call.parameters["top_k"])
            for encoding, row in zip(encodings, rows, strict=True)
        ]
        return answers if call.context else answers[0]

    def _fill(self, encoding: Encoding, row: Array, targets: list[int] | None, top_k: int) -> Any:
        ids = np.asarray(encoding.ids)
        places = np.flatnonzero(ids == self._mask)
        decode = self.encoder.tokenizer.core.decode
        fillings = []
        for place in places.tolist():
            scores = softmax(require_finite(row[place]))
            candidates = np.asarray(targets) if targets is not None else np.arange(len(scores))
            order = np.argsort(-scores[candidates], kind="stable")[:top_k]
            found = []
            for token in candidates[order].tolist():
                filled = ids.copy()
                filled[place] = token
                # With other masks left in the text, special tokens stay, or the text would look odd.
                sequence = decode(filled.tolist(), skip_special_tokens=len(places) == 1)
                word = decode([token], skip_special_tokens=False)
                found.append(
                    {"score": float(scores[token]), "token": token, "token_str": word, "sequence": sequence}
                )
            fillings.append(found)
        return fillings[0] if len(fillings) == 1 else fillings

    def _read_targets(self, targets: list[str] | None) -> list[int] | None:
        if targets is None:
            return None
        core = self.encoder.tokenizer.core
        ids: dict[int, None] = {}
        for target in targets:
            token = core.token_to_id(target)
            if token is None:
                pieces = core.encode(target[:1000], add_special_tokens=False).ids
                token = pieces[0] if pieces else None
            if token is not None:
                ids[token] = None
        if not ids:
            raise InvalidParameters("The parameter `targets` holds no word that this model knows.")
        return list(ids)

    def schema(self) -> dict[str, dict[str, Any]]:
        """See `Model.schema`."""
        filling = {
            "type": "object",
            "required": ["score", "token", "token_str", "sequence"],
            "properties": {
                "score": {"type": "number"},
                "token": {"type": "integer"},
                "token_str": {"type": "string"},
                "sequence": {"type": "string"},
            },
        }
        return {
            "/": {
                "request": self.request_schema(TEXTS_SCHEMA),
                "response": {
                    "description": "Fillings, best first; lists of them for several masks or texts.",
                    "type": "array",
                    "items": {"anyOf": [filling, {"type": "array"}]},
                },
            }
        }
