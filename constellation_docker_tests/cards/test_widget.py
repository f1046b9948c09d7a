"""Hugging Face widget entries become requests, and come back unchanged."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from constellation_docker.cards import InvalidCard, WidgetExample
from constellation_docker.cards.strict_record import problems_of
from constellation_docker_tests.cards.conftest import make_card

TABLE = {"age": [30, 41], "city": ["Oslo", "Rome"]}


@pytest.mark.parametrize(
    ("task", "entry", "inputs", "parameters"),
    [
        ("text-classification", {"text": "Good!"}, "Good!", {}),
        ("text-classification", "Good!", "Good!", {}),
        ("fill-mask", {"text": "Paris is [MASK]."}, "Paris is [MASK].", {}),
        ("text-generation", {"messages": [{"role": "user", "content": "Hi"}]}, {"messages": [{"role": "user", "content": "Hi"}]}, {}),
        ("question-answering", {"text": "Where?", "context": "In Oslo."}, {"question": "Where?", "context": "In Oslo."}, {}),
        ("table-question-answering", {"text": "Who?", "table": TABLE}, {"query": "Who?", "table": TABLE}, {}),
        (
            "sentence-similarity",
            {"source_sentence": "a", "sentences": ["b", "c"]},
            {"source_sentence": "a", "sentences": ["b", "c"]},
            {},
        ),
        ("zero-shot-classification", {"text": "x", "candidate_labels": "a, b ,c", "multi_class": True}, "x", {"candidate_labels": ["a", "b", "c"], "multi_label": True}),
        ("zero-shot-classification", {"text": "x", "candidate_labels": ["a", "b"]}, "x", {"candidate_labels": ["a", "b"]}),
        ("tabular-classification", {"structured_data": TABLE}, TABLE, {}),
        ("tabular-regression", {"table": [["age", "city"], [30, "Oslo"], [41, "Rome"]]}, TABLE, {}),
        ("tabular-regression", {"structured_data": [{"age": 30, "city": "Oslo"}, {"age": 41, "city": "Rome"}]}, TABLE, {}),
        ("text-to-image", {"text": "a cat", "parameters": {"negative_prompt": "dog"}}, "a cat", {"negative_prompt": "dog"}),
        ("image-classification", {"src": "cat.png"}, None, {}),
        ("visual-question-answering", {"src": "cat.png", "text": "What is it?"}, "What is it?", {}),
        ("zero-shot-image-classification", {"src": "cat.png", "candidate_labels": "cat, dog"}, None, {"candidate_labels": ["cat", "dog"]}),
        ("text-classification", {"inputs": {"any": ["thing"]}, "parameters": {"top_k": 1}}, {"any": ["thing"]}, {"top_k": 1}),
    ],
)  # fmt: skip
def test_an_entry_is_what_its_task_is_sent(
    task: str, entry: Any, inputs: Any, parameters: dict[str, Any]
) -> None:
    example = WidgetExample.model_validate(entry)
    assert example.misfit(task) is None
    assert (example.inputs, example.parameters) == (inputs, parameters)
    assert example.model_dump() == ({"text": entry} if isinstance(entry, str) else entry)


def test_title_output_and_what_only_the_hub_knows_are_kept() -> None:
    entry = {"text": "x", "example_title": "T", "output": [{"label": "a", "score": 1}], "group": "g"}
    example = WidgetExample.model_validate(entry)
    assert (example.name, example.output) == ("T", [{"label": "a", "score": 1}])
    assert example.model_dump() == entry


@pytest.mark.parametrize(
    ("task", "entry", "words"),
    [
        ("question-answering", {"text": "Where?"}, "needs text (the question) and context"),
        ("zero-shot-classification", {"text": "x"}, "needs candidate_labels"),
        ("zero-shot-image-classification", {"candidate_labels": "a"}, "needs its input"),
        ("sentence-similarity", {"text": "x"}, "needs source_sentence and sentences"),
        ("image-classification", {"text": "x"}, "needs src"),
        ("tabular-classification", {"text": "x"}, "needs structured_data"),
        ("text-classification", {"src": "x.png"}, "needs text"),
        ("text-classification", {"txt": "x"}, "needs its input"),
        ("text-classification", {"text": 3}, "text must be text"),
        ("text-classification", {"text": "x", "parameters": [1]}, "parameters must be a mapping"),
        ("text-generation", {"messages": ["hi"]}, "must be a list of {role, content}"),
        ("tabular-regression", {"table": {"a": [1], "b": [1, 2]}}, "must all have the same length"),
        ("tabular-regression", {"table": [["a", "b"], [1]]}, "as long as its header"),
        ("tabular-regression", {"table": [{"a": 1}, {"b": 1}]}, "must all have the same columns"),
        ("question-answering", {"context": "x"}, "context goes with text"),
        ("sentence-similarity", {"source_sentence": "x"}, "goes with sentences"),
        ("image-classification", {"src": ["a"]}, "src must be text"),
        ("text-classification", ["x"], "mapping"),
    ],
)
def test_an_entry_that_cannot_be_sent_is_refused(task: str, entry: Any, words: str) -> None:
    if isinstance(entry, dict):
        try:
            misfit = WidgetExample.model_validate(entry).misfit(task)
        except ValidationError as error:
            misfit = problems_of(error)[0]["problem"]
        assert words in str(misfit)
    with pytest.raises(InvalidCard) as caught:
        make_card(card={"pipeline_tag": task, "widget": [entry]})
    assert words in str(caught.value) or "widget.0" in str(caught.value)


def test_examples_made_in_code_are_written_down_like_those_of_a_card() -> None:
    example = WidgetExample(inputs="x", parameters={"top_k": 1}, name="n")
    assert example.model_dump() == {"inputs": "x", "parameters": {"top_k": 1}, "name": "n"}
    assert WidgetExample.model_validate(example.model_dump()) == example
