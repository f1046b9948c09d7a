"""Runs tokenized texts through a network, in groups of like length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from tokenizers import Encoding

from ..model import LoadFailed
from .network import Array, Network
from .tokenizer import TextTokenizer

_FED = frozenset({"input_ids", "attention_mask", "token_type_ids", "position_ids"})


class TextEncoder:
    """A tokenizer and a network.

    Args:
        tokenizer: Makes the tokens.
        network: Computes.
        max_rows: Most rows of one pass.
        max_tokens: Most tokens of one pass, padding included, so that memory is bounded; one row may
            always pass alone.

    Raises:
        LoadFailed: the network wants an input that a tokenizer does not make.
    """

    def __init__(
        self, tokenizer: TextTokenizer, network: Network, *, max_rows: int = 32, max_tokens: int = 16_384
    ) -> None:
        missing = sorted(network.input_names - _FED)
        if missing:
            raise LoadFailed(
                f"the network takes {', '.join(missing)}, which a text does not give; export it with "
                "input_ids, attention_mask and token_type_ids only"
            )
        self.tokenizer = tokenizer
        self.network = network
        self._max_rows = max_rows
        self._max_tokens = max_tokens

    def infer(self, encodings: Sequence[Encoding], output: str | None = None) -> list[Array]:
        """One result a text, without padding.

        Args:
            encodings: Tokenized texts, each with at least one token.
            output: Which of the network's outputs.

        Returns:
            For a network that gives one vector a text, arrays of shape `(labels,)`; for one that gives a
            vector a token, `(tokens, size)`.
        """
        lengths = [len(encoding) for encoding in encodings]
        results: list[Array | None] = [None] * len(encodings)
        for group in plan_groups(lengths, max_rows=self._max_rows, max_tokens=self._max_tokens):
            width = lengths[group[-1]]
            output_rows = self.network.run(self._feed([encodings[i] for i in group], width), output)
            for row, index in zip(output_rows, group, strict=True):
                results[index] = self._without_padding(row, lengths[index], width)
        return results  # type: ignore[return-value]

    def _feed(self, encodings: Sequence[Encoding], width: int) -> dict[str, Array]:
        names = self.network.input_names
        shape = (len(encodings), width)
        ids = np.full(shape, self.tokenizer.pad_id, dtype=np.int64)
        mask = np.zeros(shape, dtype=np.int64)
        types = np.full(shape, self.tokenizer.pad_type_id, dtype=np.int64)
        is_left = self.tokenizer.padding_side == "left"
        for row, encoding in enumerate(encodings):
            length = len(encoding)
            span = slice(width - length, width) if is_left else slice(0, length)
            ids[row, span] = encoding.ids
            mask[row, span] = 1
            if "token_type_ids" in names:
                types[row, span] = encoding.type_ids
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        if "position_ids" in names:
            feeds["position_ids"] = np.maximum(np.cumsum(mask, axis=1) - 1, 0)
        return {name: feeds[name] for name in names}

    def _without_padding(self, row: Array, length: int, width: int) -> Array:
        if row.ndim < 2 or row.shape[0] != width or length == width:
            return row
        return row[width - length :] if self.tokenizer.padding_side == "left" else row[:length]


def plan_groups(lengths: Sequence[int], *, max_rows: int, max_tokens: int) -> Iterator[list[int]]:
    """Put texts of like length together, so that little is computed on padding.

    Args:
        lengths: Tokens of each text.
        max_rows: Most texts of a group.
        max_tokens: Most tokens of a group, padding included; one text may exceed it alone.

    Yields:
        Indices of `lengths`, shortest first; every index once.
    """
    group: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        length = lengths[index]
        if group:
            # A pass of its own costs about as much as a few tokens more on every row.
            is_close = length <= 1.25 * lengths[group[0]] + 8
            if not is_close or len(group) >= max_rows or (len(group) + 1) * length > max_tokens:
                yield group
                group = []
        group.append(index)
    if group:
        yield group
