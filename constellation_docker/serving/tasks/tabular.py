"""tabular-classification and -regression: a table of columns in, one value a row out.

Served from an ONNX graph, such as skl2onnx makes of a scikit-learn model: pickles (joblib, and skops files with
types that are not known to be safe) are programs, and programs are only run where the card brings a handler.py.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..model import Call, InvalidParameters, LoadFailed, Request, ServingError
from ..runtimes.network import Array, Network
from ..runtimes.repository import Repository
from .parameter import read_parameters
from .payload import read_object
from .scores import require_finite

MAX_ROWS = 100_000
LARGEST_CELL = 1e37
"""From here on the arithmetic of a graph in single precision may leave its range."""
Cell = str | float | int | bool | None


class Tabular:
    """A graph over columns.

    It takes either one input of shape `(rows, columns)`, or one input of shape `(rows, 1)` a column, named like
    it. The order of columns comes from `config.json` (`sklearn.columns`, as skops writes it), else from the
    graph's inputs.

    Args:
        network: The graph; its first output is the answer.
        repository: The model's files.
        task: `tabular-classification` or `tabular-regression`.
        texts: Inputs that hold strings.
        whole: Inputs that hold whole numbers.
        max_batch_size: Most rows of one `run`.
    """

    paths: frozenset[str] = frozenset({"/"})

    def __init__(
        self,
        network: Network,
        repository: Repository,
        *,
        task: str,
        texts: frozenset[str],
        whole: frozenset[str],
        max_batch_size: int,
    ) -> None:
        self.task = task
        self.runtime = network.runtime
        self.device = network.device
        self.max_batch_size = max_batch_size
        self._network = network
        self._repository = repository
        self._texts = texts
        self._whole = whole
        stated = (repository.config.get("sklearn") or {}).get("columns") or []
        self._is_matrix = len(network.input_names) == 1 and network.input_names.isdisjoint(stated)
        self._columns = [str(column) for column in stated] or sorted(network.input_names)
        if self._is_matrix and not stated:
            raise LoadFailed(
                "the ONNX graph takes one matrix, and config.json does not name its columns (sklearn.columns)"
            )
        missing = sorted(network.input_names - set(self._columns)) if not self._is_matrix else []
        if missing:
            raise LoadFailed(
                f"the ONNX graph takes {missing[0]}, which is not among config.json's sklearn.columns"
            )

    def parse(self, request: Request) -> Call:
        """See `Model.parse`. Python's client sends `table`, the JavaScript one `inputs.data`."""
        document = read_object(request)
        unknown = [key for key in document if key not in ("table", "inputs", "parameters", "options")]
        if unknown:
            raise InvalidParameters(f"The key {unknown[0][:60]!r} is not known here; a request has `table`.")
        read_parameters(document.get("parameters"), (), of=self.task)
        table = document.get("table")
        if table is None:
            inputs = document.get("inputs")
            table = inputs.get("data", inputs) if isinstance(inputs, dict) else None
        if not isinstance(table, dict):
            raise InvalidParameters(
                "The key `table` is missing: an object with a list of cells for each column."
            )
        columns = self._check_columns(table)
        return Call(columns, size=max(1, len(columns[self._columns[0]])))

    def _check_columns(self, table: Mapping[str, Any]) -> dict[str, list[Cell]]:
        missing = [column for column in self._columns if column not in table]
        if missing:
            raise InvalidParameters(
                f"The table has no column {missing[0]!r}; it needs {', '.join(self._columns)}."
            )
        columns: dict[str, list[Cell]] = {}
        for column in self._columns:
            cells = table[column]
            if not isinstance(cells, list) or any(isinstance(cell, (list, dict)) for cell in cells):
                raise InvalidParameters(f"The column {column!r} must be a list of numbers or strings.")
            columns[column] = cells
        counts = {len(cells) for cells in columns.values()}
        if len(counts) > 1:
            raise InvalidParameters("The table's columns have different lengths.")
        if counts == {0} or max(counts) > MAX_ROWS:
            raise InvalidParameters(f"The table must have from 1 to {MAX_ROWS} rows.")
        return columns

    def batch_key(self, call: Call) -> Hashable:
        """Every call may run with every other."""
        return None

    def run(self, calls: Sequence[Call]) -> Sequence[Any]:
        """See `Model.run`. Tables are small: each runs by itself, and fails by itself."""
        return [self._attempt(call.inputs) for call in calls]

    def _attempt(self, table: dict[str, list[Cell]]) -> Any:
        try:
            arrays = {column: self._convert(column, cells) for column, cells in table.items()}
            if self._is_matrix:
                (name,) = self._network.input_names
                feeds = {name: np.concatenate([arrays[column] for column in self._columns], axis=1)}
            else:
                feeds = {name: arrays[name] for name in self._network.input_names}
            result = self._network.run(feeds).reshape(-1)
            if self.task == "tabular-regression":
                _require_answers(result, arrays)
            return self._format(result)
        except ServingError as problem:
            return problem

    def _convert(self, column: str, cells: list[Cell]) -> Array:
        if column in self._texts:
            return np.array([["" if cell is None else str(cell)] for cell in cells], dtype=object)
        try:
            numbers = [float("nan") if cell in (None, "") else float(cell) for cell in cells]
        except (TypeError, ValueError):
            raise InvalidParameters(f"The column {column!r} must hold numbers.") from None
        array = np.asarray(numbers, dtype=np.float64)[:, None]
        if column in self._whole and not (np.isfinite(array).all() and (array == np.trunc(array)).all()):
            raise InvalidParameters(
                f"The column {column!r} must hold whole numbers, and none may be missing."
            )
        return array

    def _format(self, result: Array) -> list[Any]:
        if self.task == "tabular-regression":
            return result.astype(np.float64).tolist()  # type: ignore[no-any-return]
        if result.dtype.kind in "iu" and isinstance(self._repository.config.get("id2label"), dict):
            names = self._repository.config["id2label"]
            return [str(names.get(str(value), value)) for value in result.tolist()]
        return [value if isinstance(value, str) else str(value) for value in result.tolist()]

    def stream(self, call: Call) -> Iterator[Any] | None:
        """This task answers at once."""
        return None

    def warm_up(self) -> None:
        """Run one row of zeros."""
        self._attempt({column: [0] for column in self._columns})

    def schema(self) -> dict[str, dict[str, Any]]:
        """See `Model.schema`."""
        cells = {"type": "array", "minItems": 1, "items": {"type": ["string", "number", "boolean", "null"]}}
        table = {
            "type": "object",
            "required": self._columns,
            "properties": dict.fromkeys(self._columns, cells),
        }
        kind = "number" if self.task == "tabular-regression" else "string"
        return {
            "/": {
                "request": {"type": "object", "required": ["table"], "properties": {"table": table}},
                "response": {"type": "array", "items": {"type": kind}},
            }
        }


def _require_answers(result: Array, arrays: Mapping[str, Array]) -> None:
    """Raises InvalidParameters for a row that has no finite answer because of a cell, ModelFault for any other."""
    rows = np.flatnonzero(~np.isfinite(result.astype(np.float64)))
    if not len(rows):
        return
    row = int(rows[0])
    for column, array in arrays.items():
        if array.dtype != object and not abs(array[row, 0]) < LARGEST_CELL:
            raise InvalidParameters(
                f"The model has no answer for row {row + 1}: its cell in the column {column!r} is missing or too large."
            )
    require_finite(result.astype(np.float64))
