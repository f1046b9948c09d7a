"""Verification of a built image: it is started as in production, without network, and asked what its card promises."""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence

from constellation_docker.cards import ModelCard
from constellation_docker.engine import Engine, EngineError, EngineUnreachable, NotFound
from constellation_docker.packaging.image import BuiltImage
from constellation_docker.packaging.verification.answers import label_mismatch, misfit_of
from constellation_docker.packaging.verification.container import (
    remove_trials,
    render_container,
    render_relay,
)
from constellation_docker.packaging.verification.examples import (
    ExampleAnswer,
    ask_examples,
    plan_examples,
)
from constellation_docker.packaging.verification.probes import (
    Malformed,
    choose_held_example,
    describe_stopping,
    explain_stopping,
    grace_of,
    plan_malformed,
    send_malformed,
    stop_container,
    stop_with_requests_in_flight,
)
from constellation_docker.packaging.verification.readiness import explain_start, wait_until_ready
from constellation_docker.packaging.verification.relay import Relay
from constellation_docker.packaging.verification.report import CheckResult, VerificationReport, shortened
from constellation_docker.packaging.verification.trial import Trial
from constellation_docker.settings import VerificationSettings

LOG_LINES = 100
_LARGEST_FILE_BYTES = 16 * 1024 * 1024

STARTS = "starts_as_in_production"
READY = "becomes_ready"
EXAMPLES = "answers_examples"
MALFORMED = "rejects_malformed_input"
IN_FLIGHT = "finishes_request_in_flight"
CHECKS = (STARTS, READY, EXAMPLES, MALFORMED, IN_FLIGHT)


def verify_image(
    image: BuiltImage,
    card: ModelCard,
    engine: Engine,
    *,
    model_id: str,
    settings: VerificationSettings,
    on_line: Callable[[str], None],
) -> VerificationReport:
    """Try a built image before anyone may use it.

    Its container runs as in production: non-root, on a read-only root, without capabilities, within the
    card's limits; and it has no network at all. Whatever is made for it is removed again, and what an earlier
    verification left behind when it was killed.

    Args:
        image: What to try.
        card: Gives limits, variables and example requests.
        engine: Where the image is.
        model_id: The row that the image is of; only one verification of it may be under way at a time.
        settings: Deadlines.
        on_line: Told of each check as it ends.

    Returns:
        The five checks, always in the same order; what could not be reached is marked as skipped.

    Raises:
        EngineUnreachable: The engine went away, or was restarted in the middle (transient). What the image does wrong is never raised.
    """
    started = time.monotonic()
    trial = Trial(image, card, engine, settings, on_line, model_id=model_id)
    log = ""
    remove_trials(engine, model_id=model_id)
    try:
        if _starts(trial):
            with contextlib.ExitStack() as stack:
                _run_checks(trial, stack)
        if trial.container:
            log = _log(trial)
    finally:
        remove_trials(engine, model_id=model_id)
    reached = {result.name for result in trial.results}
    missed = [
        CheckResult(
            name=name, passed=False, is_skipped=True, message="Not tried, as an earlier check failed."
        )
        for name in CHECKS
        if name not in reached
    ]
    return VerificationReport(
        model=image.model,
        image_id=image.image_id,
        checks=tuple(trial.results + missed),
        log_tail=log,
        seconds=round(time.monotonic() - started, 3),
    )


def _run_checks(trial: Trial, stack: contextlib.ExitStack) -> None:
    def open_relay() -> Relay:
        trial.relay = stack.enter_context(_relay_beside(trial))
        return trial.relay

    if not _becomes_ready(trial, open_relay):
        return
    relay = trial.relay
    assert relay is not None
    _answers_examples(trial, relay)
    if trial.is_still_up():
        _rejects_malformed(trial, relay)
    if trial.is_still_up():
        _stops(trial)


