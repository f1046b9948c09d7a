"""Generates text with a causal language model: in one go, or token by token."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from ..model import InvalidParameters, ModelFault
from .text_stream import TextStream


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen, and when to end.

    Attributes:
        max_new_tokens: Most tokens to generate.
        is_sampled: Whether tokens are drawn; else the likeliest is taken.
        temperature: Above 1 flattens the probabilities, below 1 sharpens them.
        top_k: Draw from so many likeliest tokens; None: the model's own setting.
        top_p: Draw from the likeliest tokens that together have this probability.
        typical_p: Locally typical sampling (Meister et al., 2022).
        repetition_penalty: Above 1 makes tokens that are already in the text less likely (Keskar et al., 2019).
        frequency_penalty: Taken from a token's logit for each time it was generated, as OpenAI defines it.
        presence_penalty: Taken once from the logit of a token that was generated.
        stop: Texts at which to end; they are not part of the answer.
        seed: Makes drawing repeatable.
        max_seconds: Longest that generating may take.
        top_logprobs: How many of the likeliest tokens to report at each step.
    """

    max_new_tokens: int
    is_sampled: bool = False
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    typical_p: float | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    max_seconds: float | None = None
    top_logprobs: int = 0


@dataclass(slots=True)
class Token:
    """One generated token.

    Attributes:
        id: Its number.
        text: What it adds to the text; empty where it is part of a character, or held back.
        logprob: Its log-probability under the distribution it was chosen from.
        is_special: Whether it is a special token, such as the end of the text.
        alternatives: The likeliest tokens at its place: id and log-probability.
    """

    id: int
    text: str
    logprob: float
    is_special: bool
    alternatives: tuple[tuple[int, float], ...] = ()


@dataclass(slots=True)
class Generated:
    """A finished text.

    Attributes:
        text: It, without the prompt.
        tokens: Its tokens.
        finish_reason: `length`, `eos_token` or `stop_sequence`, as Text Generation Inference names them.
        prompt_tokens: How many tokens the prompt had.
    """

    text: str
    tokens: list[Token] = field(default_factory=list)
    finish_reason: str = "length"
    prompt_tokens: int = 0


