"""Draws sentences with a known leaning from the lexicon.

A clause leans one way by construction (`"the food was not good"` is negative because a positive word is
negated); a sentence joins clauses by rules (`"X, but Y"` leans as Y does). The patterns of both are in
`clauses.py`, `joins.py` and `held_out.py`.
"""

from __future__ import annotations

import random
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

LEXICON: Final = Path(__file__).with_name("lexicon.toml")

Pattern = Callable[["Grammar", int], str]
"""Takes a grammar to draw words from and a label; gives text that leans as the label says."""


class Grammar:
    """Draws clauses and sentences; the same seed gives the same text.

    Args:
        seed: Seed of every random choice.
        clauses: Patterns of one statement; one that stands there twice is drawn twice as often.
        joins: Patterns that put clauses together.
    """

    def __init__(self, seed: int, *, clauses: Sequence[Pattern], joins: Sequence[Pattern]) -> None:
        self.random = random.Random(seed)
        self.clauses = clauses
        self.joins = joins
        with LEXICON.open("rb") as file:
            lexicon = tomllib.load(file)
        self.words = {
            f"{kind}.{name}": [word.replace("_", " ") for word in (v.split() if isinstance(v, str) else v)]
            for kind, lists in lexicon.items()
            for name, v in lists.items()
        }

    def sentences(self, count: int) -> Iterator[tuple[str, int]]:
        """`count` pairs of a sentence and its label, half of them positive."""
        for number in range(count):
            label = number % 2
            yield self.sentence(label), label

    def sentence(self, label: int) -> str:
        """One sentence or two that lean as `label` says, with the small accidents of real typing."""
        text = self.random.choice(self.joins)(self, label)
        if self.chance(0.12):
            aside = self.aside()
            text = f"{aside}. {text}" if self.chance(0.5) else f"{text}. {aside}"
        return _typed(text, self.random)

    # choosing
    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def pick(self, options: str | Sequence[str]) -> str:
        """One of some texts, given as a sequence or with bars between them."""
        return self.random.choice(options.split("|") if isinstance(options, str) else options)

    def word(self, name: str) -> str:
        return self.random.choice(self.words[name])

    def leaning(self, name: str, label: int) -> str:
        return self.word(f"{name}positive" if label else f"{name}negative")

    # parts of clauses
    def clause(self, label: int) -> str:
        return self.random.choice(self.clauses)(self, label)

    def adjective(self, label: int) -> str:
        return self.leaning("adjectives.", label).replace("-", " ")

    def thing(self) -> str:
        thing = self.word("nouns.things").replace("-", " ")
        if self.chance(0.12):
            thing = f"{self.word('adjectives.neutral')} {thing}"
        if self.chance(0.06):
            thing = f"{invented_word(self.random)} {thing}"
        return thing

    def subject(self) -> tuple[str, bool]:
        """A subject and whether it is plural."""
        roll = self.random.random()
        if roll < 0.16:
            return self.pick("it|this|that|everything|the whole thing"), False
        if roll < 0.30:
            return f"{self.determiner()} {self.word('nouns.plural_things')}", True
        return f"{self.determiner()} {self.thing()}", False

    def determiner(self) -> str:
        return self.pick("the|the|the|this|my|our|their|her|his")

    def object(self) -> str:
        if self.chance(0.2):
            return self.pick("it|this|that|this one|them|everything about it")
        text = f"{self.pick('the|this|my|their')} {self.thing()}"
        return f"{text} {self.setting()}" if self.chance(0.1) else text

    def person(self) -> str:
        roll = self.random.random()
        if roll < 0.6:
            return self.pick("i|i|we|they|you")
        return f"my {self.word('nouns.persons')}"

    def intensifier(self) -> str:
        return f"{self.word('adverbs.intensifiers')} " if self.chance(0.4) else ""

    def setting(self) -> str:
        return self.pick(
            [
                f"in {self.word('nouns.places')}",
                f"on {self.word('nouns.times')}",
                f"with my {self.word('nouns.persons')}",
                f"from {invented_word(self.random)}",
                f"at the {self.thing()}",
            ]
        )

    def aside(self) -> str:
        """A clause that says nothing either way."""
        roll = self.random.random()
        if roll < 0.5:
            return self.word("phrases.neutral")
        if roll < 0.8:
            verb = self.word("verbs.neutral").split(" ")[-1]
            return f"{self.pick('i|we')} {verb} {self.pick('the|this|a')} {self.thing()} {self.setting()}"
        return f"it is about {self.pick('a|a young|an old')} {self.word('nouns.jobs')} {self.setting()}"

    def be(self, plural: bool) -> str:
        return self.pick("were|are" if plural else "was|was|is")

    def not_be(self, plural: bool) -> str:
        singular = "was not|is not|wasn't|isn't|was never|is not at all"
        return self.pick("were not|are not|weren't|aren't|were never" if plural else singular)

    def verb(self, name: str) -> tuple[str, str]:
        """Base and past form of a verb."""
        forms = self.word(f"verbs.{name}")
        words = forms.split(" ")
        half = len(words) // 2
        return " ".join(words[:half]), " ".join(words[half:])


def third_person(base: str) -> str:
    """The present tense of a verb or verb phrase after he, she or it."""
    verb, _, rest = base.partition(" ")
    ending = "es" if verb.endswith(("s", "sh", "ch", "x", "z")) else "s"
    if verb.endswith("y") and verb[-2] not in "aeiou":
        verb, ending = verb[:-1], "ies"
    return f"{verb}{ending} {rest}".strip()


def invented_word(chooser: random.Random) -> str:
    """A word that no one knows, as names and brands are: the model has to learn to pass over it."""
    syllables = [
        chooser.choice("bcdfghjklmnprstvz") + chooser.choice("aeiou") for _ in range(chooser.randint(2, 3))
    ]
    return "".join(syllables) + chooser.choice(["", "n", "r", "s", "x", "l"])


def _typed(text: str, chooser: random.Random) -> str:
    """Endings, lost apostrophes and slips of the finger, as people type."""
    if chooser.random() < 0.5:
        text = text.replace("’", "'")
    if chooser.random() < 0.08:
        text = text.replace("n't", "nt").replace("n’t", "nt")
    if chooser.random() < 0.06:
        words = text.split(" ")
        place = chooser.randrange(len(words))
        word = words[place]
        if len(word) > 4:
            cut = chooser.randrange(1, len(word) - 1)
            words[place] = word[:cut] + word[cut + 1 :]
        text = " ".join(words)
    text = " ".join(text.split())
    return text + chooser.choice(["", ".", ".", ".", "!", "!!"])
