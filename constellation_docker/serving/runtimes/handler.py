"""The repository's own code: `handler.py` with a class `EndpointHandler`, as on Hugging Face endpoints.

`EndpointHandler(path)` is made once; `__call__(data)`, sync or async, gets what
huggingface-inference-toolkit passes: the JSON object as it came, or `{"inputs": …}` for other bodies, with an
image opened by pillow where that is installed. Beyond that contract a handler may declare

* `max_batch_size: int` and `run_batch(requests) -> answers`, to be called with several requests at once;
* `paths`, to answer `/v1/chat/completions` or `/v1/embeddings` as well;
* `warm_up()`, called before the server says that it is ready.

A generator that it returns is sent as server-sent events where the request says `"stream": true`. An exception
with a `status_code` from 400 to 499 (as Starlette's `HTTPException` has) is the client's fault; any other is
the model's.
"""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import io
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..config import Config
from ..model import (
    BadRequest,
    Call,
    InvalidParameters,
    LoadFailed,
    ModelFault,
    NotFound,
    Overloaded,
    RawAnswer,
    Request,
    ServingError,
    TooLarge,
    Unavailable,
    UnsupportedMedia,
)
from ..tasks.payload import decode_text, media_type, read_base64, read_object
from .json_value import encode_image, to_json_value

CLASS = "EndpointHandler"
ROUTES = frozenset({"/", "/v1/chat/completions", "/v1/embeddings"})

