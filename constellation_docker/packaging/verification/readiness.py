"""Waiting until a container is ready, and saying in one sentence why it is not."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from constellation_docker.engine import Engine, EngineError, EngineUnreachable, NotFound
from constellation_docker.packaging.verification.relay import Relay

SLICE_SECONDS = 1.0
"""How long the relay asks before the container's state is looked at again."""

_NEEDS_NETWORK = re.compile(
    r"name or service not known|temporary failure in name resolution|network is unreachable|nodename nor servname"
    r"|failed to resolve|getaddrinfo|no address associated with hostname|could not resolve host|LocalEntryNotFoundError"
    r"|couldn't connect to '?https?://|offline mode is enabled|OfflineModeIsEnabled|Cannot assign requested address",
    re.IGNORECASE,
)
_NEEDS_WRITING = re.compile(r"read-only file system|errno 30\b", re.IGNORECASE)
_NEEDS_RIGHTS = re.compile(r"permission denied|operation not permitted", re.IGNORECASE)
_WANTS = (
    (
        _NEEDS_NETWORK,
        "the network to start",
        "Put what it fetches into the repository; images bring everything with them.",
    ),
    (_NEEDS_WRITING, "to write outside /tmp", "The root file system is read-only; write to /tmp."),
    (_NEEDS_RIGHTS, "rights that it does not get", "It runs as a plain user, without any capabilities."),
)
_NO_PROGRAM = re.compile(
    r"executable file not found|no such file or directory|exec format error", re.IGNORECASE
)


@dataclass(frozen=True)
class Readiness:
    """How waiting ended.

    Attributes:
        is_ready: Whether the container can answer.
        seconds: How long it took.
        status: The last HTTP status of the ready path; 0: no connection.
        said: What was said with it.
        health: Docker's own health status, or None where the image has no check.
        problem: One sentence, where it is not ready.
    """

    is_ready: bool
    seconds: float
    status: int
    said: str
    health: str | None
    problem: str = ""


def wait_until_ready(
    engine: Engine,
    container: str,
    open_relay: Callable[[], Relay],
    path: str,
    *,
    deadline_seconds: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Readiness:
    """Wait until a container answers 2xx at its ready path and Docker, too, finds it healthy.

    Args:
        engine: Where it runs.
        container: Its id.
        open_relay: Makes the way into it; called once, when it runs.
        path: Its ready path.
        deadline_seconds: Longest wait.
        clock, sleep: Time, for tests.
    """
    started = clock()
    relay: Relay | None = None
    status, said, ready_after = 0, "", None
    while True:
        state = _state(engine, container)
        left = deadline_seconds - (clock() - started)
        if not state.get("Running"):
            return Readiness(
                False, clock() - started, status, said, None, explain_end(state, _log(engine, container))
            )
        health = (state.get("Health") or {}).get("Status")
        if ready_after is not None and (health in {None, "healthy"}):
            return Readiness(True, ready_after, status, said, health)
        if left <= 0:
            problem = explain_unready(deadline_seconds, path, status, said, health, _log(engine, container))
            return Readiness(False, clock() - started, status, said, health, problem)
        if ready_after is None:
            try:
                relay = relay or open_relay()
                status, said = relay.wait_ready(path, timeout_seconds=min(SLICE_SECONDS, left))
            except EngineUnreachable:
                raise
            except EngineError:
                # A relay cannot join a container that has just ended; how it did, the next look says.
                if _state(engine, container).get("Running"):
                    raise
                continue
            if 200 <= status < 300:
                ready_after = clock() - started
        else:
            sleep(0.1)


def explain_end(state: Mapping[str, Any], log: str) -> str:
    """Why a container ended that should have stayed, from the engine's `State` and its log."""
    code = state.get("ExitCode")
    words = _last_words(log)
    if state.get("OOMKilled"):
        return (
            "It was killed because it used more memory than its limit. "
            "Raise constellation.resources.memory in the card, or use a smaller model."
        )
    if state.get("Error"):
        return f"It could not be started: {str(state['Error']).strip().rstrip('.')}."
    for saying, want, remedy in _WANTS:
        if saying.search(log):
            return f"It wants {want} and ended with code {code}: {words} {remedy}"
    if code == 137:
        return f"It was killed (code 137), most likely for want of memory: {words}"
    return f"It ended with code {code} before it was ready: {words}"


def explain_unready(
    deadline_seconds: float, path: str, status: int, said: str, health: str | None, log: str
) -> str:
    """Why a container that runs is not ready, in one sentence."""
    late = f"It was not ready after {deadline_seconds:g} s"
    if _NEEDS_NETWORK.search(log):
        return f"{late}, as it wants the network: {_last_words(log)} Put what it fetches into the repository."
    if 200 <= status < 300:
        return (
            f"{late}: GET {path} answers {status}, but Docker finds it {health}. "
            "Correct the image's HEALTHCHECK, or leave it out."
        )
    if status:
        return f"{late}: GET {path} answered {status} {said[:200]!r}. See the container's log."
    return (
        f"{late}: nothing answers at its port ({said[:200]}). "
        "Check the port in the card, and that it listens on 0.0.0.0."
    )


def explain_start(error: str) -> str:
    """Why the engine could not start a container's first process."""
    if _NO_PROGRAM.search(error):
        return f"Its first program cannot be run: {error}"
    return f"The engine could not start it: {error}"


def _state(engine: Engine, container: str) -> dict[str, Any]:
    facts = engine.container(container)
    return dict(facts["State"]) if facts else {"Running": False, "ExitCode": None, "Error": "it was removed"}


def _log(engine: Engine, container: str) -> str:
    try:
        return engine.logs(container, tail=60)
    except NotFound:
        return ""


def _last_words(log: str) -> str:
    """The last line that tells something: our server's last one only says that it has stopped."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    telling = [line for line in lines if not _is_routine(line)] or lines
    return (telling[-1][:300].rstrip(".") + ".") if telling else "it wrote nothing."


def _is_routine(line: str) -> bool:
    try:
        event = json.loads(line)
    except ValueError:
        return False
    return isinstance(event, dict) and event.get("level") in {"debug", "info"}
