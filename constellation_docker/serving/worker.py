"""The one thread in which the model loads and runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from .batching import CallQueue, Ticket
from .model import InvalidParameters, Model, ModelFault, ServingError

END: Final = object()
"""Delivered after a stream's last piece."""

Post = Callable[[Callable[[], None]], None]
"""Runs a function soon in the event loop's thread; `loop.call_soon_threadsafe` with the loop's end caught."""


class ModelWorker:
    """Loads the model, then runs batches until the queue closes.

    Whatever model code raises, `SystemExit` and `KeyboardInterrupt` too, becomes an answer to the calls
    concerned; the thread and the server stay.

    Args:
        load: Makes the model and warms it up; called in the thread.
        queue: Where calls come from.
        post: Hands functions to the event loop's thread.
        on_loaded: Called in the loop's thread with the model, or with the exception that ended loading.
        on_fault: Called in the loop's thread with the exception and the request ids that it hit.
    """

    def __init__(
        self,
        load: Callable[[], Model],
        queue: CallQueue,
        post: Post,
        on_loaded: Callable[[Model | BaseException], None],
        on_fault: Callable[[BaseException, list[str]], None],
    ) -> None:
        self._load = load
        self._queue = queue
        self._post = post
        self._on_loaded = on_loaded
        self._on_fault = on_fault
        self.busy_since: float | None = None
        self.on_batch: Callable[[int], None] = lambda calls: None
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def _run(self) -> None:
        loaded: Model | BaseException
        try:
            loaded = self._load()
        except BaseException as problem:  # noqa: BLE001 - model code may raise anything; the server reports it
            loaded = problem
        self._post(lambda: self._on_loaded(loaded))
        if isinstance(loaded, BaseException):
            return
        while batch := self._queue.take():
            self._serve(loaded, batch)

    def _serve(self, model: Model, batch: list[Ticket]) -> None:
        started = time.perf_counter()
        self.busy_since = started
        for ticket in batch:
            ticket.started_at = started
            ticket.batch = len(batch)
        if batch[0].call.is_streaming:
            self._stream(model, batch[0])
        else:
            answers = self._answer(model, batch)
            finished = time.perf_counter()
            self.busy_since = None
            self._queue.note_duration(finished - started, len(batch))
            for ticket in batch:
                ticket.finished_at = finished
            self._post(lambda: self._deliver(batch, answers))
        self.busy_since = None

    def _answer(self, model: Model, batch: list[Ticket]) -> Sequence[Any]:
        """The batch's answers. A batch that fails as a whole is run again one by one: one bad call must
        not cost its neighbours their answers.
        """
        try:
            answers = model.run([ticket.call for ticket in batch])
            if len(answers) == len(batch):
                for ticket, answer in zip(batch, answers, strict=True):
                    if isinstance(answer, BaseException) and _is_fault(answer):
                        self._report(answer, [ticket])
                return answers
            raise ModelFault(f"the model gave {len(answers)} answers to {len(batch)} calls")
        except ServingError as problem:
            fault: BaseException = problem
            is_expected = not isinstance(problem, ModelFault)
        except BaseException as problem:  # noqa: BLE001 - model code may raise anything, SystemExit too
            fault, is_expected = problem, False
        if len(batch) > 1:
            singles: list[Any] = []
            for ticket in batch:
                self.busy_since = time.perf_counter()
                singles += [None] if ticket.is_abandoned else self._answer(model, [ticket])
            return singles
        if not is_expected:
            self._report(fault, batch)
        return [fault]

    def _stream(self, model: Model, ticket: Ticket) -> None:
        """Deliver pieces as they come; close the iterator when the client is gone."""
        try:
            pieces = model.stream(ticket.call)
            if pieces is None:
                raise InvalidParameters("this model cannot stream its answers; leave stream out")
            try:
                for piece in pieces:
                    if ticket.is_abandoned:
                        return
                    self.busy_since = time.perf_counter()
                    self._post_piece(ticket, piece)
            finally:
                close = getattr(pieces, "close", None)
                if close is not None:
                    close()
            last: Any = END
        except BaseException as problem:  # noqa: BLE001 - model code may raise anything, SystemExit too
            last = problem
            if _is_fault(problem):
                self._report(problem, [ticket])
        ticket.finished_at = time.perf_counter()
        self._post_piece(ticket, last)

    def _post_piece(self, ticket: Ticket, piece: Any) -> None:
        self._post(lambda: ticket.deliver(ticket, piece))

    def _report(self, problem: BaseException, tickets: list[Ticket]) -> None:
        request_ids = [ticket.request_id for ticket in tickets]
        self._post(lambda: self._on_fault(problem, request_ids))

    def _deliver(self, batch: Sequence[Ticket], answers: Sequence[Any]) -> None:
        self.on_batch(len(batch))
        for ticket, answer in zip(batch, answers, strict=True):
            ticket.deliver(ticket, answer)


def _is_fault(problem: BaseException) -> bool:
    """Whether it is the model's doing, and so worth a traceback in the log."""
    return isinstance(problem, ModelFault) or not isinstance(problem, ServingError)
