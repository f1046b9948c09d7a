"""feature-extraction, sentence-similarity and /v1/embeddings: vectors of texts."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
from tokenizers import Encoding

from ..model import Call, InvalidParameters, Request
from ..runtimes.encoder import TextEncoder
from ..runtimes.network import Array
from ..runtimes.pooling import Pooling, load_pooling, normalize
from ..runtimes.repository import Repository
from .parameter import Parameter, read_parameters
from .payload import check_count, check_text, read_envelope, read_object, read_texts
from .scores import require_finite
from .text_task import TEXTS_SCHEMA, TextTask

ROOT = "/"
OPENAI = "/v1/embeddings"

NORMALIZE = Parameter("normalize", "boolean", "Scale vectors to length 1; else as the model says.")
DIMENSIONS = Parameter("dimensions", "integer", "Only the first so many numbers of each vector.", minimum=1)
PROMPT_NAME = Parameter("prompt_name", "string", "Which of the model's prompts to put before each text.")
TRUNCATE = Parameter("truncate", "boolean", "Cut texts that are too long (true) or refuse them (false).")
DIRECTION = Parameter(
    "truncation_direction", "string", "Which side is cut.", choices=("left", "right", "Left", "Right")
)
ROOT_PARAMETERS = (
    NORMALIZE,
    TRUNCATE,
    DIRECTION,
    PROMPT_NAME,
    DIMENSIONS,
    Parameter("encoding_format", "string", "Only /v1/embeddings has others.", choices=("float",)),
)
OPENAI_PARAMETERS = (
    Parameter("model", "string", "Not looked at: this server has one model."),
    Parameter("encoding_format", "string", "Lists, or float32 in base64.", "float", ("float", "base64")),
    DIMENSIONS,
    Parameter("user", "string", "Not looked at."),
)


class Embedding(TextTask):
    """Vectors of texts.

    A sentence-transformers repository gives one vector a text, pooled as it says. Any other gives, on `POST /`,
    one vector a token, as transformers' pipeline does; where one vector a text is asked for (sentence
    similarity, /v1/embeddings), the tokens' mean, as sentence-transformers does with such a model.

    `POST /` takes both tasks, told apart by the form of `inputs`, since the Hub has them interchangeable.
    """

    paths = frozenset({ROOT, OPENAI})

    def __init__(self, encoder: TextEncoder, repository: Repository, *, task: str, **options: Any) -> None:
        super().__init__(encoder, repository, **options)
        self.task = task
        found = load_pooling(repository)
        self._is_sentence_model = found is not None
        self._pooling = found or Pooling()
        outputs = encoder.network.output_names
        wanted = ("sentence_embedding", "last_hidden_state", "token_embeddings")
        self.output = next((name for name in wanted if name in outputs), None)

    def parse(self, request: Request) -> Call:
        """See `Model.parse`."""
        if request.path == OPENAI:
            return self._read_openai(read_object(request))
        document = read_object(request, is_text_allowed=True)
        names = {parameter.name for parameter in ROOT_PARAMETERS}
        at_root = {key: document[key] for key in names & document.keys()}
        inputs, nested = read_envelope(document, others={"options", *names})
        if nested is not None and not isinstance(nested, dict):
            raise InvalidParameters("`parameters` must be an object.")
        parameters = read_parameters({**(nested or {}), **at_root}, ROOT_PARAMETERS, of=self.task)
        return self.read_call(inputs, parameters)

    def read_call(self, inputs: Any, parameters: dict[str, Any]) -> Call:
        """Texts to embed, or one sentence to compare with others."""
        if isinstance(inputs, dict):
            return self._read_comparison(inputs, parameters)
        texts = read_texts(inputs)
        return self._call(texts.items, parameters, form="list" if texts.is_list else "one")

    def _read_comparison(self, inputs: dict[str, Any], parameters: dict[str, Any]) -> Call:
        if set(inputs) != {"source_sentence", "sentences"}:
            raise InvalidParameters(
                '`inputs` must be a text, a list of texts, or {"source_sentence", "sentences"}.'
            )
        source = check_text(inputs["source_sentence"], of="inputs.source_sentence")
        sentences = inputs["sentences"]
        if not isinstance(sentences, list):
            raise InvalidParameters("`inputs.sentences` must be a list of strings.")
        check_count(sentences, of="inputs.sentences")
        texts = [source, *(check_text(sentence, of="inputs.sentences") for sentence in sentences)]
        return self._call(texts, parameters, form="comparison")

    def _read_openai(self, document: dict[str, Any]) -> Call:
        given = dict(document)
        inputs = given.pop("input", None)
        if inputs is None:
            raise InvalidParameters("The key `input` is missing.")
        if isinstance(inputs, list) and inputs and isinstance(inputs[0], (int, list)):
            raise InvalidParameters("`input` holds token ids; this server takes texts only.")
        texts = read_texts(inputs, of="input")
        parameters = read_parameters(given, OPENAI_PARAMETERS, of=OPENAI)
        call = self._call(texts.items, parameters, form="openai")
        call.path = OPENAI
        return call

    def _call(self, texts: Sequence[str], parameters: dict[str, Any], *, form: str) -> Call:
        prompt = self._choose_prompt(parameters.get("prompt_name"))
        return Call([prompt + text for text in texts], parameters, size=len(texts), context=(form, prompt))

    def _choose_prompt(self, name: str | None) -> str:
        prompts = self._pooling.prompts
        if name is None:
            return prompts.get(self._pooling.default_prompt or "", "")
        if name not in prompts:
            known = ", ".join(sorted(prompts)) or "none"
            raise InvalidParameters(
                f"The parameter `prompt_name` must be one of the model's prompts: {known}."
            )
        return prompts[name]

    def encode(self, call: Call) -> list[Encoding]:
        """See `TextTask.encode`."""
        direction = call.parameters.get("truncation_direction")
        encodings = self.encoder.tokenizer.encode(
            call.inputs, direction=direction and direction.lower(), are_offsets_needed=False
        )
        if call.parameters.get("truncate") is False:
            self.encoder.tokenizer.require_fit(encodings)
        if call.parameters.get("truncate") is None:
            self.check_length(call, encodings)
        if any(len(encoding) == 0 for encoding in encodings):
            raise InvalidParameters("An input is empty: it has no tokens.")
        return encodings

    def answer(self, call: Call, encodings: Sequence[Encoding], rows: Sequence[Array]) -> Any:
        """See `TextTask.answer`."""
        form, prompt = call.context
        for row in rows:
            require_finite(row)
        if form in ("one", "list") and not self._is_sentence_model and rows[0].ndim > 1:
            # Arrays are rendered as they are: lists of floats would take ten times as long.
            tokens = [self._finish(row, call.parameters) for row in rows]
            return tokens if form == "list" else tokens[0]
        skipped = 0 if self._pooling.are_prompts_pooled or not prompt else self._count_tokens(prompt)
        vectors = np.stack([self._pooling.pool(row, skipped=skipped) for row in rows])
        if form == "comparison":
            return compare(vectors[0], vectors[1:], self._pooling.similarity)
        vectors = self._finish(vectors, call.parameters)
        if form == "openai":
            return self._answer_openai(call, encodings, vectors)
        return vectors if form == "list" else vectors[0]

    def _finish(self, vectors: Array, parameters: dict[str, Any]) -> Array:
        dimensions = parameters.get("dimensions")
        if dimensions is not None:
            if dimensions > vectors.shape[-1]:
                raise InvalidParameters(f"The parameter `dimensions` must be at most {vectors.shape[-1]}.")
            vectors = vectors[..., :dimensions]
        wanted = parameters.get("normalize")
        # What OpenAI's route answers has length 1; clients compare with a dot product.
        is_openai = "user" in parameters
        return normalize(vectors) if wanted or self._pooling.is_normalized or is_openai else vectors

    def _answer_openai(self, call: Call, encodings: Sequence[Encoding], vectors: Array) -> dict[str, Any]:
        is_packed = call.parameters["encoding_format"] == "base64"
        embeddings: list[Any] = [
            base64.b64encode(vector.astype("<f4").tobytes()).decode() if is_packed else vector
            for vector in vectors
        ]
        tokens = sum(len(encoding) for encoding in encodings)
        return {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": embedding}
                for index, embedding in enumerate(embeddings)
            ],
            "model": call.parameters["model"] or self.repository.config.get("_name_or_path") or self.task,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }

    def _count_tokens(self, prompt: str) -> int:
        """Tokens that the prompt puts at the start: its own, and the special one before it."""
        core = self.encoder.tokenizer.core
        return len(core.encode(prompt).ids) - (1 if core.num_special_tokens_to_add(is_pair=False) > 1 else 0)

    def schema(self) -> dict[str, dict[str, Any]]:
        """See `Model.schema`."""
        comparison = {
            "type": "object",
            "required": ["source_sentence", "sentences"],
            "properties": {
                "source_sentence": {"type": "string"},
                "sentences": {"type": "array", "items": {"type": "string"}, "minItems": 1},
            },
            "additionalProperties": False,
        }
        is_similarity = self.task == "sentence-similarity"
        kinds = (
            [comparison, *TEXTS_SCHEMA["anyOf"]] if is_similarity else [*TEXTS_SCHEMA["anyOf"], comparison]
        )
        root = {
            "type": "object",
            "required": ["inputs"],
            "properties": {
                "inputs": {"description": "Texts to embed, or one to compare with others.", "anyOf": kinds},
                **{parameter.name: parameter.schema() for parameter in ROOT_PARAMETERS},
            },
        }
        openai = {
            "type": "object",
            "required": ["input"],
            "properties": {
                "input": TEXTS_SCHEMA,
                **{parameter.name: parameter.schema() for parameter in OPENAI_PARAMETERS},
            },
            "additionalProperties": False,
        }
        return {
            ROOT: {
                "request": root,
                "response": {"description": "Numbers, nested as the input.", "type": "array"},
            },
            OPENAI: {
                "request": openai,
                "response": {"type": "object", "required": ["object", "data", "model", "usage"]},
            },
        }


def compare(source: Array, others: Array, similarity: str) -> Array:
    """How alike one vector is to others, as sentence-transformers' `similarity` has it.

    Args:
        source: Shape `(size,)`.
        others: Shape `(count, size)`.
        similarity: `cosine`, `dot`, `euclidean` or `manhattan` (the last two negative: more is more alike).
    """
    if similarity == "dot":
        return others @ source
    if similarity == "euclidean":
        return -np.linalg.norm(others - source, axis=1)  # type: ignore[no-any-return]
    if similarity == "manhattan":
        return -np.abs(others - source).sum(axis=1)  # type: ignore[no-any-return]
    return normalize(others) @ normalize(source)
