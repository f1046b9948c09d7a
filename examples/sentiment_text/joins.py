"""Patterns that put clauses together; the whole leans as `label` says."""

from __future__ import annotations

from typing import Final

from examples.sentiment_text.grammar import Grammar, Pattern


def alone(g: Grammar, label: int) -> str:
    return g.clause(label)


def both(g: Grammar, label: int) -> str:
    return f"{g.clause(label)}{g.pick(' and |, |. |; |, and |! | and |, plus ')}{g.clause(label)}"


def three(g: Grammar, label: int) -> str:
    return f"{g.clause(label)}, {g.clause(label)}{g.pick(' and |, and ')}{g.clause(label)}"


def turned(g: Grammar, label: int) -> str:
    return (
        f"{g.clause(1 - label)}{g.pick(' but |, but |, yet |. however, |, however |. but ')}{g.clause(label)}"
    )


def conceded(g: Grammar, label: int) -> str:
    lead = g.pick("although|though|even though|while|even if")
    if g.chance(0.3):
        return f"{g.clause(label)}, {lead} {g.clause(1 - label)}"
    return f"{lead} {g.clause(1 - label)}, {g.clause(label)}"


def despite(g: Grammar, label: int) -> str:
    lead = g.pick("despite|in spite of|even with|for all")
    return f"{lead} {g.pick('the|all the|its|their')} {g.adjective(1 - label)} {g.thing()}, {g.clause(label)}"


def expected(g: Grammar, label: int) -> str:
    hope = g.pick(
        f"i expected|i thought|we thought|people say|everyone said|{'i feared' if label else 'i hoped'}"
        "|the reviews said|i was told"
    )
    believed = g.pick(
        f"it would be {g.adjective(1 - label)}|it was {g.adjective(1 - label)}|this would be {g.adjective(1 - label)}"
    )
    if g.chance(0.3):
        believed, hope = (
            f"to {'hate' if label else 'love'} {g.object()}",
            g.pick("i expected|i wanted|i was ready|we were prepared"),
        )
    return f"{hope} {believed}, but {g.pick(['', 'in fact ', 'sadly ' if not label else 'luckily ', 'actually '])}{g.clause(label)}"


def so_that(g: Grammar, label: int) -> str:
    subject, plural = g.subject()
    return f"{subject} {g.be(plural)} so {g.adjective(label)} that {g.clause(label)}"


def not_only(g: Grammar, label: int) -> str:
    first, plural = g.subject()
    if g.chance(0.5):
        return f"{first} {g.be(plural)} not only {g.adjective(label)} but also {g.adjective(label)}"
    return f"not only {g.be(plural)} {first} {g.adjective(label)}, {g.clause(label)} {g.pick('too|as well|')}"


def conditional(g: Grammar, label: int) -> str:
    if label:
        return f"if you like {g.thing()}s, {g.pick('you will love this one|this is for you|do not miss this|buy this one|get this')}"
    return f"if you {g.pick('like|want|need|value')} {g.pick(['your time', 'your money', 'a good ' + g.thing(), g.thing() + 's'])}, {g.pick('avoid this one|stay away|skip this|go somewhere else|look elsewhere|buy another one')}"


def led_in(g: Grammar, label: int) -> str:
    lead = g.leaning("phrases.lead_", label)
    return (
        f"{lead}{g.pick(' |, ')}{g.clause(label)}{g.pick(['', '', ' for a ' + g.thing(), ' ' + g.setting()])}"
    )


JOINS: Final[tuple[Pattern, ...]] = (
    alone, alone, alone, both, both, both, three, turned, turned, conceded, despite, expected, so_that,
    not_only, conditional, led_in, led_in,
)  # fmt: skip
