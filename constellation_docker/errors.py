"""The one family of errors that people may read.

An error says what happened, to what, and what to do about it. `defs` turns it into failure metadata
of the run, `gateway` into `{"error": …}`, `cli` into one line on standard error.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self


class ConstellationError(Exception):
    """What happened, to what, and what to do.

    Args:
        message: One sentence: what happened and to what. It names the model, file or address.
        remedy: One sentence: what the reader should do next.
        details: Machine-readable facts (JSON values); `log_tail` holds the last lines of a log.

    Attributes:
        code: A stable snake-case name of the kind of error, for programs.
        is_transient: Whether the same call may succeed later with nothing changed. Only such
            errors are retried, by us and by Dagster.
    """

    code: ClassVar[str] = "constellation_error"
    is_transient: ClassVar[bool] = False

    def __init__(self, message: str, *, remedy: str = "", **details: Any) -> None:
        self.message = message
        self.remedy = remedy
        self.details = details
        super().__init__(f"{message} {remedy}".strip())

    def about(self, model: str) -> Self:
        """The same error, naming the model that it is about."""
        if model in self.message:
            return self
        return type(self)(f"{model}: {self.message}", remedy=self.remedy, **{"model": model, **self.details})


class InvalidInput(ConstellationError):
    """What a person or a program gave us cannot be used as it is."""

    code = "invalid_input"
