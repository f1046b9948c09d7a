"""Patterns of one statement. Each gives text that leans as `label` says: 1 positive, 0 negative."""

from __future__ import annotations

from typing import Final

from examples.sentiment_text.grammar import Grammar, Pattern, third_person


def is_adjective(g: Grammar, label: int) -> str:
    subject, plural = g.subject()
    return f"{subject} {g.be(plural)} {g.intensifier()}{g.adjective(label)}"


def is_two_adjectives(g: Grammar, label: int) -> str:
    subject, plural = g.subject()
    joint = g.pick(" and |, | and so | and very ")
    return f"{subject} {g.be(plural)} {g.adjective(label)}{joint}{g.adjective(label)}"


def is_not_adjective(g: Grammar, label: int) -> str:
    subject, plural = g.subject()
    degree = g.pick("|||very |that |particularly |really |even |so |exactly |at all ")
    return f"{subject} {g.not_be(plural)} {degree}{g.adjective(1 - label)}"


def is_not_one_but_other(g: Grammar, label: int) -> str:
    subject, plural = g.subject()
    return f"{subject} {g.not_be(plural)} {g.adjective(1 - label)}{g.pick(' but |, but |, just ')}{g.adjective(label)}"


def is_without(g: Grammar, label: int) -> str:
    subject, plural = g.subject()
    return (
        f"{subject} {g.be(plural)} {g.adjective(label)} without being {g.pick('too |')}{g.adjective(0)}"
        if label
        else (
            f"{subject} {g.be(plural)} {g.adjective(0)} and {g.pick('anything but|far from')} {g.adjective(1)}"
        )
    )


def is_too(g: Grammar, label: int) -> str:
    subject, plural = g.subject()
    if label:
        return (
            f"{subject} {g.be(plural)} {g.pick('just right|never too|not too')} {g.word('adjectives.excess')}"
        )
    return f"{subject} {g.be(plural)} {g.pick('too|far too|way too|much too|a bit too')} {g.word('adjectives.excess')}"


def is_not_enough(g: Grammar, label: int) -> str:
    subject, plural = g.subject()
    if label:
        return f"{subject} {g.be(plural)} {g.pick('more than |')}{g.adjective(1)} enough"
    return f"{subject} {g.not_be(plural)} {g.adjective(1)} enough"


def is_hardly(g: Grammar, label: int) -> str:
    subject, plural = g.subject()
    return f"{subject} {g.be(plural)} {g.pick('hardly|far from|anything but|never|by no means|not even')} {g.adjective(1 - label)}"


def is_thing(g: Grammar, label: int) -> str:
    subject = g.pick(f"it|this|{g.determiner()} {g.thing()}")
    noun = g.leaning("nouns.", label) if g.chance(0.5) else f"{g.adjective(label)} {g.thing()}"
    return f"{subject} {g.be(False)} {g.pick('a|an|such a|a real|a complete|quite a|one')} {noun}"


def is_not_thing(g: Grammar, label: int) -> str:
    subject = g.pick(f"it|this|{g.determiner()} {g.thing()}")
    noun = g.leaning("nouns.", 1 - label) if g.chance(0.4) else f"{g.adjective(1 - label)} {g.thing()}"
    return f"{subject} {g.not_be(False)} a {noun}"


def what_a(g: Grammar, label: int) -> str:
    noun = (
        g.leaning("nouns.", label)
        if g.chance(0.4)
        else f"{g.adjective(label)}{g.pick('| little| new')} {g.thing()}"
    )
    return f"{g.pick('what a|what a|such a|a truly|a')} {noun}"


def bare_adjectives(g: Grammar, label: int) -> str:
    count = g.random.choice([1, 2, 3])
    words = [
        f"{g.adjective(label)} {g.thing()}" if g.chance(0.7) else f"{g.intensifier()}{g.adjective(label)}"
        for _ in range(count)
    ]
    return ", ".join(words)


def person_feels(g: Grammar, label: int) -> str:
    base, past = g.verb("positive" if label else "negative")
    person = g.person()
    adverb = g.pick("|||really |absolutely |always |truly ")
    third = person.startswith("my ")
    form = past if g.chance(0.5) or third else base
    return f"{person} {adverb}{form} {g.object()}"


