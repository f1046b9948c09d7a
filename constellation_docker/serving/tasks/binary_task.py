"""What the tasks on images and sounds share: raw bytes or base64 in, decoded where the model runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, ClassVar

from ..model import Call, Request, ServingError
from .parameter import Parameter, read_parameters, render_parameters_schema
from .payload import read_binary


class BinaryTask(ABC):
    """A task on a file's bytes, which are a call's `inputs`.

    Attributes:
        family: The content types that are taken, such as `image`.
        parameters: What the task takes, checked strictly.
    """

    task: str
    family: ClassVar[str]
    parameters: ClassVar[tuple[Parameter, ...]] = ()
    paths: frozenset[str] = frozenset({"/"})

    def __init__(self, *, runtime: str, device: str, max_batch_size: int) -> None:
        self.runtime = runtime
        self.device = device
        self.max_batch_size = max_batch_size

    def parse(self, request: Request) -> Call:
        """See `Model.parse`. Decoding is left to the model's thread: it is slow."""
        binary = read_binary(request, family=self.family)
        return Call(binary.content, read_parameters(binary.parameters, self.parameters, of=self.task))

    def batch_key(self, call: Call) -> Hashable:
        """Every call may run with every other, unless a task says otherwise."""
        return None

    def run(self, calls: Sequence[Call]) -> Sequence[Any]:
        """See `Model.run`. A call that fails, fails alone."""
        answers: list[Any] = [None] * len(calls)
        decoded: list[tuple[int, Any]] = []
        for index, call in enumerate(calls):
            try:
                decoded.append((index, self.decode(call.inputs)))
            except ServingError as problem:
                answers[index] = problem
        for index, answer in self._compute(calls, decoded):
            answers[index] = answer
        return answers

    def _compute(self, calls: Sequence[Call], decoded: list[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
        if not decoded:
            return
        try:
            results = self.compute([calls[index] for index, _ in decoded], [item for _, item in decoded])
        except ServingError as problem:
            if len(decoded) == 1:
                yield decoded[0][0], problem
                return
            for one in decoded:
                yield from self._compute(calls, [one])
            return
        for (index, _), result in zip(decoded, results, strict=True):
            yield index, result

    @abstractmethod
    def decode(self, content: bytes) -> Any:
        """The image or sound in the file.

        Raises:
            InvalidParameters: it is none.
        """

    @abstractmethod
    def compute(self, calls: Sequence[Call], decoded: Sequence[Any]) -> Sequence[Any]:
        """One answer (or error) a call."""

    @abstractmethod
    def response_schema(self) -> dict[str, Any]:
        """The JSON Schema of an answer."""

    def stream(self, call: Call) -> Iterator[Any] | None:
        """These tasks answer at once."""
        return None

    def schema(self) -> dict[str, dict[str, Any]]:
        """See `Model.schema`. Raw bytes are described by their JSON form, base64."""
        inputs = {
            "type": "string",
            "contentEncoding": "base64",
            "description": f"The {self.family}, base64 (or a data: URL). It may also be sent as the body itself.",
        }
        request = {
            "type": "object",
            "required": ["inputs"],
            "properties": {"inputs": inputs, "parameters": render_parameters_schema(self.parameters)},
        }
        return {"/": {"request": request, "response": self.response_schema()}}
