"""Patterns that training never sees: they show whether the model learned words and negation, or only patterns."""

from __future__ import annotations

from typing import Final

from examples.sentiment_text.grammar import Grammar, Pattern
from examples.sentiment_text.joins import alone


def held_simply(g: Grammar, label: int) -> str:
    return f"when it comes to {g.thing()}s, {g.pick('this one is|few are so|hardly any was as|all of them were')} {g.adjective(label)}"


def held_nobody(g: Grammar, label: int) -> str:
    return f"{g.pick('honestly|in short|overall|to sum up|all in all')} {g.adjective(label)}, and the {g.thing()} {g.be(False)} {g.adjective(label)} too"


def held_neither(g: Grammar, label: int) -> str:
    return f"neither the {g.thing()} nor the {g.thing()} {g.be(False)} {g.adjective(1 - label)}"


def held_how(g: Grammar, label: int) -> str:
    return f"{g.pick('you can tell how|i still remember how|it is striking how|everybody noticed how')} {g.adjective(label)} {g.determiner()} {g.thing()} {g.be(False)}"


def held_describe(g: Grammar, label: int) -> str:
    return f"if i had to describe the {g.thing()} in one word it would be {g.adjective(label)}"


def held_not_describe(g: Grammar, label: int) -> str:
    return f"nobody would call the {g.thing()} {g.adjective(1 - label)}"


def held_before(g: Grammar, label: int) -> str:
    return f"{g.pick(['first of all', 'for the record', 'let me say it', 'as i told my ' + g.word('nouns.persons')])}: {g.clause(label)}"


def held_despite_first(g: Grammar, label: int) -> str:
    return f"{g.clause(label)}, {g.pick('which is why|so')} {g.clause(label)}"


HELD_OUT_CLAUSES: Final[tuple[Pattern, ...]] = (
    held_simply, held_nobody, held_neither, held_how, held_describe, held_not_describe,
)  # fmt: skip
HELD_OUT_JOINS: Final[tuple[Pattern, ...]] = (
    alone, alone, held_before, held_despite_first,
)  # fmt: skip