def person_does_not_feel(g: Grammar, label: int) -> str:
    base, past = g.verb("negative" if label else "positive")
    person = g.person()
    helper = g.pick("did not|didn't|do not|don't|could not|couldn't|would not|will not|won't|can not")
    if g.chance(0.15):
        return f"{person} never {past} {g.object()}"
    return f"{person} {helper} {g.pick('||really ')}{base} {g.object()}"


def would_recommend(g: Grammar, label: int) -> str:
    whom = g.pick(f"|| to anyone| to everyone| to my friends| to my {g.word('nouns.persons')}")
    object_ = g.object()
    if label:
        verb = g.pick("would|will|can only|highly|definitely|would definitely|will gladly|strongly|happily")
    else:
        verb = g.pick("would not|wouldn't|can not|can't|will not|won't|would never|could not|do not|cannot")
    return f"{g.pick('i|we')} {verb} recommend {object_}{whom}"


def would_return(g: Grammar, label: int) -> str:
    action = g.pick(
        "come back|go back|return|be back|buy it again|order again|visit again|watch it again|use it again"
    )
    when = g.pick(
        f"|| soon| next year| next summer| in {g.word('nouns.times')}| with my {g.word('nouns.persons')}"
    )
    if label:
        verb = g.pick(
            "will|will definitely|would happily|will gladly|would|will certainly|want to|can't wait to|would love to"
        )
    else:
        verb = g.pick(
            "will not|won't|would never|will never|will definitely not|would not|do not want to|refuse to|don't plan to"
        )
    return f"{g.pick('i|we|we|my family')} {verb} {action}{when}"


def thing_affects(g: Grammar, label: int) -> str:
    base, past = g.verb("effect_positive" if label else "effect_negative")
    subject, plural = g.subject()
    if g.chance(0.35):
        often = g.pick("||always |constantly |just |keeps on and ")
        return f"{subject} {often}{base if plural else third_person(base)}"
    adverb = g.pick("||really |totally |always |completely ")
    return f"{subject} {adverb}{past}{g.pick(['', '', '', ' me' if ' ' not in past else ''])}"


def thing_does_not_affect(g: Grammar, label: int) -> str:
    base, past = g.verb("effect_negative" if label else "effect_positive")
    subject, _plural = g.subject()
    if g.chance(0.4):
        return (
            f"{subject} {g.pick('never|has never|hardly ever|hardly')} {g.pick([past, third_person(base)])}"
        )
    return f"{subject} {g.pick('did not|didn’t|does not|doesn’t|will not|did not')} {base}"


def person_is_moved(g: Grammar, label: int) -> str:
    word = g.leaning("adjectives.feeling_", label).replace("-", " ")
    about = g.pick("with|by|about|with the quality of|by the quality of")
    if g.chance(0.3):
        negated = g.pick("was not|wasn't|am not|was never|am not at all|was not at all")
        return f"i {negated} {g.pick('||very ')}{g.leaning('adjectives.negated_feeling_', label)} {about} {g.object()}"
    return f"{g.pick('i was|i am|we were|we are')} {g.intensifier()}{word} {about} {g.object()}"


def works(g: Grammar, label: int) -> str:
    _base, past = g.verb("perform")
    present = past if g.chance(0.5) else f"{_base}s"
    subject, _plural = g.subject()
    return f"{subject} {present} {g.pick('||very |so ')}{g.leaning('adverbs.', label)}"


def works_not(g: Grammar, label: int) -> str:
    base, _past = g.verb("perform")
    subject, _plural = g.subject()
    verb = g.pick("did not|didn't|does not|doesn't")
    if label:
        return f"{subject} {verb} {base} {g.pick('badly|poorly|badly at all|slowly')}"
    return f"{subject} {verb} {base} {g.pick('well|properly|as expected|at all|correctly|like it should|as advertised')}"


def seems(g: Grammar, label: int) -> str:
    base, past = g.verb("senses")
    subject, _plural = g.subject()
    if g.chance(0.25):
        return f"{subject} {g.pick('did not|does not|didn’t|doesn’t')} {base if base != 'be' else 'seem'} {g.adjective(1 - label)}"
    return f"{subject} {past} {g.intensifier()}{g.adjective(label)}"


def full_of(g: Grammar, label: int) -> str:
    subject, plural = g.subject()
    quality = g.leaning("nouns.qualities_", label).replace("-", " ")
    opposite = g.leaning("nouns.qualities_", 1 - label).replace("-", " ")
    with_it = ["full of", "packed with", "nothing but", "filled with", "all", "so much"]
    without = ["free of", "without any", "without", "not full of", "without a trace of", "never full of"]
    if g.chance(0.55):
        return f"{subject} {g.be(plural)} {g.pick(with_it)} {quality}"
    return f"{subject} {g.be(plural)} {g.pick(without)} {opposite}"


