"""Labelled sentences: generated for training, generated from patterns held out, and written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from examples.sentiment_text.clauses import CLAUSES
from examples.sentiment_text.grammar import Grammar
from examples.sentiment_text.held_out import HELD_OUT_CLAUSES, HELD_OUT_JOINS
from examples.sentiment_text.joins import JOINS

HANDWRITTEN: Final = Path(__file__).with_name("handwritten.tsv")
LABELS: Final = ("NEGATIVE", "POSITIVE")


def generated(seed: int, count: int) -> list[tuple[str, int]]:
    """`count` sentences with their labels, from the patterns that training uses; the same for the same seed."""
    return list(Grammar(seed, clauses=CLAUSES, joins=JOINS).sentences(count))


def held_out(seed: int, count: int) -> list[tuple[str, int]]:
    """`count` sentences with their labels, from clause patterns that training never sees."""
    return list(Grammar(seed, clauses=HELD_OUT_CLAUSES, joins=HELD_OUT_JOINS).sentences(count))


def handwritten(split: Literal["tuning", "test"]) -> list[tuple[str, int]]:
    """The hand-written sentences of one split with their labels.

    `tuning` was looked at while words and patterns were chosen, `test` was not.
    """
    rows = [line.split("\t") for line in HANDWRITTEN.read_text(encoding="utf-8").splitlines()[1:]]
    return [(sentence, LABELS.index(label)) for of, label, sentence in rows if of == split]
