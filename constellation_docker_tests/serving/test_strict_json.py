"""JSON from strangers is bounded and strict; JSON from models is whole or refused."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from constellation_docker.serving.model import BadRequest, ModelFault, ServingError, TooLarge
from constellation_docker.serving.strict_json import MAX_CONTAINERS, MAX_DEPTH, parse_json, render_json

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(min_value=-(2**63), max_value=2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda children: (
        st.lists(children) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), children)
    ),
    max_leaves=20,
)


@given(json_values)
def test_what_the_standard_library_writes_is_read_as_it_was(value: object) -> None:
    assert parse_json(json.dumps(value).encode()) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode()) == value


@given(json_values)
def test_what_is_rendered_is_read_back_as_it_was(value: object) -> None:
    assert json.loads(render_json(value)) == value


@given(st.binary(max_size=300))
def test_any_bytes_are_a_value_or_one_sentence(data: bytes) -> None:
    try:
        parse_json(data)
    except ServingError as problem:
        assert problem.status in (400, 413)
        assert "\n" not in problem.message


@given(st.integers(1, 2 * MAX_DEPTH), st.text('[]{}"\\ab'))
def test_depth_is_measured_right_even_with_brackets_in_strings(depth: int, text: str) -> None:
    value: object = text
    for level in range(depth):
        value = [text, value] if level % 2 else {text: value}
    body = json.dumps(value).encode()
    if depth <= MAX_DEPTH:
        assert parse_json(body) == value
    else:
        with pytest.raises(BadRequest, match="nested deeper"):
            parse_json(body)


def test_brackets_in_a_long_text_count_for_nothing() -> None:
    text = '[{,\\"' * 2_000_000
    assert parse_json(json.dumps({"inputs": text}).encode()) == {"inputs": text}


def test_more_containers_than_any_request_needs_are_refused_before_they_are_made() -> None:
    with pytest.raises(TooLarge):
        parse_json(b"[" + b"{}," * (MAX_CONTAINERS + 1) + b"{}]")


@pytest.mark.parametrize("piece", [b"[", b"{", b'"[', b'\\"', b'"\\', b"[]", b'{"":', b"]", b'"', b"\\"])
def test_no_repetition_is_slow(piece: bytes) -> None:
    """Linear work only: with a quadratic scan the test would run into its timeout."""
    with pytest.raises(ServingError):
        parse_json(piece * (2_000_000 // len(piece)) + b"x")


def test_a_byte_order_mark_is_skipped() -> None:
    assert parse_json(b"\xef\xbb\xbf{}") == {}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (np.float32(0.5), b"0.5"),
        (np.arange(3), b"[0,1,2]"),
        (np.ones((2, 2), np.float16), b"[[1.0,1.0],[1.0,1.0]]"),
        (np.ones((4, 4), np.float32)[::2, ::2], b"[[1.0,1.0],[1.0,1.0]]"),
        (np.asfortranarray(np.array([[1, 2], [3, 4]])), b"[[1,2],[3,4]]"),
        ({1: (True, None)}, b'{"1":[true,null]}'),
        ({"labels": np.array(["a", "b"])}, b'{"labels":["a","b"]}'),
        (np.float64(2), b"2.0"),
        ("\x00\u2028ü", '"\\u0000\u2028ü"'.encode()),
    ],
)
def test_models_may_answer_with_numpy_tuples_and_odd_keys(answer: object, expected: bytes) -> None:
    assert render_json(answer) == expected


@pytest.mark.parametrize(
    "answer",
    [
        math.nan,
        [{"score": math.inf}],
        np.array([1, np.nan]),
        [np.float32("nan")],
        {"none": None, "nan": math.nan},
    ],
)
def test_nan_is_a_fault_of_the_model_and_not_a_silent_null(answer: object) -> None:
    with pytest.raises(ModelFault, match="NaN"):
        render_json(answer)


@pytest.mark.parametrize("answer", [object(), {"a": b"bytes"}, 2**70, "\ud800"])
def test_what_json_cannot_hold_is_a_fault_of_the_model(answer: object) -> None:
    with pytest.raises(ModelFault, match="cannot be sent as JSON"):
        render_json(answer)


def test_an_answer_that_holds_itself_is_a_fault_of_the_model() -> None:
    answer: list[object] = []
    answer.append(answer)
    with pytest.raises(ModelFault):
        render_json(answer)
