"""What is written as YAML is read back as it was."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from constellation_docker.compose.yaml_text import render_yaml

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**12), 10**12),
    st.floats(allow_nan=False, allow_infinity=False),
    _TEXT,
)
_DOCUMENTS = st.dictionaries(
    _TEXT,
    st.recursive(
        _SCALARS,
        lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(_TEXT, inner, max_size=4)),
        max_leaves=12,
    ),
    min_size=1,
    max_size=5,
)


@given(document=_DOCUMENTS)
@settings(max_examples=300, deadline=None)
def test_any_document_is_read_back_as_it_was(document: dict[str, Any]) -> None:
    assert yaml.safe_load(render_yaml(document)) == document


@pytest.mark.parametrize(
    "word",
    [
        "no",
        "Yes",
        "null",
        "~",
        "1e3",
        "0x1f",
        "1_000",
        "12:30:45",
        "2024-01-01",
        "=",
        "<<",
        "a: b",
        "#x",
        "-",
        "",
        " a ",
        "line\n",
        "two\nlines\n",
        "  indented\nblock\n",
        "tail\n\n",
        "a\tb\n",
        "\ud7ff😀",
        "a:b",
        "y",
        "a #b",
    ],
)
def test_text_that_looks_like_something_else_stays_text(word: str) -> None:
    assert yaml.safe_load(render_yaml({"value": word, "list": [word]})) == {"value": word, "list": [word]}


def test_a_configuration_file_is_readable_in_the_yaml() -> None:
    assert "content: |\n  global\n    maxconn 1\n\n  defaults\n" in render_yaml(
        {"content": "global\n  maxconn 1\n\ndefaults\n"}
    )
