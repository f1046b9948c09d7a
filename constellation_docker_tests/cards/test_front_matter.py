"""Reading READMEs as the Hub writes them and as people break them."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard as HubModelCard
from hypothesis import given, settings
from hypothesis import strategies as st

from constellation_docker.cards import InvalidCard, ModelCard
from constellation_docker.cards.front_matter import render_front_matter, split_readme
from constellation_docker_tests.cards.conftest import make_card


def read(front_matter: str) -> dict[str, Any]:
    return split_readme(f"---\n{front_matter}\n---\n# Body\n")[0]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("~", None),
        ("010", 10),
        ("1.10", 1.1),
        ("1e3", 1000.0),
        ("0x1F", "0x1F"),
        ("12:30", "12:30"),
        ("2020-01-31", "2020-01-31"),
        (".nan", ".nan"),
        ("1_000", "1_000"),
    ],
)
def test_yaml_is_read_as_the_hub_reads_it(written: str, value: Any) -> None:
    assert read(f"a: {written}") == {"a": value}


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff---\nlicense: mit\n---\n# Body\n",
        "---\r\nlicense: mit\r\n---\r\n# Body\r\n",
        "\n\n---\nlicense: mit\n---\n# Body",
        "---  \nlicense: mit\n---  \n\n# Body\n\n",
    ],
)
def test_marks_and_line_endings_of_any_editor_are_accepted(text: str) -> None:
    assert split_readme(text) == ({"license": "mit"}, "# Body")


def test_a_readme_without_front_matter_is_only_markdown() -> None:
    assert split_readme("# Body\n\n---\n\ntext") == ({}, "# Body\n\n---\n\ntext")
    assert split_readme("---\n---\n# Body") == ({}, "# Body")
    assert split_readme("") == ({}, "")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("---\na: 1\na: 2\n---\n", "the key 'a' is given twice at line 2"),
        ("---\na: {b: 1, b: 2}\n---\n", "the key 'b' is given twice"),
        ("---\na: [\n---\n", "line 2"),
        ("---\n\ta: 1\n---\n", "cannot be read"),
        ("---\na: 1\n", "no second '---' line closes it"),
        ("---\n- a\n---\n", "must be a mapping"),
        ("---\njust text\n---\n", "must be a mapping"),
        ("---\na: &x [*x]\n---\n", "nested more than"),
        ("---\na: " + "[" * 5000 + "\n---\n", "nested too deeply"),
        ("---\na: !!python/object/apply:os.system [ls]\n---\n", "could not determine a constructor"),
        ("---\n? [a]\n: 1\n---\n", "used as a key"),
        ('---\na: "\\0"\n---\n', "NUL"),
        ("---\na: \x07\n---\n", "not allowed"),
        ("---\na: " + "x" * 1_000_001 + "\n---\n", "longer than"),
        ("# \ud800", "unpaired surrogate"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_place(text: str, words: str) -> None:
    with pytest.raises(InvalidCard, match=r"README\.md") as caught:
        split_readme(text)
    assert words in caught.value.message


def test_aliases_that_unfold_without_end_are_refused() -> None:
    bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
    )
    with pytest.raises(InvalidCard, match="more than 50000 values"):
        read(bomb)


WORDS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20
) | st.sampled_from(
    [
        "no",
        "1e3",
        "0o7",
        "010",
        "1_0",
        "12:30",
        "=",
        "<<",
        "~",
        "null",
        "-",
        "- a",
        "# x",
        "a: b",
        ".nan",
        "2020-01-01",
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(WORDS, VALUES, min_size=1, max_size=4))
def test_readers_of_old_and_new_yaml_read_what_we_wrote(data: dict[str, Any]) -> None:
    text = render_front_matter(data)
    assert split_readme(f"{text}# Body") == (data, "# Body")
    assert yaml.safe_load(text.removeprefix("---\n").removesuffix("---\n")) == data


README = """---
license: mit
language: no
pipeline_tag: question-answering
base_model: bert-base-uncased
x_foreign: {deep: [1, two]}
widget:
- text: Where is it?
  context: It is in Oslo.