def _starts(trial: Trial) -> bool:
    started = time.monotonic()
    config = render_container(
        trial.image,
        trial.card,
        model_id=trial.model_id,
        expires_at=trial.expires_at,
        ready_deadline_seconds=trial.deadline_seconds,
    )
    problem = ""
    try:
        trial.container = trial.engine.create_container(trial.name, config)
        trial.engine.start(trial.container)
    except EngineUnreachable:
        raise
    except EngineError as error:
        problem = explain_start(error.message)
    user = _user(trial) if trial.container else ""
    if not problem and user.partition(":")[0] in {"0", "root", ""}:
        problem = "It runs as root. Give the image another user: `USER 65532:65532`."
    host = config["HostConfig"]
    return trial.note(
        CheckResult(
            name=STARTS,
            passed=not problem,
            seconds=round(time.monotonic() - started, 3),
            sent=json.dumps(host, indent=1, sort_keys=True),
            received=f"user {user}",
            message=problem
            or f"Runs as user {user} on a read-only root, without capabilities and network, with "
            f"{trial.card.serving.resources.memory} of memory, {trial.card.serving.resources.cpus:g} CPU and "
            f"{trial.card.serving.resources.pids} processes.",
        )
    )


def _becomes_ready(trial: Trial, open_relay: Callable[[], Relay]) -> bool:
    ready = wait_until_ready(
        trial.engine,
        trial.container,
        open_relay,
        trial.image.ready_path,
        deadline_seconds=trial.deadline_seconds,
    )
    said = "" if ready.health is None else f" and Docker finds it {ready.health}"
    return trial.note(
        CheckResult(
            name=READY,
            passed=ready.is_ready,
            seconds=round(ready.seconds, 3),
            sent=f"GET {trial.image.ready_path}",
            received=shortened(f"{ready.status or 'no connection'} {ready.said}".strip()),
            message=ready.problem or f"Ready after {ready.seconds:.1f} s{said}.",
        )
    )


def _answers_examples(trial: Trial, relay: Relay) -> bool:
    task = None if trial.image.has_own_server and not trial.card.widget else _task_of(trial)
    examples = plan_examples(
        trial.card, task, most=trial.settings.max_examples, read_file=lambda path: _model_file(trial, path)
    )
    if not examples:
        return trial.note(
            CheckResult(
                name=EXAMPLES,
                passed=True,
                is_skipped=True,
                message="The card has no example that can be sent. Add `widget:` entries to have them tried.",
            )
        )
    limit = trial.settings.request_timeout_seconds
    with relay.listening() as address:
        answers = ask_examples(
            address, examples, timeout_seconds=limit, seconds_in_all=limit * len(examples) + 30
        )
    problems = [(answer.example.name, problem) for answer in answers if (problem := _problem_of(answer))]
    trial.answered = [answer.example for answer in answers if not answer.error]
    return trial.note(
        CheckResult(
            name=EXAMPLES,
            passed=not problems,
            seconds=round(sum(answer.seconds for answer in answers), 3),
            sent=shortened("\n".join(example.sent for example in examples)),
            received=shortened(
                "\n".join(f"{answer.received}  ({answer.seconds:.3f} s)" for answer in answers)
            ),
            message=(
                f"{len(problems)} of {len(answers)} examples went wrong: {_listed(problems)[:1500]}."
                if problems
                else f"Answered {len(answers)} of {len(answers)} examples through the Hugging Face client."
            ),
        )
    )


def _listed(problems: Sequence[tuple[str, str]]) -> str:
    """What went wrong with which examples; what went wrong with several is said once."""
    names: dict[str, list[str]] = {}
    for name, problem in problems:
        names.setdefault(problem, []).append(name)
    return "; ".join(f"{', '.join(which)}: {problem}" for problem, which in names.items())


def _problem_of(answer: ExampleAnswer) -> str | None:
    if answer.error:
        return answer.error[:500]
    return misfit_of(answer.example.task, answer.answer) or label_mismatch(
        answer.example.expected, answer.answer
    )


