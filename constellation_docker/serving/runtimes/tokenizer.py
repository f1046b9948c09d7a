"""Text to tokens, with the model's own limit of length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from tokenizers import Encoding, Tokenizer

from ..model import InvalidParameters, LoadFailed
from .repository import Repository

MAX_TOKENS = 8192
"""Upper bound for models that state no limit of their own."""

_CHARACTERS_PER_TOKEN = 64
"""A text longer than this many characters for every token that fits is cut before it is tokenized, so that a
million characters do not hold up the others. Tokens after the limit are dropped anyway; the cut is widened
until the part that is kept fills the limit."""

_OFFSET_POSITIONS = frozenset(
    {"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "longformer", "data2vec-text", "ibert",
     "roberta-prelayernorm", "xmod", "esm", "layoutlmv3", "led"}
)  # fmt: skip
"""Model types whose position numbers start after the padding token's, so that config.json's
`max_position_embeddings` is larger than what fits."""

Text = str | tuple[str, str]
Strategy = Literal["longest_first", "only_first"]
Direction = Literal["left", "right"]


class TextTokenizer:
    """A fast tokenizer with the padding token and the limit that the model's files state.

    Args:
        tokenizer: The tokenizer; its own truncation and padding are switched off.
        repository: The model's files.
        strategy: What is cut of a pair that is too long.

    Attributes:
        core: The tokenizer itself.
        max_length: Most tokens of one input, special tokens included.
        pad_id: The padding token's id.
        padding_side: Where padding goes.
    """

    def __init__(
        self, tokenizer: Tokenizer, repository: Repository, *, strategy: Strategy = "longest_first"
    ) -> None:
        self.max_length = resolve_max_length(repository)
        padding: dict[str, Any] = tokenizer.padding or {}
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self.core = tokenizer
        self.pad_id = _resolve_pad_id(tokenizer, repository, padding)
        self.pad_type_id = int(padding.get("pad_type_id", 0))
        self.padding_side: Direction = (
            "left" if repository.tokenizer_config.get("padding_side") == "left" else "right"
        )
        self.truncation_side: Direction = (
            "left" if repository.tokenizer_config.get("truncation_side") == "left" else "right"
        )
        self._strategy: Strategy = strategy
        self._truncation: tuple[Direction, int] | None = None
        self._characters = self.max_length * _CHARACTERS_PER_TOKEN

    @classmethod
    def load(cls, repository: Repository, *, strategy: Strategy = "longest_first") -> TextTokenizer:
        """Load the repository's tokenizer.json.

        Raises:
            LoadFailed: there is none, or this version of tokenizers cannot read it.
        """
        path = repository.path / "tokenizer.json"
        if not path.is_file():
            raise LoadFailed("the repository has no tokenizer.json, which the onnx runtime needs")
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as problem:  # noqa: BLE001  tokenizers raises nothing narrower
            raise LoadFailed(f"tokenizer.json cannot be read: {str(problem)[:300]}") from None
        return cls(tokenizer, repository, strategy=strategy)

    def encode(
        self,
        texts: Sequence[Text],
        *,
        direction: Direction | None = None,
        stride: int = 0,
        are_offsets_needed: bool = False,
    ) -> list[Encoding]:
        """Tokenize, cutting what exceeds the limit.

        Args:
            texts: Texts or pairs of texts.
            direction: The side that is cut; the tokenizer's own where None.
            stride: How many tokens the windows in `overflowing` share with their neighbours; 0 where the
                windows are not read, which allows very long texts to be cut before they are tokenized.
            are_offsets_needed: Whether `offsets` are read; they cost time.

        Returns:
            One encoding a text; `overflowing` is not empty where something was cut.

        Raises:
            InvalidParameters: a pair does not fit even with its first text cut away.
        """
        side = direction or self.truncation_side
        if (side, stride) != self._truncation:
            self.core.enable_truncation(
                self.max_length, strategy=self._strategy, direction=side, stride=stride
            )
            self._truncation = (side, stride)
        short = texts if stride else [self._shorten(text, side) for text in texts]
        encode = self.core.encode_batch if are_offsets_needed else self.core.encode_batch_fast
        try:
            return encode(short)
        except Exception as problem:
            # tokenizers raises nothing narrower, and nothing else can fail on a str.
            raise InvalidParameters(
                f"An input cannot be cut to the {self.max_length} tokens that this model reads."
            ) from problem

    def require_fit(self, encodings: Sequence[Encoding]) -> None:
        """Raises InvalidParameters where something was cut."""
        if any(encoding.overflowing for encoding in encodings):
            raise InvalidParameters(
                f"An input is longer than the {self.max_length} tokens that this model reads; send a shorter one."
            )

    def _shorten(self, text: Text, side: Direction) -> Text:
        if isinstance(text, tuple):
            return (self._cut(text[0], side), self._cut(text[1], side))
        return self._cut(text, side)

    def _cut(self, text: str, side: Direction) -> str:
        size = self._characters
        while len(text) > size:
            part = text[:size] if side == "right" else text[-size:]
            if len(self.core.encode(part, add_special_tokens=False).ids) >= self.max_length:
                return part
            size *= 8
        return text


def resolve_max_length(repository: Repository) -> int:
    """Most tokens of one input: the least that the model's files state.

    `tokenizer_config.json` has `model_max_length`, `sentence_bert_config.json` has `max_seq_length`,
    `config.json` has `max_position_embeddings`.
    """
    limits = [
        repository.tokenizer_config.get("model_max_length"),
        repository.read_object("sentence_bert_config.json").get("max_seq_length"),
    ]
    positions = repository.config.get("max_position_embeddings")
    if isinstance(positions, int):
        if repository.config.get("model_type") in _OFFSET_POSITIONS:
            positions -= int(repository.config.get("pad_token_id") or 0) + 1
        limits.append(positions)
    stated = [int(limit) for limit in limits if isinstance(limit, (int, float)) and limit > 0]
    return max(1, min([*stated, MAX_TOKENS]))


def find_special_token(tokenizer: Tokenizer, repository: Repository, name: str) -> int | None:
    """The id of a special token such as `mask_token`, or None where the repository names none."""
    for source in (repository.tokenizer_config, repository.read_object("special_tokens_map.json")):
        token = source.get(name)
        content = token.get("content") if isinstance(token, dict) else token
        if isinstance(content, str):
            found = tokenizer.token_to_id(content)
            if found is not None:
                return int(found)
    return None


def _resolve_pad_id(tokenizer: Tokenizer, repository: Repository, padding: dict[str, Any]) -> int:
    found = find_special_token(tokenizer, repository, "pad_token")
    if found is not None:
        return found
    if "pad_id" in padding:
        return int(padding["pad_id"])
    for key in ("pad_token_id", "eos_token_id"):
        value = repository.config.get(key)
        if isinstance(value, int):
            return value
    return 0
