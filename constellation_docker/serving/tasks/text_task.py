"""What the tasks that read text with an encoder share: tokenize, one pass for all calls, one answer each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, ClassVar

from tokenizers import Encoding

from ..config import LongInput
from ..model import Call, InvalidParameters, Request, ServingError
from ..runtimes.encoder import TextEncoder
from ..runtimes.network import Array
from ..runtimes.repository import Repository
from ..runtimes.tokenizer import Text
from .parameter import Parameter, read_parameters, render_parameters_schema
from .payload import read_envelope, read_object

TEXTS_SCHEMA: dict[str, Any] = {
    "description": "One text, or a list of them; a list is answered with a list.",
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}],
}


class TextTask(ABC):
    """A task on an encoder. A call's `inputs` are the texts (or pairs) that it adds to the batch.

    Args:
        encoder: Tokenizer and network.
        repository: The model's files.
        max_batch_size: Most rows of one `run`.
        long_input: What happens to a text that is longer than the model reads.

    Attributes:
        parameters: What the task takes, checked strictly.
        output: The network's output that it reads; the first where None.
    """

    task: str
    parameters: ClassVar[tuple[Parameter, ...]] = ()
    output: str | None = None
    paths: frozenset[str] = frozenset({"/"})

    def __init__(
        self,
        encoder: TextEncoder,
        repository: Repository,
        *,
        max_batch_size: int = 32,
        long_input: LongInput = "truncate",
    ) -> None:
        self.encoder = encoder
        self.repository = repository
        self.runtime = encoder.network.runtime
        self.device = encoder.network.device
        self.max_batch_size = max_batch_size
        self.long_input = long_input

    def parse(self, request: Request) -> Call:
        """See `Model.parse`."""
        document = read_object(request, is_text_allowed=True)
        inputs, parameters = read_envelope(document)
        return self.read_call(inputs, read_parameters(parameters, self.parameters, of=self.task))

    @abstractmethod
    def read_call(self, inputs: Any, parameters: dict[str, Any]) -> Call:
        """Check the inputs and make a call of them."""

    @abstractmethod
    def answer(self, call: Call, encodings: Sequence[Encoding], rows: Sequence[Array]) -> Any:
        """The answer to one call, from its part of the batch."""

    @abstractmethod
    def schema(self) -> dict[str, dict[str, Any]]:
        """See `Model.schema`."""

    def batch_key(self, call: Call) -> Hashable:
        """Every call may run with every other: parameters only concern what follows the pass."""
        return None

    def encode(self, call: Call) -> list[Encoding]:
        """Tokenize one call's texts.

        Raises:
            InvalidParameters: one is too long, where the card says to refuse it, or has no tokens.
        """
        texts: list[Text] = call.inputs
        encodings = self.encoder.tokenizer.encode(texts)
        self.check_length(call, encodings)
        return encodings

    def check_length(self, call: Call, encodings: Sequence[Encoding]) -> None:
        """Raises InvalidParameters for a text without tokens, or one too long where that is refused."""
        if self.long_input == "refuse":
            self.encoder.tokenizer.require_fit(encodings)
        if any(len(encoding) == 0 for encoding in encodings):
            raise InvalidParameters("An input is empty: it has no tokens.")

    def run(self, calls: Sequence[Call]) -> Sequence[Any]:
        """See `Model.run`. A call that fails, fails alone."""
        encoded: list[list[Encoding] | ServingError] = []
        for call in calls:
            try:
                encoded.append(self.encode(call))
            except ServingError as problem:
                encoded.append(problem)
        try:
            rows = iter(
                self.encoder.infer(
                    [e for part in encoded if isinstance(part, list) for e in part], self.output
                )
            )
        except ServingError as problem:
            if len(calls) == 1:
                return [problem]
            return [self.run([call])[0] for call in calls]
        answers: list[Any] = []
        for call, part in zip(calls, encoded, strict=True):
            if isinstance(part, ServingError):
                answers.append(part)
                continue
            own = [next(rows) for _ in part]
            try:
                answers.append(self.answer(call, part, own))
            except ServingError as problem:
                answers.append(problem)
        return answers

    def stream(self, call: Call) -> Iterator[Any] | None:
        """These tasks answer at once."""
        return None

    def warm_up(self) -> None:
        """Run one short text."""
        self.encoder.infer(self.encoder.tokenizer.encode(["warm up"]), self.output)

    def request_schema(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """The JSON Schema of a request with `inputs` and this task's parameters."""
        schema: dict[str, Any] = {
            "type": "object",
            "required": ["inputs"],
            "properties": {"inputs": inputs, "parameters": render_parameters_schema(self.parameters)},
        }
        if any(parameter.is_required for parameter in self.parameters):
            schema["required"] = ["inputs", "parameters"]
        return schema
