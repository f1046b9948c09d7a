"""Reads request bodies: JSON, text, and raw bytes that may come as base64."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from ..model import BadRequest, InvalidParameters, Request, UnsupportedMedia
from ..strict_json import parse_json

MAX_INPUTS = 2048
"""Most inputs in one request, as the OpenAI embeddings route has it."""

_JSON_TYPES = frozenset({"application/json", "application/x-www-form-urlencoded"})
"""curl sends the second with `-d`; the body is taken for what it is."""


def media_type(request: Request) -> str | None:
    """The content type without its parameters, in lower case; None where the client sent none."""
    if not request.content_type:
        return None
    return request.content_type.partition(";")[0].strip().lower() or None


def read_object(request: Request, *, is_text_allowed: bool = False) -> dict[str, Any]:
    """The JSON object that a request carries.

    Args:
        request: The request.
        is_text_allowed: Whether a `text/plain` body stands for `{"inputs": <the text>}`.

    Raises:
        UnsupportedMedia: the content type is not JSON.
        BadRequest: the body is not JSON.
        InvalidParameters: it is JSON and no object.
    """
    kind = media_type(request)
    if is_text_allowed and kind == "text/plain":
        return {"inputs": decode_text(request.body)}
    if kind is not None and kind not in _JSON_TYPES and not kind.endswith("+json"):
        raise UnsupportedMedia(f"This model takes application/json, not {kind[:80]}.")
    document = parse_json(request.body)
    if not isinstance(document, dict):
        raise InvalidParameters('The body must be a JSON object, such as {"inputs": …}.')
    return document


def decode_text(body: bytes) -> str:
    """A body of plain text; raises BadRequest where it is not UTF-8."""
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise BadRequest(f"The body is not UTF-8: byte {problem.start} is wrong.") from None


def read_envelope(
    document: dict[str, Any], *, others: Collection[str] = ("options",)
) -> tuple[Any, dict[str, Any] | None]:
    """The `inputs` and `parameters` of a request.

    Args:
        document: The request's JSON object.
        others: Further keys that are allowed. `options` (`use_cache`, `wait_for_model`) is what older
            clients of the hosted API send; it has no meaning here.

    Raises:
        InvalidParameters: `inputs` is missing, or there is a key that no client of this task sends.
    """
    unknown = [key for key in document if key not in ("inputs", "parameters", *others)]
    if unknown:
        raise InvalidParameters(
            f"The key {unknown[0][:60]!r} is not known here; a request has `inputs` and `parameters`."
        )
    if document.get("inputs") is None:
        raise InvalidParameters("The key `inputs` is missing.")
    return document["inputs"], document.get("parameters")


@dataclass(frozen=True, slots=True)
class Texts:
    """The texts of a request, and whether they came as a list, since the answer then is one too."""

    items: list[str]
    is_list: bool


def read_texts(inputs: Any, *, of: str = "inputs") -> Texts:
    """One string, or a list of them.

    Raises:
        InvalidParameters: it is something else, an empty or too long list, or not Unicode.
    """
    if isinstance(inputs, str):
        return Texts([check_text(inputs, of=of)], is_list=False)
    if isinstance(inputs, list):
        check_count(inputs, of=of)
        return Texts([check_text(item, of=of) for item in inputs], is_list=True)
    raise InvalidParameters(f"`{of}` must be a string or a list of strings.")


def check_count(items: list[Any], *, of: str) -> None:
    """Raises InvalidParameters for a list that is empty or longer than MAX_INPUTS."""
    if not items:
        raise InvalidParameters(f"`{of}` is an empty list.")
    if len(items) > MAX_INPUTS:
        raise InvalidParameters(f"`{of}` holds {len(items)} items; at most {MAX_INPUTS} are taken.")


def check_text(text: Any, *, of: str) -> str:
    """The text; raises InvalidParameters where it is none."""
    if not isinstance(text, str):
        raise InvalidParameters(f"`{of}` must be a string or a list of strings.")
    return text


@dataclass(frozen=True, slots=True)
class Binary:
    """A body of raw bytes, with the parameters that came beside them."""

    content: bytes
    parameters: dict[str, Any] | None


def read_binary(request: Request, *, family: str) -> Binary:
    """The raw bytes that a request carries: as its body, or as base64 in `inputs`.

    `InferenceClient` sends raw bytes, with a guessed content type or none at all, and base64 in JSON when
    there are parameters.

    Args:
        request: The request.
        family: The kinds of content type that are taken, such as `image`.

    Raises:
        UnsupportedMedia: the content type is another one.
        BadRequest: the body is empty, or not the JSON that it says it is.
        InvalidParameters: `inputs` is not base64.
    """
    kind = media_type(request)
    is_json = kind in _JSON_TYPES or (kind is None and request.body[:64].lstrip()[:1] == b"{")
    if is_json:
        inputs, parameters = read_envelope(read_object(request))
        return Binary(read_base64(inputs, family=family), parameters)
    if kind is not None and kind != "application/octet-stream" and not kind.startswith(f"{family}/"):
        raise UnsupportedMedia(
            f"This model takes {family}/*, application/octet-stream or application/json, not {kind[:80]}."
        )
    if not request.body:
        raise BadRequest(f"The body is empty; send the bytes of an {family} file.")
    return Binary(request.body, None)


def read_base64(inputs: Any, *, family: str) -> bytes:
    """The bytes of a base64 string or a `data:` URL.

    Raises:
        InvalidParameters: it is another kind of URL (nothing is ever fetched), or not base64.
    """
    if not isinstance(inputs, str):
        raise InvalidParameters(f"`inputs` must be the {family} as a base64 string.")
    if inputs.startswith(("http://", "https://")):
        raise InvalidParameters(
            f"`inputs` is a URL, and this server fetches nothing; send the {family} itself."
        )
    if inputs.startswith("data:"):
        head, comma, inputs = inputs.partition(",")
        if not comma or not head.endswith(";base64"):
            raise InvalidParameters("`inputs` is a data: URL that is not base64.")
    try:
        content = base64.b64decode(inputs, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidParameters(
            f"`inputs` must be the {family} as a base64 string, and this is not base64."
        ) from None
    if not content:
        raise InvalidParameters(f"`inputs` is empty; send the {family} as a base64 string.")
    return content
