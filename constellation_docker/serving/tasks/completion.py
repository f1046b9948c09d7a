"""/v1/completions: OpenAI's older route; `@huggingface/inference` sends its textGeneration there."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..model import InvalidParameters
from ..runtimes.generation import Generated, Generator, Token
from .parameter import Parameter, read_parameters
from .payload import read_texts
from .prompt import Prompt
from .sampling_parameter import HUGGING_FACE, OPENAI, drop_unused, read_sampling

_OPENAI_NAMES = {parameter.name for parameter in OPENAI}
PARAMETERS: tuple[Parameter, ...] = (
    *OPENAI,
    Parameter("echo", "boolean", "Whether the prompt is part of the answer.", default=False),
    # The JavaScript client passes its own parameters on as they are.
    *(p for p in HUGGING_FACE if p.name not in _OPENAI_NAMES | {"max_new_tokens", "details"}),
)
FINISH_REASONS = {"length": "length", "eos_token": "stop", "stop_sequence": "stop"}
"""OpenAI's names for Text Generation Inference's."""


class CompletionFormat:
    """`{"prompt", "max_tokens", …}` → `{"choices": [{"text", …}]}`."""

    def __init__(self, generator: Generator, model_name: str, *, is_cut: bool, max_seconds: float) -> None:
        self._samples = generator.samples_by_default
        self._model_name = model_name
        self._is_cut = is_cut
        self._max_seconds = max_seconds

    def read(self, document: dict[str, Any]) -> tuple[Prompt, dict[str, Any], bool]:
        """See `Format.read`."""
        given = dict(document)
        prompt = given.pop("prompt", None)
        if prompt is None:
            raise InvalidParameters("The key `prompt` is missing.")
        if isinstance(prompt, list) and prompt and isinstance(prompt[0], (int, list)):
            raise InvalidParameters("`prompt` holds token ids; this server takes texts only.")
        texts = read_texts(prompt, of="prompt")
        parameters = read_parameters(drop_unused(given, PARAMETERS), PARAMETERS, of="/v1/completions")
        sampling = read_sampling(parameters, samples_by_default=self._samples, max_seconds=self._max_seconds)
        made = Prompt(tuple(texts.items), sampling, is_cut=self._is_cut, truncate=parameters["truncate"])
        return made, parameters, parameters["stream"]

    def answer(self, parameters: dict[str, Any], prompt: Prompt, results: Sequence[Generated]) -> Any:
        """See `Format.answer`."""
        choices = [
            self._choice(self._echo(parameters, text) + result.text, result.finish_reason, index)
            for index, (text, result) in enumerate(zip(prompt.texts, results, strict=True))
        ]
        return self._envelope() | {"choices": choices, "usage": count_usage(results)}

    def stream(
        self, parameters: dict[str, Any], prompt: Prompt, items: Iterator[Token | Generated]
    ) -> Iterator[Any]:
        """See `Format.stream`."""
        envelope = self._envelope()
        if echo := self._echo(parameters, prompt.texts[0]):
            yield envelope | {"choices": [self._choice(echo, None)]}
        for item in items:
            if isinstance(item, Generated):
                yield envelope | {"choices": [self._choice("", item.finish_reason)]}
                if is_usage_wanted(parameters):
                    yield envelope | {"choices": [], "usage": count_usage([item])}
            elif item.text:
                yield envelope | {"choices": [self._choice(item.text, None)]}
        yield "[DONE]"

    def _echo(self, parameters: Mapping[str, Any], text: str) -> str:
        return text if parameters["echo"] or parameters["return_full_text"] else ""

    def _envelope(self) -> dict[str, Any]:
        return {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": self._model_name,
        }

    def _choice(self, text: str, reason: str | None, index: int = 0) -> dict[str, Any]:
        finish = FINISH_REASONS[reason] if reason else None
        return {"index": index, "text": text, "logprobs": None, "finish_reason": finish}

    def schema(self) -> dict[str, Any]:
        """See `Format.schema`."""
        prompt = {
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]
        }
        properties = {"prompt": prompt, **{parameter.name: parameter.schema() for parameter in PARAMETERS}}
        return {
            "request": {"type": "object", "required": ["prompt"], "properties": properties},
            "response": {"type": "object", "required": ["id", "object", "created", "model", "choices"]},
        }


def count_usage(results: Sequence[Generated]) -> dict[str, int]:
    """OpenAI's count of tokens."""
    prompt = sum(result.prompt_tokens for result in results)
    completion = sum(len(result.tokens) for result in results)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def is_usage_wanted(parameters: Mapping[str, Any]) -> bool:
    """Whether the stream ends with the count of tokens."""
    return bool((parameters.get("stream_options") or {}).get("include_usage"))
