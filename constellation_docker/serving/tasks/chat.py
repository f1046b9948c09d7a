"""/v1/chat/completions: a conversation, as OpenAI's clients and `InferenceClient.chat_completion` send it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from ..model import InvalidParameters
from ..runtimes.generation import Generated, Generator, Token
from .completion import FINISH_REASONS, count_usage, is_usage_wanted
from .parameter import Parameter, read_parameters
from .payload import MAX_INPUTS, check_text
from .prompt import Prompt
from .sampling_parameter import OPENAI, read_sampling

PARAMETERS: tuple[Parameter, ...] = (
    *OPENAI,
    Parameter("max_completion_tokens", "integer", "OpenAI's newer name of `max_tokens`.", minimum=1),
    Parameter("logprobs", "boolean", "Whether each token's log-probability is answered.", default=False),
    Parameter(
        "top_logprobs", "integer", "How many likeliest tokens are answered too.", minimum=0, maximum=20
    ),
    Parameter("response_format", "object", 'Only {"type": "text"}.'),
    Parameter("tool_choice", "any", 'Only "none".'),
    Parameter("tools", "any", "Not taken."),
    Parameter("tool_prompt", "string", "Not looked at without tools."),
    Parameter("logit_bias", "any", "Not taken."),
    Parameter("metadata", "any", "Not looked at."),
    Parameter("store", "boolean", "Not looked at: nothing is stored."),
    Parameter("service_tier", "string", "Not looked at."),
    Parameter("parallel_tool_calls", "boolean", "Not looked at without tools."),
)
_ROLES = ("system", "developer", "user", "assistant")


class ChatFormat:
    """`{"messages": …}` → `{"choices": [{"message": …}]}`, through the tokenizer's chat template."""

    def __init__(self, generator: Generator, model_name: str, *, max_seconds: float) -> None:
        self._generator = generator
        self._model_name = model_name
        self._max_seconds = max_seconds

    def read(self, document: dict[str, Any]) -> tuple[Prompt, dict[str, Any], bool]:
        """See `Format.read`."""
        given = dict(document)
        messages = read_messages(given.pop("messages", None))
        parameters = read_parameters(given, PARAMETERS, of="/v1/chat/completions")
        self._refuse_unserved(parameters)
        sampling = read_sampling(
            parameters,
            samples_by_default=self._generator.samples_by_default,
            max_seconds=self._max_seconds,
            top_logprobs=(parameters["top_logprobs"] or 0) if parameters["logprobs"] else 0,
        )
        prompt = Prompt((self._render(messages),), sampling, are_special_tokens_added=False)
        return prompt, parameters, parameters["stream"]

    def _refuse_unserved(self, parameters: dict[str, Any]) -> None:
        if parameters["tools"] or parameters["tool_choice"] not in (None, "none", "auto"):
            raise InvalidParameters("The parameter `tools` is not taken: this server calls no tools.")
        if parameters["logit_bias"]:
            raise InvalidParameters("The parameter `logit_bias` is not taken by this server.")
        form = (parameters["response_format"] or {}).get("type", "text")
        if form != "text":
            raise InvalidParameters(
                "The parameter `response_format` takes only the type `text` on this server."
            )
        if parameters["top_logprobs"] and not parameters["logprobs"]:
            raise InvalidParameters("The parameter `top_logprobs` needs `logprobs` to be true.")

    def _render(self, messages: list[dict[str, str]]) -> str:
        from jinja2.exceptions import TemplateError

        try:
            rendered = self._generator.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        except (TemplateError, ValueError, TypeError) as problem:
            # Templates refuse what their model was not trained on: `raise_exception("roles must alternate…")`.
            raise InvalidParameters(
                f"The model's chat template refuses these messages: {str(problem)[:300]}"
            ) from None
        return str(rendered)

    def answer(self, parameters: dict[str, Any], prompt: Prompt, results: Sequence[Generated]) -> Any:
        """See `Format.answer`."""
        (result,) = results
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": result.text},
            "logprobs": self._logprobs(parameters, result.tokens),
            "finish_reason": FINISH_REASONS[result.finish_reason],
        }
        return self._envelope("chat.completion") | {"choices": [choice], "usage": count_usage(results)}

    def stream(
        self, parameters: dict[str, Any], prompt: Prompt, items: Iterator[Token | Generated]
    ) -> Iterator[Any]:
        """See `Format.stream`."""
        envelope = self._envelope("chat.completion.chunk")
        yield envelope | {"choices": [_choice({"role": "assistant", "content": ""}, None)]}
        for item in items:
            if isinstance(item, Generated):
                yield envelope | {
                    "choices": [_choice({"role": "assistant", "content": ""}, item.finish_reason)]
                }
                if is_usage_wanted(parameters):
                    yield envelope | {"choices": [], "usage": count_usage([item])}
            elif item.text or parameters["logprobs"]:
                choice = _choice({"role": "assistant", "content": item.text}, None)
                yield envelope | {"choices": [choice | {"logprobs": self._logprobs(parameters, [item])}]}
        yield "[DONE]"

    def _logprobs(self, parameters: dict[str, Any], tokens: Sequence[Token]) -> dict[str, Any] | None:
        if not parameters["logprobs"]:
            return None
        decode = self._generator.tokenizer.decode
        content = []
        for token in tokens:
            text = decode([token.id])
            best = [{**_named(decode([i]), value)} for i, value in token.alternatives]
            content.append({**_named(text, token.logprob), "top_logprobs": best})
        return {"content": content}

    def _envelope(self, kind: str) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "object": kind,
            "created": int(time.time()),
            "model": self._model_name,
            "system_fingerprint": "constellation",
        }

    def schema(self) -> dict[str, Any]:
        """See `Format.schema`."""
        message = {
            "type": "object",
            "required": ["role", "content"],
            "properties": {"role": {"enum": list(_ROLES)}, "content": {"type": ["string", "array"]}},
        }
        properties = {
            "messages": {"type": "array", "items": message, "minItems": 1},
            **{parameter.name: parameter.schema() for parameter in PARAMETERS},
        }
        return {
            "request": {"type": "object", "required": ["messages"], "properties": properties},
            "response": {
                "type": "object",
                "required": ["id", "object", "created", "model", "choices", "usage"],
            },
        }


