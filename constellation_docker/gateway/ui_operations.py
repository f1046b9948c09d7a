"""What a browser asks of Dagster's GraphQL, read before it is passed on.

Nothing is passed on as it came. A body is parsed, the document in it too, and what was understood is written anew;
so the webserver cannot read anything else out of it than we did. What it could read in other ways than we (several
operations in a list, persisted queries, forms, documents in the address of a POST) is refused: the UI uses none.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from graphql import (
    ArgumentNode,
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    InlineFragmentNode,
    OperationDefinitionNode,
    OperationType,
    SelectionNode,
    VariableNode,
    parse,
    value_from_ast_untyped,
)

from constellation_docker.gateway.errors import GatewayError
from constellation_docker.run_tags import REQUESTED_BY

MAX_TOKENS = 10_000
"""The UI's largest document has about 4,000; each costs some 50 µs to read."""
REMEMBERED_DOCUMENTS = 128
"""The UI sends the same few documents over and over."""

LAUNCH_ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    "launchRun": ("executionParams",),
    "launchPipelineExecution": ("executionParams",),
    "launchMultipleRuns": ("executionParamsList",),
    "launchRunReexecution": ("executionParams", "reexecutionParams"),
    "launchPipelineReexecution": ("executionParams", "reexecutionParams"),
    "launchPartitionBackfill": ("backfillParams",),
    "reexecutePartitionBackfill": ("reexecutionParams",),
}
"""The mutations that start runs, and the arguments that say which and carry the runs' tags."""


class UnreadableOperation(GatewayError):
    """What was sent to GraphQL cannot be understood, so it is not passed on."""

    code = "unreadable_operation"
    default_status = 400


@dataclass(frozen=True)
class Mutation:
    """One mutation of a document.

    Args:
        field: Its name in Dagster's schema, whatever alias it has.
        arguments: Its arguments, with variables filled in.
    """

    field: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class UiOperation:
    """A GraphQL document with its variables.

    Args:
        query: The document's text.
        variables: Its variables.
        operation_name: Which of its operations is meant.
        document: The parsed document.
    """

    query: str
    variables: dict[str, Any]
    operation_name: str | None
    document: DocumentNode

    @property
    def name(self) -> str:
        """What the operation calls itself, for the audit line."""
        names = [item.name.value for item in self._operations() if item.name]
        return self.operation_name or ", ".join(names) or "unnamed"

    @property
    def is_mutation(self) -> bool:
        """Whether any operation of the document changes something, whichever of them is meant."""
        return any(item.operation is OperationType.MUTATION for item in self._operations())

    def mutations(self) -> list[Mutation]:
        """Everything that the document's mutations may do, also in their fragments."""
        return [Mutation(node.name.value, self._arguments(node)) for node in _top_fields(self.document)]

    def body(self) -> bytes:
        """What is passed on: our own writing of what was understood."""
        content = {"query": self.query, "variables": self.variables, "operationName": self.operation_name}
        return json.dumps(content).encode()

    def _operations(self) -> Iterator[OperationDefinitionNode]:
        return (item for item in self.document.definitions if isinstance(item, OperationDefinitionNode))

    def _arguments(self, node: FieldNode) -> dict[str, Any]:
        return {
            item.name.value: value_from_ast_untyped(item.value, self.variables) for item in node.arguments
        }


def read_operation(content: Any) -> UiOperation:
    """The one operation in a decoded JSON body.

    Args:
        content: `{"query", "variables", "operationName"}`, as the GraphQL over HTTP specification writes it.

    Raises:
        UnreadableOperation: It is several operations, a persisted one, or no GraphQL.
    """
    if isinstance(content, list):
        raise UnreadableOperation(
            "Several operations in one body are not passed on.", remedy="Send them one by one."
        )
    if not isinstance(content, dict) or not isinstance(content.get("query"), str):
        raise UnreadableOperation(
            "There is no GraphQL document in the body.", remedy='Send {"query": "…", "variables": {…}}.'
        )
    variables = content.get("variables")
    if isinstance(variables, str):
        variables = read_json(variables)
    name = content.get("operationName")
    if not isinstance(variables, dict | None) or not isinstance(name, str | None):
        raise UnreadableOperation(
            "The variables must be an object, and operationName a text.", remedy="Send them so."
        )
    return UiOperation(content["query"], dict(variables or {}), name or None, _parsed(content["query"]))


