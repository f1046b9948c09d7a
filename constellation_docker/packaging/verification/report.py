"""What verification found."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from constellation_docker.errors import ConstellationError

LONGEST_TEXT = 8_000


class VerificationFailed(ConstellationError):
    """A built image does not do what its card promises. `details` holds `checks` and `log_tail`."""

    code = "verification_failed"


class CheckResult(BaseModel):
    """One check of a built image.

    Attributes:
        name: Which check.
        passed: Whether the image passed. False, too, for a check that was not reached.
        seconds: How long it took.
        sent: What was sent, as text.
        received: What came back, as text.
        message: One sentence: what was found, or what is wrong and what to do.
        is_skipped: Whether it was not tried: because another failed (then it did not pass), or because it
            means nothing for this image (then it did).
    """

    model_config = ConfigDict(frozen=True)

    name: str
    passed: bool
    seconds: float = 0.0
    sent: str = ""
    received: str = ""
    message: str
    is_skipped: bool = False


class VerificationReport(BaseModel):
    """All checks of one built image.

    Attributes:
        model: `name@version`.
        image_id: What was verified.
        checks: The five checks, in order.
        log_tail: The last lines of the container's log.
        seconds: How long it took in all.
    """

    model_config = ConfigDict(frozen=True)

    model: str
    image_id: str
    checks: tuple[CheckResult, ...]
    log_tail: str
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    @property
    def failures(self) -> tuple[CheckResult, ...]:
        """The checks that failed by themselves, without those that were then not reached."""
        return tuple(check for check in self.checks if not check.passed and not check.is_skipped)

    def check(self, name: str) -> CheckResult:
        """The check of that name."""
        return next(check for check in self.checks if check.name == name)

    def raise_for_failures(self) -> None:
        """Do nothing where all checks passed.

        Raises:
            VerificationFailed: With the sentences of those that failed.
        """
        if self.passed:
            return
        said = " ".join(check.message for check in self.failures)
        raise VerificationFailed(
            f"The image of {self.model} does not pass verification. {said}",
            remedy="Correct the repository or its card, and package it again.",
            model=self.model,
            checks=[check.name for check in self.failures],
            log_tail=self.log_tail,
        )


def shortened(text: str) -> str:
    """Text of a length that a page can show."""
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}… ({len(text)} characters)"