def read_messages(given: Any) -> list[dict[str, str]]:
    """A conversation, with contents as plain text.

    Raises:
        InvalidParameters: it is none, or holds something other than text.
    """
    if not isinstance(given, list) or not given:
        raise InvalidParameters("The key `messages` must be a list with at least one message.")
    if len(given) > MAX_INPUTS:
        raise InvalidParameters(f"`messages` holds {len(given)} messages; at most {MAX_INPUTS} are taken.")
    return [_read_message(message) for message in given]


def _read_message(message: Any) -> dict[str, str]:
    if not isinstance(message, dict) or message.get("role") not in _ROLES:
        raise InvalidParameters(
            f"A message is an object with a `role` ({', '.join(_ROLES)}) and a `content`."
        )
    content = message.get("content")
    if isinstance(content, list):
        parts = []
        for part in content:
            if not isinstance(part, dict) or part.get("type") != "text":
                raise InvalidParameters("A message's content may hold parts of type `text` only.")
            parts.append(check_text(part.get("text"), of="messages.content.text"))
        content = "".join(parts)
    role = "system" if message["role"] == "developer" else message["role"]
    return {"role": role, "content": check_text(content, of="messages.content")}


def _choice(delta: dict[str, str], reason: str | None) -> dict[str, Any]:
    finish = FINISH_REASONS[reason] if reason else None
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}


def _named(text: str, logprob: float) -> dict[str, Any]:
    # A token that cannot come has no finite log-probability; OpenAI writes -9999 for it.
    return {"token": text, "logprob": max(logprob, -9999.0), "bytes": list(text.encode())}
