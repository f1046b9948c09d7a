"""Tables, served from ONNX graphs of scikit-learn's kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import InferenceClient

from constellation_docker_tests.fixtures.model_server import ServedModel, ServeModel

TinyModel = Callable[[str], Path]
TABLE = {"height": ["0", "4"], "length": [5, 1], "width": ["1.5", "3"], "note": ["ignored", "too"]}


@pytest.fixture(scope="module")
def serve(serve_model: ServeModel, tiny_model: TinyModel) -> Callable[[str, str], ServedModel]:
    return lambda name, task: serve_model(tiny_model(name), task=task, runtime="onnx")


def test_a_table_is_classified_row_by_row_in_the_order_of_the_models_columns(serve) -> None:
    client = InferenceClient(serve("table-classifier", "tabular-classification").url, token="hf_x")
    assert client.tabular_classification(TABLE) == ["setosa", "virginica"]


def test_a_table_is_regressed_to_numbers(serve) -> None:
    server = serve("table-regressor", "tabular-regression")
    # What InferenceClient.tabular_regression builds; its 2.4 then refuses to send that to any URL.
    assert server.post({"parameters": {}, "table": TABLE}).json() == pytest.approx([5.5, 2.0])
    assert server.post({"inputs": {"data": TABLE}}).json() == pytest.approx([5.5, 2.0])


@pytest.mark.parametrize("cell", [None, "", "nan", 1e300, -1e39])
def test_a_cell_that_leaves_a_row_without_an_answer_is_named(serve, cell: Any) -> None:
    table = {"height": [1, 1], "length": [1, 1], "width": [1, cell]}
    answer = serve("table-regressor", "tabular-regression").post({"table": table})
    assert answer.status_code == 422
    assert "row 2" in answer.json()["error"] and "'width'" in answer.json()["error"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"table": {"height": [1], "length": [1]}}, "no column 'width'"),
        ({"table": {"height": [1], "length": [1], "width": [1, 2]}}, "different lengths"),
        ({"table": {"height": ["tall"], "length": [1], "width": [1]}}, "'height' must hold numbers"),
        ({"table": {"height": [], "length": [], "width": []}}, "from 1 to"),
        ({"table": {"height": 1, "length": 1, "width": 1}}, "must be a list"),
        ({"table": [[1, 2, 3]]}, "`table` is missing"),
        ({"inputs": "x"}, "`table` is missing"),
        ({"table": TABLE, "parameters": {"top_k": 1}}, "'top_k'"),
    ],
)
def test_wrong_tables_are_refused_by_name(serve, body: dict[str, Any], says: str) -> None:
    answer = serve("table-classifier", "tabular-classification").post(body)
    assert answer.status_code == 422
    assert says in answer.json()["error"]