def _rejects_malformed(trial: Trial, relay: Relay) -> bool:
    if trial.image.has_own_server:
        return trial.note(
            CheckResult(
                name=MALFORMED,
                passed=True,
                is_skipped=True,
                message="The image brings a server of its own, whose manners are its own.",
            )
        )
    started = time.monotonic()
    requests = plan_malformed(trial.image.runtime)
    answers = list(send_malformed(relay, requests))
    problems = [problem for answer in answers if (problem := answer.problem)]
    status, said = relay.wait_ready(trial.image.ready_path, timeout_seconds=5)
    if not 200 <= status < 300:
        problems.append(f"afterwards GET {trial.image.ready_path} was answered {status} {said[:200]}")
    return trial.note(
        CheckResult(
            name=MALFORMED,
            passed=not problems,
            seconds=round(time.monotonic() - started, 3),
            sent=shortened("\n".join(_shown(request) for request in requests)),
            received=shortened("\n".join(f"{answer.status} {answer.said}" for answer in answers)),
            message=(
                f"Malformed input is not refused as it should be: {'; '.join(problems)}."
                if problems
                else f"Answered {len(answers)} malformed requests with 4xx and stayed ready."
            ),
        )
    )


def _stops(trial: Trial) -> bool:
    grace = grace_of(trial.card, trial.settings.stop_grace_seconds)
    example = choose_held_example(trial.answered)
    if trial.image.has_own_server or example is None:
        stopping = stop_container(trial.engine, trial.container, grace_seconds=grace)
    else:
        stopping = stop_with_requests_in_flight(
            trial.engine,
            trial.container,
            trial.image,
            example,
            name=f"{trial.name}-hold",
            model_id=trial.model_id,
            expires_at=trial.expires_at,
            grace_seconds=grace,
            timeout_seconds=trial.settings.request_timeout_seconds,
        )
    problem = explain_stopping(stopping, grace, is_ours=not trial.image.has_own_server)
    return trial.note(
        CheckResult(
            name=IN_FLIGHT,
            passed=not problem,
            seconds=stopping.seconds,
            sent=f"{stopping.in_flight} requests ({stopping.proven} of them acknowledged), then SIGTERM",
            received=shortened(
                "\n".join([f"{answer['status']} {answer['said']}" for answer in stopping.answers])
                + f"\nexit code {stopping.exit_code} after {stopping.seconds:.1f} s"
            ).strip(),
            message=problem or describe_stopping(stopping),
        )
    )


def _task_of(trial: Trial) -> str | None:
    return trial.image.labels.get("constellation.task") or trial.card.task


@contextlib.contextmanager
def _relay_beside(trial: Trial) -> Iterator[Relay]:
    limit = trial.settings.request_timeout_seconds
    config = render_relay(trial.image, trial.container, model_id=trial.model_id, expires_at=trial.expires_at)
    name = f"{trial.name}-relay"
    with trial.engine.temporary_container(name, config) as container:
        trial.engine.start(container)
        yield Relay(
            trial.engine, container, trial.image.base.python_path or "python3", trial.image.port, limit
        )


def _user(trial: Trial) -> str:
    """The container's user; a name is looked up in its own /etc/passwd, as a name may well mean root."""
    facts = trial.engine.container(trial.container) or {}
    user = str((facts.get("Config") or {}).get("User") or "root")
    name, _, group = user.partition(":")
    if name.isdigit():
        return user
    passwd = (_file(trial, "/etc/passwd") or b"").decode("utf-8", "replace")
    for line in passwd.splitlines():
        fields = line.split(":")
        if len(fields) > 2 and fields[0] == name:
            return f"{fields[2]}:{group}" if group else fields[2]
    return user


def _model_file(trial: Trial, path: str) -> bytes | None:
    return _file(trial, f"/model/{path}")


def _file(trial: Trial, path: str) -> bytes | None:
    try:
        packed = trial.engine.get_archive(trial.container, path)
    except NotFound:
        return None
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        member = archive.next()
        if member is None or not member.isfile() or member.size > _LARGEST_FILE_BYTES:
            return None
        opened = archive.extractfile(member)
        return opened.read() if opened else None


def _shown(request: Malformed) -> str:
    return f"{request.name}: {request.body!r}"


def _log(trial: Trial) -> str:
    with contextlib.suppress(NotFound):
        return trial.engine.logs(trial.container, tail=LOG_LINES)
    return ""