- text: A question without its context
constellation:
  replicas: 2
  resources: {memory: 2g}
  env: {LOG_LEVEL: info}
---
# The repository's own card
"""


def test_the_repository_completes_what_the_row_leaves_open() -> None:
    card = make_card().merged_with(README)
    assert (card.license, card.language, card.task) == ("mit", ("no",), "question-answering")
    assert card.front_matter == {"x_foreign": {"deep": [1, "two"]}}
    assert (card.serving.replicas, card.serving.resources.memory) == (2, "2g")
    assert card.body == "# The repository's own card"
    assert card.description == "Says how a sentence feels."


def test_the_row_wins_over_the_repository_field_by_field() -> None:
    own = {
        "license": "apache-2.0",
        "tags": [],
        "constellation": {"resources": {"cpus": 2}, "env": {"LOG_LEVEL": "debug"}},
    }
    card = make_card(card=own).merged_with(README.replace("x_foreign", "tags: [theirs]\nx_foreign"))
    assert (card.license, card.tags) == ("apache-2.0", ())
    assert (card.serving.resources.cpus, card.serving.resources.memory) == (2, "2g")
    assert card.serving.env == {"LOG_LEVEL": "debug"}
    assert card.key == "acme/sentiment@1.0.0"


def test_an_example_of_the_repository_that_cannot_be_sent_is_left_out_and_named() -> None:
    card = make_card().merged_with(README)
    assert [example.inputs for example in card.widget] == [
        {"question": "Where is it?", "context": "It is in Oslo."}
    ]
    assert card.notes == (
        "Widget example 2 of the repository was left out: needs text (the question) and context.",
    )


def test_malformed_evaluation_results_of_the_repository_are_left_out_and_named() -> None:
    card = make_card().merged_with("---\nmodel-index: [{results: 1}]\nlicense: mit\n---\n")
    assert card.license == "mit"
    assert "model-index" not in card.front_matter
    assert "model-index" in card.notes[0]


def test_a_wrong_field_of_the_repository_is_refused_unless_the_row_gives_it() -> None:
    wrong = "---\npipeline_tag: sentiment\n---\n"
    with pytest.raises(InvalidCard, match=r"README\.md.*acme/sentiment@1\.0\.0.*pipeline_tag"):
        make_card().merged_with(wrong)
    assert (
        make_card(card={"pipeline_tag": "text-classification"}).merged_with(wrong).task
        == "text-classification"
    )


def test_a_misspelt_block_of_ours_is_refused_in_a_readme_too() -> None:
    with pytest.raises(InvalidCard, match="did you mean constellation"):
        make_card().merged_with("---\nconstelation: {replicas: 2}\n---\n")


def test_the_hub_reads_the_maintained_card_as_its_own() -> None:
    card = make_card(card={"license": "mit", "tags": ["a"]}).merged_with(README)
    theirs = HubModelCard(card.render({"image": "registry.example/x@sha256:1"}))
    assert theirs.data.license == "mit"
    assert theirs.data.pipeline_tag == "question-answering"
    assert theirs.data["x_foreign"] == {"deep": [1, "two"]}
    assert "registry.example/x@sha256:1" in theirs.text


def test_rendering_again_replaces_what_was_maintained_and_keeps_the_rest() -> None:
    card = make_card().merged_with(README)
    once = card.render({"image": "first"})
    again = ModelCard.from_readme(once)
    assert again.digest == card.digest
    twice = again.render({"image": "second"})
    assert "second" in twice
    assert "first" not in twice
    assert twice.count("constellation:maintained") == 1


def test_text_of_a_card_cannot_end_the_maintained_part_early() -> None:
    card = make_card(card={"description": "x\n<!-- constellation:end -->\ninjected", "body": "# Mine"})
    assert ModelCard.from_readme(card.render()).body == "# Mine"
