"""Telling the configured webhook, in one sentence and a few facts."""

from collections.abc import Callable, Mapping

import tenacity

from constellation_docker.errors import ConstellationError
from constellation_docker.settings import NotificationSettings, resolve_secret


def tell(
    notice: Mapping[str, object], settings: NotificationSettings, on_line: Callable[[str], None]
) -> None:
    """POST a notice as JSON; without a webhook its sentence is only written down.

    Args:
        notice: `text`, and the facts beside it.
        settings: Where to.
        on_line: Takes the sentence where there is no webhook.

    Raises:
        NotificationFailed: The webhook did not take it, three times.
    """
    if settings.webhook_url is None:
        on_line(str(notice["text"]))
        return
    _post(resolve_secret(settings.webhook_url), notice, settings.timeout_seconds)


class NotificationFailed(ConstellationError):
    """The webhook did not take the notice. Its address is a secret and is not named."""

    code = "notification_failed"
    is_transient = True


@tenacity.retry(
    stop=tenacity.stop_after_attempt(3),
    wait=tenacity.wait_exponential(multiplier=1, max=10),
    retry=tenacity.retry_if_exception_type(NotificationFailed),
    reraise=True,
)
def _post(url: str, notice: Mapping[str, object], timeout_seconds: float) -> None:
    import httpx  # 200 ms that only a notification pays for, and no run

    try:
        answer = httpx.post(url, json=notice, timeout=timeout_seconds)
    except httpx.HTTPError as error:
        raise NotificationFailed(
            f"The webhook could not be reached ({type(error).__name__}).",
            remedy="Check the setting notifications.webhook_url.",
        ) from None
    if answer.is_error:
        raise NotificationFailed(
            f"The webhook answered {answer.status_code}.",
            remedy="Check the setting notifications.webhook_url.",
        )