def has(g: Grammar, label: int) -> str:
    subject, _plural = g.subject()
    quality = g.leaning("nouns.qualities_", label).replace("-", " ")
    opposite = g.leaning("nouns.qualities_", 1 - label).replace("-", " ")
    if g.chance(0.5):
        return f"{subject} {g.pick('has|had|have')} {g.pick(['a lot of', 'so much', 'plenty of', 'real', 'many', 'great' if label else 'terrible'])} {quality}"
    return (
        f"{subject} {g.pick('has no|had no|lacks|lacked|does not have any|has zero|has little')} {opposite}"
    )


def compared(g: Grammar, label: int) -> str:
    subject, plural = g.subject()
    word = g.leaning("adjectives.comparative_", label)
    than = g.pick(
        "than expected|than i expected|than the last one|than the first|than before|than i thought|than ever"
        f"|than the old one|than the {g.thing()}"
    )
    return f"{subject} {g.be(plural)} {g.pick('|much |even |far |so much |a lot ')}{word} {than}"


def never_had(g: Grammar, label: int) -> str:
    verb = g.pick("had|seen|read|eaten|used|bought|visited|heard|owned|tried")
    word = g.leaning("adjectives.comparative_", label)
    if g.chance(0.5):
        return f"{g.pick('i have|i have|we have|i had|i’ve')} never {verb} {g.pick('a |such a ')}{word} {g.thing()}"
    word = g.leaning("adjectives.superlative_", label)
    lead = g.pick(
        "the|one of the|it is the|this is the|by far the|easily the|it was one of the|this is one of the"
    )
    return f"{lead} {g.pick('|very ')}{word} {g.thing()} {g.pick(['i have ever ' + verb, 'ever', 'we ever ' + verb, 'of the year', 'in town', 'so far'])}"


def is_not_superlative(g: Grammar, label: int) -> str:
    subject, plural = g.subject()
    word = g.leaning("adjectives.superlative_", 1 - label)
    return f"{subject} {g.not_be(plural)} the {word} {g.pick([g.thing(), g.thing(), 'i have seen', 'thing ever'])}"


def could_be(g: Grammar, label: int) -> str:
    subject, _plural = g.subject()
    word = g.leaning("adjectives.comparative_", 1) if g.chance(0.7) else "more " + g.adjective(1)
    if label:
        verb = g.pick(
            "could not be|couldn't be|could not have been|couldn't have been|could hardly be|can not get any"
        )
    else:
        verb = g.pick(
            "could be|could have been|should be|should have been|needs to be|ought to be|might have been"
        )
    return f"{subject} {verb} {word}"


def finds(g: Grammar, label: int) -> str:
    verb = g.pick("found|think|thought|must say|consider|find|felt")
    that = {"think": "is", "thought": "was", "must say": "is", "felt": "was"}.get(verb)
    negated = g.chance(0.25)
    adjective = g.adjective(1 - label) if negated else g.adjective(label)
    object_ = g.pick(f"it|the {g.thing()}|this {g.thing()}")
    if that:
        lead = f"{g.pick('do not|did not|never|don’t|didn’t')} think" if negated else verb
        return f"{g.person()} {lead} {object_} {that} {g.intensifier()}{adjective}"
    return f"{g.person()} {'did not find' if negated else verb} {object_} {g.intensifier()}{adjective}"


def adjective_thing_verb(g: Grammar, label: int) -> str:
    verb = g.word("verbs.neutral").split(" ")[-1]
    return f"{g.pick('i|we')} {verb} {g.pick('a|this|the|some')} {g.intensifier()}{g.adjective(label)} {g.thing()} {g.setting()}"


def whole_phrase(g: Grammar, label: int) -> str:
    return g.leaning("phrases.", label)


def has_adjective_thing(g: Grammar, label: int) -> str:
    subject, _plural = g.subject()
    second = f" and {g.pick('a |')}{g.adjective(label)} {g.thing()}" if g.chance(0.6) else ""
    return f"{subject} {g.pick('has|had|comes with|with|offers|is')} {g.pick('a|an|such a')} {g.adjective(label)} {g.thing()}{second}"


