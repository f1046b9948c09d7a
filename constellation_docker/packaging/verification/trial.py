"""One verification under way: what it is of, what it has found, and whether the engine stayed with it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from constellation_docker.cards import ModelCard, duration_seconds
from constellation_docker.engine import Engine, EngineUnreachable
from constellation_docker.packaging.image import BuiltImage
from constellation_docker.packaging.verification.examples import Example
from constellation_docker.packaging.verification.probes import grace_of
from constellation_docker.packaging.verification.relay import Relay
from constellation_docker.packaging.verification.report import CheckResult
from constellation_docker.settings import VerificationSettings


@dataclass
class Trial:
    """One verification under way."""

    image: BuiltImage
    card: ModelCard
    engine: Engine
    settings: VerificationSettings
    on_line: Callable[[str], None]
    model_id: str
    name: str = field(default_factory=lambda: f"constellation-verify-{uuid.uuid4().hex[:12]}")
    began: float = field(default_factory=time.time)
    container: str = ""
    relay: Relay | None = None
    results: list[CheckResult] = field(default_factory=list)
    answered: list[Example] = field(default_factory=list)

    @property
    def deadline_seconds(self) -> float:
        """Longest until ready: the card's, or else the setting's."""
        own = self.card.serving.deploy.healthy_deadline
        return duration_seconds(own) if own else self.settings.ready_deadline_seconds

    @property
    def expires_at(self) -> float:
        """When all of it must be over, in seconds since 1970."""
        one = self.settings.request_timeout_seconds + 30
        grace = grace_of(self.card, self.settings.stop_grace_seconds)
        return self.began + self.deadline_seconds + one * (self.settings.max_examples + 10) + grace

    def note(self, result: CheckResult) -> bool:
        """Keep a check's result and tell of it.

        Returns:
            Whether it passed.

        Raises:
            EngineUnreachable: It did not, as the engine was restarted meanwhile. That says nothing of the image.
        """
        if not result.passed:
            self._see_that_the_engine_stayed()
        self.results.append(result)
        mark = "skipped" if result.is_skipped else "passed" if result.passed else "FAILED"
        self.on_line(f"{result.name}: {mark} in {result.seconds:.1f} s. {result.message}")
        return result.passed

    def is_still_up(self) -> bool:
        """Whether the container under test runs.

        Raises:
            EngineUnreachable: It does not, as the engine was restarted meanwhile.
        """
        is_up = _is_running(self.engine, self.container)
        if not is_up:
            self._see_that_the_engine_stayed()
        return is_up

    def _see_that_the_engine_stayed(self) -> None:
        """The relay is ours and ends with the verification only; without an engine it ends earlier."""
        if self.relay is not None and not _is_running(self.engine, self.relay.container):
            raise EngineUnreachable(
                f"The engine at {self.engine.url} was restarted while {self.image.model} was verified.",
                remedy="Launch it again.",
                engine=self.engine.url,
            )


def _is_running(engine: Engine, container: str) -> bool:
    facts = engine.container(container)
    return bool(facts and facts["State"].get("Running"))
