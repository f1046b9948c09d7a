"""text-generation: `POST /` as Text Generation Inference has it, and OpenAI's two routes on the same model."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from ..config import Config
from ..model import BadRequest, Call, InvalidParameters, Request, ServingError
from ..runtimes.generation import Generated, Generator, Sampling, Token
from .chat import ChatFormat
from .completion import CompletionFormat
from .parameter import read_parameters, render_parameters_schema
from .payload import read_envelope, read_object, read_texts
from .prompt import Format, Prompt
from .sampling_parameter import HUGGING_FACE, drop_unused, read_sampling

ROOT = "/"
COMPLETIONS = "/v1/completions"
CHAT = "/v1/chat/completions"


class TextGeneration:
    """A causal language model on up to three routes; chat only where the tokenizer has a chat template."""

    task = "text-generation"

    def __init__(self, generator: Generator, config: Config) -> None:
        self.runtime = generator.runtime
        self.device = generator.device
        self.max_batch_size = config.options.max_batch_size
        self._generator = generator
        name = config.model_name
        is_cut = config.options.long_input == "truncate"
        seconds = config.options.request_timeout_seconds
        self._formats: dict[str, Format] = {
            ROOT: RootFormat(generator, is_cut=is_cut, max_seconds=seconds),
            COMPLETIONS: CompletionFormat(generator, name, is_cut=is_cut, max_seconds=seconds),
        }
        if generator.has_chat_template:
            self._formats[CHAT] = ChatFormat(generator, name, max_seconds=seconds)
        self.paths = frozenset(self._formats)

    def parse(self, request: Request) -> Call:
        """See `Model.parse`."""
        document = read_object(request, is_text_allowed=request.path == ROOT)
        prompt, parameters, is_streaming = self._formats[request.path].read(document)
        if is_streaming and len(prompt.texts) > 1:
            raise InvalidParameters("A stream continues one prompt; send one, or none with `stream`.")
        return Call(prompt, parameters, path=request.path, is_streaming=is_streaming, size=len(prompt.texts))

    def batch_key(self, call: Call) -> Hashable:
        """Calls with the same sampling run together; a seed only repeats what runs alone."""
        prompt: Prompt = call.inputs
        return id(call) if prompt.sampling.seed is not None else prompt.sampling

    def run(self, calls: Sequence[Call]) -> Sequence[Any]:
        """See `Model.run`."""
        answers: list[Any] = [None] * len(calls)
        rows: list[list[int]] = []
        owners: list[int] = []
        for index, call in enumerate(calls):
            try:
                ids = [self._tokenize(call.inputs, text) for text in call.inputs.texts]
            except ServingError as problem:
                answers[index] = problem
            else:
                rows += ids
                owners += [index] * len(ids)
        results = self._generate(rows, [calls[index].inputs.sampling for index in owners])
        for index, call in enumerate(calls):
            own = [result for owner, result in zip(owners, results, strict=True) if owner == index]
            if own:
                failed = next((item for item in own if isinstance(item, ServingError)), None)
                done = [item for item in own if isinstance(item, Generated)]
                answers[index] = failed or self._formats[call.path].answer(call.parameters, call.inputs, done)
        return answers

    def _generate(
        self, rows: Sequence[list[int]], samplings: Sequence[Sampling]
    ) -> list[Generated | ServingError]:
        """Continue rows of one sampling, in groups that a batch holds; a group that fails goes one by one."""
        results: list[Generated | ServingError] = []
        for start in range(0, len(rows), self.max_batch_size):
            group = list(rows[start : start + self.max_batch_size])
            room = self._generator.max_length - max(len(row) for row in group)
            sampling = samplings[start]
            fitted = replace(sampling, max_new_tokens=max(1, min(sampling.max_new_tokens, room)))
            try:
                results += self._generator.generate(group, fitted)
            except ServingError as problem:
                if len(group) == 1:
                    results.append(problem)
                else:
                    for row in group:
                        results += self._generate([row], [sampling])
        return results

    def stream(self, call: Call) -> Iterator[Any]:
        """See `Model.stream`."""
        prompt: Prompt = call.inputs
        ids = self._tokenize(prompt, prompt.texts[0])
        room = self._generator.max_length - len(ids)
        sampling = replace(prompt.sampling, max_new_tokens=max(1, min(prompt.sampling.max_new_tokens, room)))
        items = self._generator.stream(ids, sampling)
        try:
            yield from self._formats[call.path].stream(call.parameters, prompt, items)
        finally:
            items.close()  # type: ignore[attr-defined]

    def _tokenize(self, prompt: Prompt, text: str) -> list[int]:
        ids = self._generator.tokenize(text, are_special_tokens_added=prompt.are_special_tokens_added)
        if prompt.truncate is not None:
            ids = ids[-prompt.truncate :]
        most = self._generator.max_length - 1
        if len(ids) <= most:
            return ids
        if prompt.is_cut:
            # Room for the answer, and the end of the prompt rather than its beginning.
            kept = max(1, most + 1 - min(prompt.sampling.max_new_tokens, (most + 1) // 2))
            return ids[-kept:]
        raise InvalidParameters(
            f"The prompt has {len(ids)} tokens; this model reads at most {most}, and one is left for the answer."
        )

    def schema(self) -> dict[str, dict[str, Any]]:
        """See `Model.schema`."""
        return {path: form.schema() for path, form in self._formats.items()}

    def warm_up(self) -> None:
        """Generate one token."""
        ids = self._generator.tokenize("Hello", are_special_tokens_added=True)
        self._generator.generate([ids[: self._generator.max_length - 1]], Sampling(max_new_tokens=1))


class RootFormat:
    """`POST /`: `{"inputs", "parameters", "stream"}`, as Text Generation Inference answers it."""

    def __init__(self, generator: Generator, *, is_cut: bool, max_seconds: float) -> None:
        self._samples = generator.samples_by_default
        self._is_cut = is_cut
        self._max_seconds = max_seconds

    def read(self, document: dict[str, Any]) -> tuple[Prompt, dict[str, Any], bool]:
        """See `Format.read`."""
        inputs, given = read_envelope(document, others=("options", "stream"))
        texts = read_texts(inputs)
        parameters = read_parameters(drop_unused(given, HUGGING_FACE), HUGGING_FACE, of="text-generation")
        is_streaming = document.get("stream") or False
        if not isinstance(is_streaming, bool):
            raise BadRequest("`stream` must be true or false.")
        sampling = read_sampling(parameters, samples_by_default=self._samples, max_seconds=self._max_seconds)
        prompt = Prompt(tuple(texts.items), sampling, is_cut=self._is_cut, truncate=parameters["truncate"])
        return prompt, parameters | {"is_list": texts.is_list}, is_streaming

    def answer(self, parameters: dict[str, Any], prompt: Prompt, results: Sequence[Generated]) -> Any:
        """A list with one object a prompt."""
        answers = []
        for text, result in zip(prompt.texts, results, strict=True):
            answer: dict[str, Any] = {"generated_text": self._whole(parameters, text, result)}
            if parameters["details"]:
                answer["details"] = {
                    **_render_details(result, prompt.sampling),
                    "prefill": [],
                    "tokens": [_render_token(token) for token in result.tokens],
                }
            answers.append(answer)
        return answers

    def stream(
        self, parameters: dict[str, Any], prompt: Prompt, items: Iterator[Token | Generated]
    ) -> Iterator[Any]:
        """One event a token; the last one also has the whole text."""
        held: Token | None = None
        index = 0
        for item in items:
            if isinstance(item, Token):
                if held is not None:
                    index += 1
                    yield _render_event(index, held)
                held = item
                continue
            last = held or Token(0, "", 0.0, True)
            yield _render_event(index + 1, last) | {
                "generated_text": self._whole(parameters, prompt.texts[0], item),
                "details": {**_render_details(item, prompt.sampling), "input_length": item.prompt_tokens},
            }

    def _whole(self, parameters: dict[str, Any], text: str, result: Generated) -> str:
        return text + result.text if parameters["return_full_text"] else result.text

    def schema(self) -> dict[str, Any]:
        """See `Format.schema`."""
        return {
            "request": {
                "type": "object",
                "required": ["inputs"],
                "properties": {
                    "inputs": {
                        "anyOf": [
                            {"type": "string"},
                            {"type": "array", "items": {"type": "string"}, "minItems": 1},
                        ]
                    },
                    "parameters": render_parameters_schema(HUGGING_FACE),
                    "stream": {"type": "boolean", "default": False},
                },
            },
            "response": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["generated_text"],
                    "properties": {"generated_text": {"type": "string"}, "details": {"type": "object"}},
                },
            },
        }


def _render_token(token: Token) -> dict[str, Any]:
    return {"id": token.id, "text": token.text, "logprob": token.logprob, "special": token.is_special}


def _render_event(index: int, token: Token) -> dict[str, Any]:
    return {"index": index, "token": _render_token(token), "generated_text": None, "details": None}


def _render_details(result: Generated, sampling: Sampling) -> dict[str, Any]:
    return {
        "finish_reason": result.finish_reason,
        "generated_tokens": len(result.tokens),
        "seed": sampling.seed,
    }