_AUDIO_TASKS = frozenset({"automatic-speech-recognition", "audio-classification"})
_IMAGE_STARTS = (b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\x00", b"MM\x00*")
_UNUSED_ARGUMENTS = "The following `model_kwargs` are not used by the model"
"""`InferenceClient` looks for this sentence in a 400, and sends the request again without them."""

_BY_STATUS: dict[int, type[ServingError]] = {
    404: NotFound,
    413: TooLarge,
    415: UnsupportedMedia,
    422: InvalidParameters,
    429: Overloaded,
    503: Unavailable,
}


class HandlerModel:
    """A repository's `EndpointHandler`.

    Args:
        handler: The instance.
        task: The card's task, or None.
    """

    runtime = "custom"

    def __init__(self, handler: Callable[[dict[str, Any]], Any], *, task: str | None) -> None:
        self._handler = handler
        self.task = task or "custom"
        self.device = str(getattr(handler, "device", "cpu"))
        self._run_batch = getattr(handler, "run_batch", None)
        declared = getattr(handler, "max_batch_size", 1)
        is_batching = callable(self._run_batch) and isinstance(declared, int) and declared > 1
        self.max_batch_size = int(declared) if is_batching else 1
        self.paths = (frozenset(getattr(handler, "paths", ())) & ROUTES) or frozenset({"/"})
        # One loop for the handler's life: what it opened in one request must still work in the next.
        self._loop = asyncio.new_event_loop()

    def parse(self, request: Request) -> Call:
        """See `Model.parse`."""
        data = read_data(request, task=self.task)
        is_streaming = isinstance(data, dict) and data.get("stream") is True
        return Call(data, path=request.path, is_streaming=is_streaming, context=request.accept)

    def batch_key(self, call: Call) -> Hashable:
        """Requests of one route may go together, where the handler takes several at all."""
        return call.path

    def run(self, calls: Sequence[Call]) -> Sequence[Any]:
        """See `Model.run`."""
        if len(calls) > 1 and self._run_batch is not None:
            return self._run_together(calls)
        return [self._attempt(call) for call in calls]

    def stream(self, call: Call) -> Iterator[Any]:
        """The pieces that the handler yields; one piece where it answers at once."""
        result = self._guard(lambda: self._await(self._handler(_open(call.inputs))))
        if inspect.isasyncgen(result) or isinstance(result, AsyncIterator):
            result = self._drain(result)
        pieces = result if isinstance(result, Iterator) else iter([result])
        try:
            while True:
                piece = self._guard(lambda: next(pieces, _END))
                if piece is _END:
                    return
                yield to_json_value(piece)
        finally:
            if hasattr(pieces, "close"):
                pieces.close()

    def schema(self) -> dict[str, dict[str, Any]]:
        """Only the handler knows; anything that is an object goes in, any JSON comes out."""
        return {path: {"request": {"type": "object"}, "response": {}} for path in sorted(self.paths)}

    def warm_up(self) -> None:
        """The handler's own `warm_up`, where it has one."""
        warm_up = getattr(self._handler, "warm_up", None)
        if callable(warm_up):
            self._await(warm_up())

    def _run_together(self, calls: Sequence[Call]) -> Sequence[Any]:
        assert self._run_batch is not None
        run_batch = self._run_batch
        try:
            opened = [_open(call.inputs) for call in calls]
            answers = self._guard(lambda: self._await(run_batch(opened)))
            answers = list(answers)
        except (ServingError, TypeError):
            return [self._attempt(call) for call in calls]
        if len(answers) != len(calls):
            problem = ModelFault(
                f"The handler's run_batch returned {len(answers)} answers to {len(calls)} requests."
            )
            return [problem] * len(calls)
        return [_attempt_form(answer, call) for answer, call in zip(answers, calls, strict=True)]

    def _attempt(self, call: Call) -> Any:
        try:
            result = self._guard(lambda: self._await(self._handler(_open(call.inputs))))
            if inspect.isasyncgen(result):
                result = self._drain(result)
            if isinstance(result, Iterator):
                pieces = result
                result = self._guard(lambda: list(pieces))
        except ServingError as problem:
            return problem
        return _attempt_form(result, call)

    def _await(self, result: Any) -> Any:
        if inspect.isawaitable(result):
            return self._loop.run_until_complete(_as_coroutine(result))
        return result

    def _drain(self, pieces: AsyncIterator[Any]) -> Iterator[Any]:
        try:
            while True:
                try:
                    yield self._loop.run_until_complete(_as_coroutine(anext(pieces)))
                except StopAsyncIteration:
                    return
        finally:
            close = getattr(pieces, "aclose", None)
            if close is not None:
                self._loop.run_until_complete(close())

    def _guard(self, work: Callable[[], Any]) -> Any:
        """Run the handler's code: whatever it raises becomes an error that a client may see."""
        try:
            return work()
        except ServingError:
            raise
        except SystemExit as problem:
            raise ModelFault("The handler ended itself (sys.exit) instead of answering.") from problem
        except Exception as problem:
            raise _to_serving_error(problem) from problem


_END = object()


def load_handler(config: Config) -> HandlerModel:
    """Import the repository's handler and make its instance.

    Raises:
        LoadFailed: there is no such file or class, or making it failed.
    """
    name = config.handler or "handler.py"
    root = config.model_path.resolve()
    path = (root / name).resolve()
    if not path.is_relative_to(root) or not path.is_file():
        raise LoadFailed(f"the model repository has no {name}")
    handler_class = _import_class(path, root)
    try:
        handler = handler_class(str(config.model_path))
    except (Exception, SystemExit) as problem:
        raise LoadFailed(
            f"{CLASS}({str(config.model_path)!r}) in {name} raised {_describe(problem)}"
        ) from problem
    if not callable(handler):
        raise LoadFailed(f"{CLASS} in {name} has no __call__(data)")
    return HandlerModel(handler, task=config.task)


def read_data(request: Request, *, task: str) -> dict[str, Any]:
    """The `data` that a handler gets, as huggingface-inference-toolkit makes it; images are opened later.

    Raises:
        BadRequest: the body is not what its content type says.
        InvalidParameters: it is JSON and no object.
    """
    kind = media_type(request)
    starts_as_json = request.body[:64].lstrip()[:1] == b"{"
    is_form = kind == "application/x-www-form-urlencoded"
    if (
        kind == "application/json"
        or (kind or "").endswith("+json")
        or ((kind is None or is_form) and starts_as_json)
    ):
        data = read_object(request)
        if task in _AUDIO_TASKS and isinstance(data.get("inputs"), str) and "parameters" in data:
            data["inputs"] = read_base64(data["inputs"], family="audio")
    elif not request.body:
        raise BadRequest("The body is empty.")
    elif (kind or "").startswith("text/"):
        data = {"inputs": decode_text(request.body)}
    elif (kind or "").startswith("image/") or request.body.startswith(_IMAGE_STARTS):
        data = {"inputs": _UnopenedImage(request.body)}
    else:
        data = {"inputs": request.body}
    if request.query and "parameters" not in data:
        data["parameters"] = {key: _read_query_value(value) for key, value in request.query.items()}
    return data


class _UnopenedImage(bytes):
    """The bytes of an image; opening it is work for the model's thread, not for the server's."""


def _open(data: dict[str, Any]) -> dict[str, Any]:
    inputs = data.get("inputs")
    if not isinstance(inputs, _UnopenedImage):
        return data
    if importlib.util.find_spec("PIL") is None:
        return data | {"inputs": bytes(inputs)}
    from ..tasks.image import open_image

    return data | {"inputs": open_image(io.BytesIO(inputs))}


def _read_query_value(value: str) -> int | bool | str:
    if value.lower() in ("true", "false"):
        return value.lower() == "true"
    return int(value) if value.isdigit() and len(value) < 19 else value


def _attempt_form(result: Any, call: Call) -> Any:
    """The answer in the form that the client accepts, or the error that says why there is none."""
    wanted = (call.context or "").partition(";")[0].strip().lower()
    if wanted and "," not in wanted and not wanted.endswith(("/*", "json")):
        if isinstance(result, (bytes, bytearray)):
            return RawAnswer(bytes(result), wanted)
        if wanted.startswith("image/") and (image := encode_image(result, wanted[6:].upper())):
            return RawAnswer(image, wanted)
    if isinstance(result, RawAnswer):
        return result
    try:
        return to_json_value(result)
    except ServingError as problem:
        return problem


def _import_class(path: Path, root: Path) -> Callable[[str], Any]:
    if str(root) not in sys.path:
        # The handler imports its neighbours by name.
        sys.path.insert(0, str(root))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise LoadFailed(f"{path.name} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as problem:
        raise LoadFailed(f"importing {path.name} raised {_describe(problem)}") from problem
    found = getattr(module, CLASS, None)
    if not inspect.isclass(found):
        raise LoadFailed(f"{path.name} has no class {CLASS}")
    return found


def _to_serving_error(problem: Exception) -> ServingError:
    status = getattr(problem, "status_code", None)
    if isinstance(status, int) and (400 <= status < 500 or status == 503):
        detail = getattr(problem, "detail", None) or str(problem) or "The handler refused the request."
        return _BY_STATUS.get(status, BadRequest)(str(detail)[:1000])
    if _UNUSED_ARGUMENTS in str(problem):
        return BadRequest(str(problem)[:2000])
    # The message may hold paths or data; the log has it whole, through __cause__.
    return ModelFault(f"The handler failed with {type(problem).__name__}.")


def _describe(problem: BaseException) -> str:
    lines = str(problem).strip().splitlines()
    return f"{type(problem).__name__}: {lines[0][:300]}" if lines else type(problem).__name__


async def _as_coroutine(awaitable: Awaitable[Any]) -> Any:
    return await awaitable