def made_it(g: Grammar, label: int) -> str:
    subject, _plural = g.subject()
    effect = "enjoy|love|appreciate|smile|laugh" if label else "hate|dislike|regret|yawn|suffer"
    if g.chance(0.5):
        return f"{subject} made {g.pick(['me', 'us', 'everyone', 'my day', 'the evening', 'my ' + g.word('nouns.persons')])} {g.intensifier()}{g.adjective(label)}"
    return f"{subject} made {g.pick('me|us|everyone')} {g.pick(effect)}"


def without_trouble(g: Grammar, label: int) -> str:
    did = g.pick(
        "works|worked|was delivered|arrived|has run for years|was installed|runs|was booked|was set up"
    )
    trouble = g.word("nouns.qualities_negative").replace("-", " ")
    subject, _plural = g.subject()
    if label:
        return f"{subject} {did} {g.pick('without|without any|without a single|with no|with zero')} {trouble}"
    return f"{subject} {did} {g.pick('with|with many|with lots of|only with|with nothing but')} {trouble}"


def happened(g: Grammar, label: int) -> str:
    subject, _plural = g.subject()
    return f"{subject} {g.leaning('phrases.event_', label)}"


def easy_to(g: Grammar, label: int) -> str:
    subject, plural = g.subject()
    task = g.word("verbs.tasks").replace("-", " ")
    if g.chance(0.25):
        return (
            f"{subject} {g.not_be(plural)} {g.pick('|very ')}{g.leaning('verbs.ease_', 1 - label)} to {task}"
        )
    if g.chance(0.2):
        way = g.pick("makes|made")
        return f"{subject} {way} {g.pick('everything|it|a hard thing|an easy thing|life|my work')} {g.leaning('verbs.ease_', label)} to {task}"
    return f"{subject} {g.be(plural)} {g.intensifier()}{g.leaning('verbs.ease_', label)} to {task}"


def nobody(g: Grammar, label: int) -> str:
    who = g.pick(
        f"nobody|no one|not one of us|none of us|nobody in my {g.word('nouns.persons')}'s class|hardly anyone"
    )
    if g.chance(0.5):
        _, past = g.verb("negative" if label else "positive")
        return f"{who} {past} {g.object()}"
    return f"{who} {g.pick('was|seemed|felt|on the team was')} {g.adjective(1 - label)}"


def everyone(g: Grammar, label: int) -> str:
    _, past = g.verb("positive" if label else "negative")
    return f"{g.pick('everyone|everybody|all of us|the whole family|the crowd|all my friends')} {past} {g.object()}"


def neither_nor(g: Grammar, label: int) -> str:
    subject, plural = g.subject()
    return f"{subject} {g.be(plural)} neither {g.adjective(1 - label)} nor {g.adjective(1 - label)}"


def from_to(g: Grammar, label: int) -> str:
    return f"{g.pick('from|right from')} {g.pick('the beginning|the first minute|start')} {g.pick('to the end|to finish|on')} {g.clause(label)}"


def felt(g: Grammar, label: int) -> str:
    return f"{g.pick(['i', 'we', 'my ' + g.word('nouns.persons')])} {g.pick('felt|was|were|left|seemed|came home')} {g.intensifier()}{g.adjective(label)}{g.pick(['', ' and ' + g.adjective(label)])}"


def surprised_by_how(g: Grammar, label: int) -> str:
    feeling = g.pick(f"surprised|amazed|struck|{'pleasantly surprised' if label else 'shocked'}")
    return f"i was {feeling} by how {g.adjective(label)} {g.determiner()} {g.thing()} {g.be(False)}"


CLAUSES: Final[tuple[Pattern, ...]] = (
    is_adjective, is_adjective, is_adjective, is_two_adjectives, is_not_adjective, is_not_adjective,
    is_not_adjective, is_not_one_but_other, is_without, is_too, is_not_enough, is_hardly, is_thing,
    is_not_thing, what_a, bare_adjectives, bare_adjectives, person_feels, person_feels,
    person_does_not_feel, person_does_not_feel, would_recommend, would_return, thing_affects,
    thing_does_not_affect, person_is_moved, works, works_not, seems, full_of, has, compared, never_had,
    is_not_superlative, could_be, finds, adjective_thing_verb, whole_phrase, whole_phrase,
    has_adjective_thing, made_it, without_trouble, happened, happened, easy_to, easy_to, nobody, everyone,
    neither_nor, from_to, felt, surprised_by_how,
)  # fmt: skip
