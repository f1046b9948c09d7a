"""A card's example requests: the Hugging Face `widget:` entries, as what to send to the model.

Source of the entries' forms: https://huggingface.co/docs/hub/models-widgets-examples
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_serializer, model_validator
from pydantic_core import PydanticCustomError

from constellation_docker.cards.tasks import FILE_TASKS, LABELLED_TASKS, TABULAR_TASKS, TEXT_TASKS

# The one key of these that an entry needs, in the order in which they decide.
INPUT_KEYS = (
    "inputs",
    "source_sentence",
    "structured_data",
    "table",
    "messages",
    "context",
    "text",
    "prompt",
    "src",
)


class WidgetExample(BaseModel):
    """One example request.

    Args:
        inputs: What is sent as `inputs`, any JSON. By the entry's form: text; `{"question", "context"}`;
            `{"query", "table"}`; `{"source_sentence", "sentences"}`; `{"messages": […]}`; for tabular tasks the
            table itself, `{column: [values]}`. None where the input is only a file.
        parameters: What is sent as `parameters`; zero-shot labels are `candidate_labels`, a list.
        name: The example's title.
        output: What the card's writer expects back, if given.
        src: The input file: a URL, or a path inside the repository. Where text goes with it, that is `inputs`.
        entry: The entry as the card's writer gave it; this is what is stored and rendered.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    inputs: JsonValue = None
    parameters: dict[str, JsonValue] = Field(default_factory=dict)
    name: str | None = None
    output: JsonValue = None
    src: str | None = None
    entry: dict[str, JsonValue] = Field(default_factory=dict, repr=False)

    @model_validator(mode="before")
    @classmethod
    def _from_entry(cls, data: Any) -> Any:
        if isinstance(data, str):
            data = {"text": data}
        if not isinstance(data, Mapping) or "entry" in data:
            return data
        return _normalised(dict(data))

    @model_serializer(mode="plain")
    def _as_entry(self) -> dict[str, JsonValue]:
        return dict(self.entry)

    def misfit(self, task: str) -> str | None:
        """Why this example cannot be sent to a model of a task; None where it can.

        Entries that give `inputs` themselves fit every task: their writer knows the model.
        """
        if "inputs" in self.entry:
            return None
        if task in LABELLED_TASKS and not self.parameters.get("candidate_labels"):
            return "needs candidate_labels"
        return _input_misfit(self, task)


def _input_misfit(example: WidgetExample, task: str) -> str | None:
    needed = _NEEDED_KEYS.get(task)
    if needed:
        is_fit = isinstance(example.inputs, dict) and set(needed) <= set(example.inputs)
        problem = f"needs {_WRITTEN_KEYS[task]}"
    elif task in FILE_TASKS:
        is_fit, problem = example.src is not None, "needs src, the input file's URL or path"
    elif task in TABULAR_TASKS:
        is_fit = "structured_data" in example.entry or "table" in example.entry
        problem = "needs structured_data"
    elif task in TEXT_TASKS or task == "zero-shot-classification":
        is_chat = task == "text-generation" and "messages" in example.entry
        is_fit, problem = is_chat or isinstance(example.inputs, str), "needs text"
    else:
        return None
    return None if is_fit else problem


_NEEDED_KEYS = {
    "question-answering": ("question", "context"),
    "table-question-answering": ("query", "table"),
    "sentence-similarity": ("source_sentence", "sentences"),
}
_WRITTEN_KEYS = {
    "question-answering": "text (the question) and context",
    "table-question-answering": "text (the question) and table",
    "sentence-similarity": "source_sentence and sentences",
}


def _problem(words: str) -> PydanticCustomError:
    return PydanticCustomError("widget", "{words}", {"words": words})


def _normalised(entry: dict[str, Any]) -> dict[str, Any]:
    if not any(key in entry for key in INPUT_KEYS):
        raise _problem("a widget example needs its input: one of " + ", ".join(INPUT_KEYS))
    direct = set(entry) & {"inputs", "parameters", "name", "output", "src"}
    parameters = entry.get("parameters", {})
    if not isinstance(parameters, Mapping):
        raise _problem("parameters must be a mapping of names to values")
    parameters = dict(parameters)
    if "candidate_labels" in entry:
        parameters["candidate_labels"] = _labels(entry["candidate_labels"])
    for theirs in ("multi_class", "multi_label"):
        if theirs in entry:
            parameters["multi_label"] = entry[theirs]
    source = entry.get("src")
    if source is not None and not isinstance(source, str):
        raise _problem("src must be text: a URL, or a path inside the repository")
    title = entry.get("example_title", entry.get("name"))
    return {
        "inputs": entry["inputs"] if "inputs" in direct else _inputs(entry),
        "parameters": parameters,
        "name": None if title is None else str(title),
        "output": entry.get("output"),
        "src": source,
        "entry": entry,
    }


def _inputs(entry: Mapping[str, Any]) -> Any:
    if "source_sentence" in entry:
        sentences = entry.get("sentences")
        if not isinstance(sentences, list) or not all(isinstance(item, str) for item in sentences):
            raise _problem("source_sentence goes with sentences, a list of texts")
        return {"source_sentence": _text(entry, "source_sentence"), "sentences": sentences}
    table = entry.get("structured_data", entry.get("table"))
    if table is not None:
        columns = _columns(table)
        return {"query": _text(entry, "text"), "table": columns} if "text" in entry else columns
    if "messages" in entry:
        messages = entry["messages"]
        if not isinstance(messages, list) or not all(
            isinstance(item, Mapping) and {"role", "content"} <= set(item) for item in messages
        ):
            raise _problem("messages must be a list of {role, content}")
        return {"messages": messages}
    if "context" in entry:
        if "text" not in entry:
            raise _problem("context goes with text, the question")
        return {"question": _text(entry, "text"), "context": _text(entry, "context")}
    for key in ("text", "prompt"):
        if key in entry:
            return _text(entry, key)
    return None


def _text(entry: Mapping[str, Any], key: str) -> str:
    value = entry[key]
    if not isinstance(value, str):
        raise _problem(f"{key} must be text (in YAML, write numbers and yes/no values in quotes)")
    return value


def _labels(value: Any) -> list[str]:
    """Labels as a list; the Hub's widget writes them as one text with commas."""
    labels = value.split(",") if isinstance(value, str) else value
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise _problem("candidate_labels must be a list of texts, or one text with commas")
    return [label.strip() for label in labels if label.strip()]


def _columns(table: Any) -> dict[str, list[Any]]:
    """A table as `{column: [values]}`; rows (`[{column: value}, …]`, `[[header…], [row…]]`) are turned."""
    if isinstance(table, Mapping):
        columns = {name: values if isinstance(values, list) else [values] for name, values in table.items()}
    elif isinstance(table, list) and table and all(isinstance(row, Mapping) for row in table):
        names = list(table[0])
        if any(set(row) != set(names) for row in table):
            raise _problem("the rows of a table must all have the same columns")
        columns = {name: [row[name] for row in table] for name in names}
    elif isinstance(table, list) and table and all(isinstance(row, list) for row in table):
        header, *rows = table
        if any(len(row) != len(header) for row in rows):
            raise _problem("the rows of a table must all be as long as its header")
        columns = {str(name): [row[index] for row in rows] for index, name in enumerate(header)}
    else:
        raise _problem("a table must be {column: [values]} or a list of rows")
    if len({len(values) for values in columns.values()}) > 1:
        raise _problem("the columns of a table must all have the same length")
    return columns
