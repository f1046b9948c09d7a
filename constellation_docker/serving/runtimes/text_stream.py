"""Makes text of generated tokens as they come, and holds back what may become a stop text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .generation import Token

_INCOMPLETE = "\ufffd"
"""What a tokenizer decodes the first bytes of a character to, until the others have come."""


class TextStream:
    """The text of one generation.

    Args:
        tokenizer: transformers' tokenizer.
        eos: Tokens that end the text.
        special: Tokens that are no text.
        stops: Texts that end it; the text is cut before the first of them.

    Attributes:
        text: What has been read of it.
        is_complete: Whether it has ended.
        finish_reason: Why it ended: `length` until something else ends it.
    """

    def __init__(
        self, tokenizer: Any, eos: frozenset[int], special: frozenset[int], stops: Sequence[str]
    ) -> None:
        self._tokenizer = tokenizer
        self._eos = eos
        self._special = special
        self._stops = tuple(stops)
        self._ids: list[int] = []
        self._decoded_from = 0
        self._read_to = 0
        self._given = 0
        self._waiting: list[Token] = []
        self._ready: list[Token] = []
        self.text = ""
        self.is_complete = False
        self.finish_reason = "length"

    def push(self, token: int, logprob: float, alternatives: tuple[tuple[int, float], ...] = ()) -> None:
        """Read the next token."""
        from .generation import Token

        if token in self._eos:
            self._waiting.append(Token(token, "", logprob, True, alternatives))
            self._end("eos_token")
            return
        is_special = token in self._special
        piece = "" if is_special else self._decode(token)
        self._waiting.append(Token(token, piece, logprob, is_special, alternatives))
        self.text += piece
        if not piece and not is_special:
            # Part of a character: it is shown with the token that completes it.
            return
        if not self._stops:
            self._release()
            return
        found = [
            place for stop in self._stops if (place := self.text.find(stop, self._search_from(stop))) >= 0
        ]
        if found:
            self._cut(min(found))
            self._end("stop_sequence")
        elif not self._may_become_stop():
            self._release()

    def finish(self) -> None:
        """Nothing more comes: a character that never got complete is read as it is."""
        if not self.is_complete:
            rest = self._tokenizer.decode(self._ids[self._decoded_from :])[len(self._prefix()) :]
            if rest and self._waiting:
                self._waiting[-1].text += rest
                self.text += rest
            self._release()

    def take(self) -> Iterator[Token]:
        """The tokens that can be shown, each once."""
        ready, self._ready = self._ready, []
        yield from ready

    def _decode(self, token: int) -> str:
        """What the token adds. Decoding the last few together keeps the spaces between words right."""
        self._ids.append(token)
        whole = self._tokenizer.decode(self._ids[self._decoded_from :])
        prefix = self._prefix()
        if whole.endswith(_INCOMPLETE) or len(whole) <= len(prefix):
            return ""
        self._decoded_from, self._read_to = self._read_to, len(self._ids)
        return str(whole[len(prefix) :])

    def _prefix(self) -> str:
        return str(self._tokenizer.decode(self._ids[self._decoded_from : self._read_to]))

    def _search_from(self, stop: str) -> int:
        return max(0, self._given - len(stop) + 1)

    def _may_become_stop(self) -> bool:
        return any(
            self.text.endswith(stop[:size]) for stop in self._stops for size in range(len(stop) - 1, 0, -1)
        )

    def _cut(self, place: int) -> None:
        surplus = len(self.text) - place
        self.text = self.text[:place]
        for token in reversed(self._waiting):
            kept = max(0, len(token.text) - surplus)
            surplus -= len(token.text) - kept
            token.text = token.text[:kept]

    def _end(self, reason: str) -> None:
        self._release()
        self.is_complete = True
        self.finish_reason = reason

    def _release(self) -> None:
        self._ready += self._waiting
        self._waiting = []
        self._given = len(self.text)
