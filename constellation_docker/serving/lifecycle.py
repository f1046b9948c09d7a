"""What the server is doing, in one word, and what follows from it."""

from __future__ import annotations

import time
from enum import StrEnum

from .model import Model


class State(StrEnum):
    """In the order in which a server goes through them."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"


class Lifecycle:
    """The state, the model once it is loaded, and since when."""

    def __init__(self) -> None:
        self.state = State.LOADING
        self.model: Model | None = None
        self.load_seconds = 0.0
        self.started_at = time.monotonic()

    def become_ready(self, model: Model) -> None:
        """The model is loaded and warm."""
        self.model = model
        self.load_seconds = time.monotonic() - self.started_at
        if self.state is State.LOADING:
            self.state = State.READY

    def become_draining(self) -> None:
        """The server was told to stop."""
        self.state = State.DRAINING
