"""Puts a text's tokens together to entities, as transformers' token-classification pipeline does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypedDict

import numpy as np

from .scores import Floats

Join = Callable[[list[str]], str]


@dataclass(frozen=True, slots=True)
class Piece:
    """A token of a text.

    Attributes:
        word: The token.
        scores: Its probabilities, shape `(labels,)`.
        start: First character in the text.
        end: One past its last character.
        index: Its place among the text's tokens.
        is_continuation: Whether it continues the word before it.
    """

    word: str
    scores: Floats
    start: int
    end: int
    index: int
    is_continuation: bool


class _Tagged(TypedDict):
    entity: str
    score: float
    word: str
    start: int
    end: int


def aggregate(
    pieces: Sequence[Piece], labels: Sequence[str], strategy: str, join: Join
) -> list[dict[str, Any]]:
    """Entities of a text.

    Args:
        pieces: Its tokens, without special ones.
        labels: The labels' names.
        strategy: `none` (one entity a token), `simple` (neighbours with the same tag), or `first`, `average`
            and `max`, which first give each word one tag: of its first token, of the mean of its tokens'
            scores, of its surest token.
        join: Makes a text of tokens.
    """
    if strategy in ("none", "simple"):
        tagged = [_tag([piece], labels, "first", piece.word) for piece in pieces]
        if strategy == "none":
            return [{**tag, "index": piece.index} for tag, piece in zip(tagged, pieces, strict=True)]
    else:
        tagged = [
            _tag(word, labels, strategy, join([piece.word for piece in word]))
            for word in _split_words(pieces)
        ]
    return [_merge(group, join) for group in _group(tagged)]


def drop_overlaps(entities: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of entities that overlap, found in two windows, the longer one, else the surer one."""
    kept: list[dict[str, Any]] = []
    for entity in sorted(entities, key=lambda entity: entity["start"]):
        if not kept or entity["start"] >= kept[-1]["end"]:
            kept.append(entity)
        elif _weight(entity) > _weight(kept[-1]):
            kept[-1] = entity
    return kept


def _weight(entity: dict[str, Any]) -> tuple[int, float]:
    return entity["end"] - entity["start"], entity["score"]


def _split_words(pieces: Sequence[Piece]) -> list[list[Piece]]:
    words: list[list[Piece]] = []
    for piece in pieces:
        if words and piece.is_continuation:
            words[-1].append(piece)
        else:
            words.append([piece])
    return words


def _tag(word: Sequence[Piece], labels: Sequence[str], strategy: str, text: str) -> _Tagged:
    if strategy == "average":
        scores = np.mean([piece.scores for piece in word], axis=0)
    elif strategy == "max":
        scores = max(word, key=lambda piece: float(piece.scores.max())).scores
    else:
        scores = word[0].scores
    best = int(scores.argmax())
    return {
        "entity": labels[best],
        "score": float(scores[best]),
        "word": text,
        "start": word[0].start,
        "end": word[-1].end,
    }


def _group(tagged: Sequence[_Tagged]) -> list[list[_Tagged]]:
    """Neighbours with the same tag, unless the later one begins an entity (`B-`)."""
    if not tagged:
        return []
    groups = [[tagged[0]]]
    for last, tag in pairwise(tagged):
        if not tag["entity"].startswith("B-") and _kind(tag) == _kind(last):
            groups[-1].append(tag)
        else:
            groups.append([tag])
    return groups


def _kind(tag: _Tagged) -> str:
    name = tag["entity"]
    return name[2:] if name.startswith(("B-", "I-")) else name


def _merge(group: Sequence[_Tagged], join: Join) -> dict[str, Any]:
    return {
        "entity_group": group[0]["entity"].split("-", 1)[-1],
        "score": float(np.mean([tag["score"] for tag in group])),
        "word": join([tag["word"] for tag in group]),
        "start": group[0]["start"],
        "end": group[-1]["end"],
    }
