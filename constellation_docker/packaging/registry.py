"""Pulling from and pushing to registries, as often as it takes and no oftener.

Errors that may pass by themselves are tried again with growing pauses; all others are not. Credentials are
read at the moment of each try, as some registries' tokens are short-lived.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from constellation_docker.engine import Credentials, Engine, ImageFacts
from constellation_docker.errors import ConstellationError, InvalidInput
from constellation_docker.settings import RegistrySettings, resolve_secret

T = TypeVar("T")

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 20.0


def push_image(
    image: str,
    reference: str,
    engine: Engine,
    *,
    registry: RegistrySettings,
    on_line: Callable[[str], None],
) -> str:
    """Push any image of the engine under a reference.

    Args:
        image: Id or name of the image on the engine.
        reference: `repository:tag` to push it as.
        engine: Where the image is.
        registry: Credentials and the number of tries.
        on_line: Told of progress and of every further try.

    Returns:
        The digest under which the registry has it: `sha256:…`.

    Raises:
        ImageNotFound: The engine has no such image.
        RegistryError, EngineUnreachable: As for `publish_image`.
    """
    engine.require_image(image)
    engine.tag(image, reference)
    return _persistently(
        lambda: engine.push(reference, registry_credentials(registry), on_line=on_line),
        registry.attempts,
        on_line,
        f"Pushing {reference}",
    )


def pull_image(
    reference: str, engine: Engine, *, registry: RegistrySettings, on_line: Callable[[str], None]
) -> ImageFacts:
    """Pull any image.

    The configured credentials are sent only to the configured registry.

    Args:
        reference: What to pull, as `repository:tag` or `repository@sha256:…`.
        engine: Where to.
        registry: Credentials and the number of tries.
        on_line: Told of progress and of every further try.

    Raises:
        ImageNotInRegistry: The registry has no such image.
        RegistryError, EngineUnreachable: As for `publish_image`.
    """
    is_ours = registry.repository is not None and _host(reference) == _host(registry.repository)
    return _persistently(
        lambda: engine.pull(reference, registry_credentials(registry) if is_ours else None, on_line=on_line),
        registry.attempts,
        on_line,
        f"Pulling {reference}",
    )


def registry_credentials(registry: RegistrySettings) -> Credentials | None:
    """The registry's credentials, read from where the settings point; None where there are none.

    Raises:
        InvalidInput: A reference cannot be read, or only one of user name and password is given.
    """
    if registry.username is None and registry.password is None:
        return None
    if registry.username is None or registry.password is None:
        raise InvalidInput(
            "The registry has a user name without a password, or the other way round.",
            remedy="Set both registry.username and registry.password, or neither.",
            setting="registry",
        )
    return Credentials(username=resolve_secret(registry.username), password=resolve_secret(registry.password))


def _persistently(act: Callable[[], T], attempts: int, on_line: Callable[[str], None], doing: str) -> T:
    def tell(state: RetryCallState) -> None:
        pause = state.next_action.sleep if state.next_action else 0.0
        error = state.outcome.exception() if state.outcome else None
        on_line(f"{doing} failed, try {state.attempt_number} of {attempts}; again in {pause:.1f} s. {error}")

    tries = Retrying(
        retry=retry_if_exception(lambda error: isinstance(error, ConstellationError) and error.is_transient),
        stop=stop_after_attempt(max(1, attempts)),
        wait=wait_random_exponential(multiplier=FIRST_PAUSE_SECONDS, max=LONGEST_PAUSE_SECONDS),
        before_sleep=tell,
        reraise=True,
    )
    return tries(act)


def _host(reference: str) -> str:
    return reference.partition("/")[0]