class Generator:
    """A tokenizer and a causal language model.

    Args:
        tokenizer: transformers' tokenizer.
        model: transformers' model.

    Attributes:
        max_length: Most tokens of prompt and answer together.
    """

    runtime = "transformers"

    def __init__(self, tokenizer: Any, model: Any) -> None:
        self.tokenizer = tokenizer
        self._model = model
        self.device = str(model.device)
        self.max_length = _max_length(model.config)
        self._eos = _eos_ids(model, tokenizer)
        pad = tokenizer.pad_token_id
        self._pad = pad if pad is not None else next(iter(self._eos), 0)
        self._special = frozenset(tokenizer.all_special_ids)

    @property
    def has_chat_template(self) -> bool:
        """Whether conversations can be made a prompt."""
        return bool(getattr(self.tokenizer, "chat_template", None))

    @property
    def samples_by_default(self) -> bool:
        """Whether the model's own generation_config.json says to draw tokens."""
        return bool(getattr(self._model.generation_config, "do_sample", False))

    def tokenize(self, prompt: str, *, are_special_tokens_added: bool = True) -> list[int]:
        """The prompt's token ids.

        Raises:
            InvalidParameters: it has none.
        """
        ids: list[int] = self.tokenizer(prompt, add_special_tokens=are_special_tokens_added)["input_ids"]
        if not ids:
            raise InvalidParameters("The prompt is empty: it has no tokens.")
        return ids

    def generate(self, prompts: Sequence[list[int]], sampling: Sampling) -> list[Generated]:
        """Continue several prompts at once.

        Args:
            prompts: Token ids.
            sampling: How; the same for all.

        Raises:
            ModelFault: the model failed.
        """
        streams = [self._stream(sampling) for _ in prompts]
        recorder = _Recorder(sampling.top_logprobs)
        criteria = _Stops(streams, recorder)
        self._generate(prompts, sampling, recorder, criteria)
        results = []
        for prompt, stream in zip(prompts, streams, strict=True):
            stream.finish()
            tokens = list(stream.take())
            results.append(Generated(stream.text, tokens, stream.finish_reason, len(prompt)))
        return results

    def stream(self, prompt: list[int], sampling: Sampling) -> Iterator[Token | Generated]:
        """Continue one prompt token by token; the last item is the whole text.

        Closing the iterator ends the generation after the token that is being computed.
        """
        text_stream = self._stream(sampling)
        recorder = _Recorder(sampling.top_logprobs)
        items: queue.SimpleQueue[Token | BaseException | None] = queue.SimpleQueue()
        criteria = _Stops([text_stream], recorder, on_token=lambda: _forward(text_stream, items))

        def work() -> None:
            try:
                self._generate([prompt], sampling, recorder, criteria)
                text_stream.finish()
                _forward(text_stream, items)
                items.put(None)
            except BaseException as problem:  # noqa: BLE001  handed to the thread that waits
                items.put(problem)

        thread = threading.Thread(target=work, name="generate", daemon=True)
        thread.start()
        tokens: list[Token] = []
        try:
            while (item := items.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                tokens.append(item)
                yield item
            yield Generated(text_stream.text, tokens, text_stream.finish_reason, len(prompt))
        finally:
            criteria.is_cancelled = True
            thread.join()

    def _stream(self, sampling: Sampling) -> TextStream:
        return TextStream(self.tokenizer, self._eos, self._special, sampling.stop)

    def _generate(
        self, prompts: Sequence[list[int]], sampling: Sampling, recorder: _Recorder, criteria: _Stops
    ) -> None:
        width = max(len(prompt) for prompt in prompts)
        ids = torch.full((len(prompts), width), self._pad, dtype=torch.long)
        mask = torch.zeros((len(prompts), width), dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        processors = LogitsProcessorList()
        if sampling.frequency_penalty or sampling.presence_penalty:
            processors.append(
                _Penalties(width, sampling.frequency_penalty or 0.0, sampling.presence_penalty or 0.0)
            )
        processors.append(recorder)
        options = _generation_options(sampling)
        with _seeded(sampling.seed, self._model.device), torch.inference_mode():
            try:
                self._model.generate(
                    input_ids=ids.to(self._model.device),
                    attention_mask=mask.to(self._model.device),
                    pad_token_id=self._pad,
                    logits_processor=processors,
                    stopping_criteria=StoppingCriteriaList([criteria]),
                    **options,
                )
            except (RuntimeError, IndexError) as problem:
                raise ModelFault("The model failed while generating.") from problem


def _generation_options(sampling: Sampling) -> dict[str, Any]:
    options: dict[str, Any] = {"max_new_tokens": sampling.max_new_tokens, "do_sample": sampling.is_sampled}
    if sampling.is_sampled:
        for name in ("temperature", "top_k", "top_p", "typical_p"):
            value = getattr(sampling, name)
            if value is not None:
                options[name] = value
    else:
        # What the model's own configuration says about drawing would only be warned about.
        options |= {"temperature": None, "top_k": None, "top_p": None, "typical_p": None}
    if sampling.repetition_penalty is not None:
        options["repetition_penalty"] = sampling.repetition_penalty
    if sampling.max_seconds is not None:
        options["max_time"] = sampling.max_seconds
    return options


class _Recorder(LogitsProcessor):  # type: ignore[misc]
    """Keeps the latest step's log-probabilities, after penalties and before what drawing does to them."""

    def __init__(self, top: int) -> None:
        self._top = top
        self._logprobs: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self._logprobs = torch.log_softmax(scores.float(), dim=-1)
        return scores

    def read(self, chosen: torch.Tensor) -> list[tuple[float, tuple[tuple[int, float], ...]]]:
        """Log-probability of each row's token, and the likeliest tokens in its place.

        Args:
            chosen: Token ids, shape `(rows,)`.
        """
        assert self._logprobs is not None
        own = self._logprobs.gather(1, chosen[:, None])[:, 0].tolist()
        if not self._top:
            return [(logprob, ()) for logprob in own]
        best = self._logprobs.topk(min(self._top, self._logprobs.shape[-1]), dim=-1)
        rows = zip(own, best.indices.tolist(), best.values.tolist(), strict=True)
        return [(logprob, tuple(zip(ids, values, strict=True))) for logprob, ids, values in rows]


class _Stops(StoppingCriteria):  # type: ignore[misc]
    """Reads each step's tokens into the texts, and ends the rows that are complete."""

    def __init__(self, streams: Sequence[TextStream], recorder: _Recorder, on_token: Any = None) -> None:
        self._streams = streams
        self._recorder = recorder
        self._on_token = on_token
        self.is_cancelled = False

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        last = input_ids[:, -1]
        read = zip(self._streams, last.tolist(), self._recorder.read(last), strict=True)
        for stream, token, (logprob, alternatives) in read:
            if not stream.is_complete:
                stream.push(token, logprob, alternatives)
        if self._on_token is not None:
            self._on_token()
        done = [stream.is_complete or self.is_cancelled for stream in self._streams]
        return torch.tensor(done, dtype=torch.bool, device=input_ids.device)


class _Penalties(LogitsProcessor):  # type: ignore[misc]
    """OpenAI's penalties: https://platform.openai.com/docs/api-reference/chat/create (frequency_penalty)."""

    def __init__(self, prompt_width: int, frequency: float, presence: float) -> None:
        self._width = prompt_width
        self._frequency = frequency
        self._presence = presence

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        generated = input_ids[:, self._width :]
        counts = torch.zeros_like(scores).scatter_add_(
            1, generated, torch.ones_like(generated, dtype=scores.dtype)
        )
        return scores - self._frequency * counts - self._presence * (counts > 0)


def _forward(stream: TextStream, items: queue.SimpleQueue[Token | BaseException | None]) -> None:
    for token in stream.take():
        items.put(token)


@contextlib.contextmanager
def _seeded(seed: int | None, device: torch.device) -> Iterator[None]:
    """Draw with this seed inside, and go on outside as if nothing had been."""
    if seed is None:
        yield
        return
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def _max_length(config: Any) -> int:
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    for name in ("max_position_embeddings", "n_positions", "n_ctx", "seq_length", "max_seq_len"):
        value = getattr(text, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return 4096


def _eos_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    stated = getattr(model.generation_config, "eos_token_id", None)
    if stated is None:
        stated = tokenizer.eos_token_id
    if stated is None:
        return frozenset()
    return frozenset(stated if isinstance(stated, (list, tuple)) else [stated])
