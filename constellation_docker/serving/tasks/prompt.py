"""What the routes that generate text have in common: a prompt, and a form of asking and answering."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..runtimes.generation import Generated, Sampling, Token


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a route made of a request.

    Attributes:
        texts: Prompts to continue.
        sampling: How.
        are_special_tokens_added: Not for a chat template, which writes them itself.
        is_cut: Whether a prompt that is too long loses its beginning; else it is refused.
        truncate: Most last tokens of the prompt to keep, or None.
    """

    texts: tuple[str, ...]
    sampling: Sampling
    are_special_tokens_added: bool = True
    is_cut: bool = False
    truncate: int | None = None


class Format(Protocol):
    """One route: how it asks, and how it is answered."""

    def read(self, document: dict[str, Any]) -> tuple[Prompt, dict[str, Any], bool]:
        """The prompt, the checked parameters, and whether to stream."""
        ...

    def answer(self, parameters: dict[str, Any], prompt: Prompt, results: Sequence[Generated]) -> Any:
        """The answer in one piece."""
        ...

    def stream(
        self, parameters: dict[str, Any], prompt: Prompt, items: Iterator[Token | Generated]
    ) -> Iterator[Any]:
        """The answer piece by piece."""
        ...

    def schema(self) -> dict[str, Any]:
        """JSON Schemas of request and response."""
        ...