def read_json(text: str | bytes) -> Any:
    """Decoded JSON.

    Raises:
        UnreadableOperation: It is none.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise UnreadableOperation("The body is not JSON.", remedy="Send application/json.") from None


def stamp_requester(operation: UiOperation, requester: str) -> None:
    """Write into every launch of an operation who asked for it, in place of whatever it says of itself.

    Args:
        operation: Its variables are changed in place.
        requester: The value of the runs' `constellation/requested_by` tag.

    Raises:
        UnreadableOperation: A launch does not take its parameters from a variable, so they cannot be stamped.
    """
    for node in _top_fields(operation.document):
        for argument in node.arguments:
            name = argument.name.value
            if name in LAUNCH_ARGUMENTS.get(node.name.value, ()):
                for launch in _launches(operation, node, argument):
                    _stamp(name, launch, requester)


def listed(value: Any) -> list[Any]:
    """A GraphQL list as it is read: a single value stands for a list of one, and nothing for an empty one."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _launches(operation: UiOperation, node: FieldNode, argument: ArgumentNode) -> list[dict[str, Any]]:
    """The parameters of the launches that a mutation takes from a variable."""
    given = None
    if isinstance(argument.value, VariableNode):
        given = operation.variables.get(argument.value.name.value)
    launches = [item for item in listed(given) if isinstance(item, dict)]
    if not launches or len(launches) != len(listed(given)):
        raise UnreadableOperation(
            f"{node.name.value} must take {argument.name.value} from a variable.",
            remedy="Declare it as a variable and send its value in `variables`.",
        )
    return launches


def _stamp(argument: str, launch: dict[str, Any], requester: str) -> None:
    place, name = launch, "tags"
    if argument == "reexecutionParams":
        name = "extraTags"
    elif argument != "backfillParams":
        metadata = launch.get("executionMetadata")
        place = launch["executionMetadata"] = dict(metadata) if isinstance(metadata, dict) else {}
    kept = [tag for tag in listed(place.get(name)) if not _is_requester(tag)]
    place[name] = [*kept, {"key": REQUESTED_BY, "value": requester}]


def _is_requester(tag: Any) -> bool:
    return isinstance(tag, dict) and tag.get("key") == REQUESTED_BY


@lru_cache(maxsize=REMEMBERED_DOCUMENTS)
def _parsed(query: str) -> DocumentNode:
    try:
        return parse(query, no_location=True, max_tokens=MAX_TOKENS)
    except GraphQLError as error:
        raise UnreadableOperation(
            f"The document is not GraphQL: {error.message}", remedy="Correct it."
        ) from None
    except RecursionError:
        raise UnreadableOperation("The document is nested too deeply.", remedy="Simplify it.") from None


def _top_fields(document: DocumentNode) -> list[FieldNode]:
    """The outermost fields of all mutations of a document, also those that stand in its fragments."""
    fragments: dict[str, list[FragmentDefinitionNode]] = {}
    selections: list[SelectionNode] = []
    for definition in document.definitions:
        if isinstance(definition, FragmentDefinitionNode):
            fragments.setdefault(definition.name.value, []).append(definition)
        elif (
            isinstance(definition, OperationDefinitionNode) and definition.operation is OperationType.MUTATION
        ):
            selections += definition.selection_set.selections
    found: list[FieldNode] = []
    while selections:
        selection = selections.pop(0)
        if isinstance(selection, FieldNode):
            found.append(selection)
        elif isinstance(selection, InlineFragmentNode):
            selections += selection.selection_set.selections
        elif isinstance(selection, FragmentSpreadNode):
            for fragment in fragments.pop(selection.name.value, []):
                selections += fragment.selection_set.selections
    return found
