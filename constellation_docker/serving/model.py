"""What a model is to the server: one protocol, one request, one call, and the errors a client may see."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class Request:
    """One inference request as it came over the wire.

    Attributes:
        body: The whole body, already below the body-size limit.
        content_type: The `Content-Type` header as sent, or None; `InferenceClient` sends none with
            raw bytes.
        accept: The `Accept` header as sent, or None.
        path: `/` (also stands for `/predict`), `/v1/chat/completions` or `/v1/embeddings`.
        query: The decoded query parameters; of a repeated one the last.
    """

    body: bytes
    content_type: str | None = None
    accept: str | None = None
    path: str = "/"
    query: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Call:
    """One parsed request, ready to run.

    Attributes:
        inputs: What the task works on, in the task's own form.
        parameters: The checked parameters.
        path: The route it came through, so that the answer takes that route's form.
        is_streaming: Whether the client asked for server-sent events; the server then calls
            `Model.stream` instead of `Model.run`.
        size: How many rows the call adds to a batch (a list of three texts is 3). The sizes in a
            batch never add up to more than `max_batch_size`, except for one call that alone is larger.
        context: Anything the model wants to carry from `parse` to `run`.
    """

    inputs: Any
    parameters: dict[str, Any] = field(default_factory=dict)
    path: str = "/"
    is_streaming: bool = False
    size: int = 1
    context: Any = None


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """An answer that is not JSON: the bytes and their media type, for example an image."""

    body: bytes
    content_type: str = "application/octet-stream"


@runtime_checkable
class Model(Protocol):
    """A loaded model. `run`, `stream` and `warm_up` are only ever called on the one model thread."""

    task: str
    """The Hugging Face task, for example `text-classification`."""
    runtime: str
    """`onnx`, `transformers` or `custom`."""
    device: str
    """Where it computes: `cpu`, `cuda:0`…"""
    max_batch_size: int
    """Most rows of one `run`; 1 means that calls are never put together."""
    paths: frozenset[str]
    """The routes it answers, of `/`, `/v1/chat/completions` and `/v1/embeddings`."""

    def parse(self, request: Request) -> Call:
        """Check the request and make a call of it. Cheap: it runs in the event loop's thread.

        Raises:
            BadRequest: the body is malformed.
            UnsupportedMedia: the content type is not one that the task takes.
            InvalidParameters: the body is well-formed and its values cannot be used.
        """
        ...

    def batch_key(self, call: Call) -> Hashable:
        """Calls with equal keys may run together."""
        ...

    def run(self, calls: Sequence[Call]) -> Sequence[Any]:
        """Answer the calls, in their order. Blocking.

        Returns:
            One item a call: a JSON value (numpy scalars and arrays are allowed), a `RawAnswer`, or an
            exception for a call that failed alone.
        """
        ...

    def stream(self, call: Call) -> Iterator[Any] | None:
        """Answer in pieces: each item is a JSON value, or a string that is sent as it is (`[DONE]`).

        Returns:
            An iterator, closed early when the client goes away; None where this model cannot stream.
        """
        ...

    def schema(self) -> dict[str, dict[str, Any]]:
        """JSON Schemas for the OpenAPI document, per route: `{"/": {"request": …, "response": …}, …}`.

        Two further keys are understood: `media_types`, a list of content types taken as raw bytes
        (`image/*`), and `streams`, true where the route can answer with server-sent events.
        """
        ...

    def warm_up(self) -> None:
        """Run once, so that the first client does not pay for what is made lazily."""
        ...


class ServingError(Exception):
    """An error that a client may read. Its message is sent as it is, so it holds no secrets and no paths.

    Args:
        message: One sentence: what is wrong with the request, and what would be right.
        error_type: Overrides the class's; one of Text Generation Inference's names where one fits, since
            `InferenceClient` maps `validation`, `overloaded`, `generation` to exceptions of their own.
        retry_after_seconds: Sent as `Retry-After`.
    """

    status: ClassVar[int] = 500
    error_type: str = "internal"

    def __init__(
        self, message: str, *, error_type: str | None = None, retry_after_seconds: int | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_seconds = retry_after_seconds
        if error_type is not None:
            self.error_type = error_type


class BadRequest(ServingError):
    """The request is malformed."""

    status = 400
    error_type = "bad_request"


class NotFound(ServingError):
    """There is nothing at this path, or this model does not answer it."""

    status = 404
    error_type = "not_found"


class MethodNotAllowed(ServingError):
    """The path exists and does not take this method."""

    status = 405
    error_type = "method_not_allowed"


class SlowRequest(ServingError):
    """The request did not arrive in time."""

    status = 408
    error_type = "request_timeout"


class TooLarge(ServingError):
    """The body, or an input inside it, is larger than this server takes."""

    status = 413
    error_type = "too_large"


class UnsupportedMedia(ServingError):
    """The content type is not one that the task takes."""

    status = 415
    error_type = "unsupported_media_type"


class InvalidParameters(ServingError):
    """The request is well-formed, and its values cannot be used."""

    status = 422
    error_type = "validation"


class Overloaded(ServingError):
    """The queue is full; the client should come back."""

    status = 429
    error_type = "overloaded"


class HeadersTooLarge(ServingError):
    """The request line or the headers are larger than this server takes."""

    status = 431
    error_type = "headers_too_large"


class ModelFault(ServingError):
    """The model failed on a request that was right."""

    status = 500
    error_type = "generation"


class Unavailable(ServingError):
    """The model is still loading, or the server is stopping."""

    status = 503
    error_type = "unavailable"


class DeadlineExceeded(ServingError):
    """The answer was not ready in time."""

    status = 504
    error_type = "timeout"


class LoadFailed(Exception):
    """The model cannot be loaded. Its message is the one sentence that the log ends with."""
