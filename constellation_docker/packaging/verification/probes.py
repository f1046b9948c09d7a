"""Malformed requests, and requests in flight while the server is told to stop."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from constellation_docker.cards import ModelCard, duration_seconds
from constellation_docker.engine import Conflict, DeadlineExceeded, Engine
from constellation_docker.packaging.image import BuiltImage
from constellation_docker.packaging.runtime import Runtime
from constellation_docker.packaging.verification.container import render_relay
from constellation_docker.packaging.verification.examples import Example
from constellation_docker.packaging.verification.relay import RELAY_TEXT, NoAnswer, Relay

IN_FLIGHT = 4
"""How many requests are in flight when SIGTERM comes."""
MOST_HELD_BYTES = 64 * 1024
"""Largest body for it: it travels in an argument, of which Linux takes 128 KiB."""


@dataclass(frozen=True)
class Malformed:
    """A request that no server should answer with success.

    Attributes:
        name: What is wrong with it.
        body: Its body.
        kind: Its content type.
    """

    name: str
    body: bytes
    kind: str = "application/json"


def plan_malformed(runtime: Runtime) -> tuple[Malformed, ...]:
    """The malformed requests to try.

    Args:
        runtime: A custom handler takes whatever JSON it likes, so only what is no JSON is malformed to it.
    """
    broken = (
        Malformed("broken JSON", b'{"inputs": "unfinished'),
        Malformed("an empty body", b""),
        Malformed("bytes that are not UTF-8", b'{"inputs": "\xff\xfe"}'),
    )
    if runtime is Runtime.CUSTOM:
        return broken
    return (*broken, Malformed("a wrong type", b'{"inputs": {"unexpected": [true, null]}, "parameters": 3}'))


@dataclass(frozen=True)
class MalformedAnswer:
    """What came back for a malformed request. `status` 0: nothing."""

    sent: Malformed
    status: int
    said: str

    @property
    def problem(self) -> str | None:
        """What is wrong with it; None where it is an error that a client can read."""
        if self.status == 0:
            return f"{self.sent.name} got no answer ({self.said})"
        if not 400 <= self.status < 500:
            return f"{self.sent.name} was answered {self.status}"
        try:
            told = json.loads(self.said)
        except ValueError:
            told = None
        if not isinstance(told, dict) or not isinstance(told.get("error"), str):
            return f'{self.sent.name} was answered {self.status} without JSON like {{"error": …}}'
        return None


def send_malformed(relay: Relay, requests: tuple[Malformed, ...]) -> Iterator[MalformedAnswer]:
    """Send each malformed request and yield what came back."""
    for request in requests:
        try:
            answer = relay.ask("POST", "/", {"Content-Type": request.kind}, request.body)
        except NoAnswer as error:
            yield MalformedAnswer(request, 0, error.message)
        else:
            yield MalformedAnswer(request, answer.status, answer.body.decode("utf-8", "replace")[:2000])


@dataclass(frozen=True)
class Stopping:
    """How a server stopped.

    Attributes:
        seconds: From SIGTERM to its end.
        exit_code: Its exit code, or None where it had to be killed.
        in_flight: How many requests it had been sent half of.
        proven: How many of them it had said to have taken on (`100 Continue`).
        answers: What came back for each: `{"status", "said", "proven"}`.
    """

    seconds: float
    exit_code: int | None
    in_flight: int = 0
    proven: int = 0
    answers: tuple[dict[str, Any], ...] = ()

    @property
    def lost(self) -> tuple[dict[str, Any], ...]:
        """The requests in flight that were not answered with success.

        Where the server acknowledges requests, one that it had not yet acknowledged at SIGTERM was not in flight.
        """
        counted = [answer for answer in self.answers if answer.get("proven") or not self.proven]
        return tuple(answer for answer in counted if not 200 <= int(answer["status"]) < 300)


def stop_container(engine: Engine, container: str, *, grace_seconds: float) -> Stopping:
    """Send SIGTERM and wait; after the grace SIGKILL."""
    started = time.monotonic()
    return _await_end(engine, container, started, grace_seconds, Stopping(0.0, None), is_told=False)


def stop_with_requests_in_flight(
    engine: Engine,
    container: str,
    image: BuiltImage,
    example: Example,
    *,
    name: str,
    model_id: str,
    expires_at: float,
    grace_seconds: float,
    timeout_seconds: float,
) -> Stopping:
    """Send SIGTERM while requests are half sent, then send the rest, and see what comes back.

    Args:
        engine: Where the container is.
        container: Its id.
        image: Gives port and base image.
        example: A request that the server has answered before.
        name: Name of the container that holds the requests.
        model_id: The row that this is of.
        expires_at: When what is made may be removed by whoever finds it, in seconds since 1970.
        grace_seconds: Longest from SIGTERM to the container's end.
        timeout_seconds: Longest for one answer.
    """
    body, kind = example.wire_body()
    held = ["-I", "-S", "-c", RELAY_TEXT, "hold", str(image.port), "/", f"{timeout_seconds:.1f}"]
    held += [base64.b64encode(body).decode(), str(IN_FLIGHT), kind]
    config = render_relay(image, container, model_id=model_id, expires_at=expires_at, command=held)
    told: dict[str, Any] = {}
    with engine.temporary_container(name, config) as holder:
        engine.start(holder)
        started = time.monotonic()
        for line in engine.follow_logs(holder):
            if not line.startswith("{"):
                continue
            told |= json.loads(line)
            if "answers" in told:
                break
            # The requests are in flight: now the server is told to stop, and only then the rest is sent.
            started = time.monotonic()
            engine.kill(container, "SIGTERM")
            engine.kill(holder, "SIGUSR1")
    stopping = Stopping(
        0.0, None, int(told.get("in_flight", 0)), int(told.get("proven", 0)), tuple(told.get("answers", ()))
    )
    return _await_end(engine, container, started, grace_seconds, stopping, is_told=bool(told))


def explain_stopping(stopping: Stopping, grace_seconds: float, *, is_ours: bool) -> str:
    """What is wrong with how a server stopped; empty where nothing is."""
    if stopping.lost:
        first = stopping.lost[0]
        return (
            f"{len(stopping.lost)} of {stopping.in_flight} requests in flight at SIGTERM were lost "
            f"({first['status'] or 'no answer'}: {str(first['said'])[:200]}). "
            "A server finishes what it has begun before it ends."
        )
    if stopping.exit_code is None:
        return (
            f"It ignored SIGTERM and was killed after {grace_seconds:g} s. "
            "Run the server as the container's first process (`exec`), and end on SIGTERM."
        )
    # A server that is not ours may well end by the signal itself: 143 is 128 + SIGTERM.
    if stopping.exit_code not in ({0} if is_ours else {0, 143}):
        return f"It ended with code {stopping.exit_code} on SIGTERM instead of 0."
    return ""


def describe_stopping(stopping: Stopping) -> str:
    """How a server stopped that did it right, in words."""
    ended = f"Ended with code {stopping.exit_code} {stopping.seconds:.1f} s after SIGTERM"
    if not stopping.in_flight:
        return f"{ended}; no request was in flight, as there is no example to send."
    return (
        f"Finished {stopping.in_flight} requests that were in flight at SIGTERM "
        f"({stopping.proven} had been acknowledged by then). {ended}."
    )


def choose_held_example(examples: Sequence[Example]) -> Example | None:
    """The example that is held in flight: the first that is small enough."""
    return next((example for example in examples if _can_be_held(example)), None)


def _can_be_held(example: Example) -> bool:
    is_chat = isinstance(example.inputs, dict) and "messages" in example.inputs
    return not is_chat and 2 <= len(example.wire_body()[0]) <= MOST_HELD_BYTES


def grace_of(card: ModelCard, default_seconds: float) -> float:
    """From SIGTERM to SIGKILL: the card's, or else the setting's."""
    period = card.serving.deploy.stop_grace_period
    return duration_seconds(period) if period else default_seconds


def _await_end(
    engine: Engine, container: str, started: float, grace_seconds: float, stopping: Stopping, *, is_told: bool
) -> Stopping:
    try:
        if not is_told:
            engine.kill(container, "SIGTERM")
        left = grace_seconds - (time.monotonic() - started)
        code: int | None = engine.wait(container, timeout_seconds=max(left, 0.1))
    except DeadlineExceeded:
        code = None
        engine.kill(container, "SIGKILL")
    except Conflict:  # it had ended before it was told
        code = engine.wait(container, timeout_seconds=5)
    return Stopping(
        round(time.monotonic() - started, 3), code, stopping.in_flight, stopping.proven, stopping.answers
    )
