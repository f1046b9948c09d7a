"""Verification on real containers: a good image passes, and each bad one fails with one clear sentence."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from constellation_docker.engine import Engine
from constellation_docker.packaging.image import BuiltImage
from constellation_docker.packaging.runtime import Runtime
from constellation_docker.packaging.verification import (
    CHECKS,
    VerificationFailed,
    VerificationReport,
    verify_image,
)
from constellation_docker.packaging.verification.answers import label_mismatch, misfit_of
from constellation_docker.packaging.verification.examples import plan_examples, scrubbed
from constellation_docker.packaging.verification.probes import plan_malformed
from constellation_docker.packaging.verification.relay import NoAnswer, parse_answer
from constellation_docker.settings import VerificationSettings
from constellation_docker_tests.fixtures.deadline import wait_for
from constellation_docker_tests.fixtures.engine import build_context
from constellation_docker_tests.packaging.images import IMAGE_PREFIX, TRIAL_ID, make_card

QUICK = VerificationSettings(ready_deadline_seconds=20, request_timeout_seconds=10, stop_grace_seconds=10)


def verify(
    image: BuiltImage,
    engine: Engine,
    behaviour: str = "good",
    settings: VerificationSettings = QUICK,
    **fields: Any,
) -> VerificationReport:
    serving = {"env": {"BEHAVIOUR": behaviour}, "resources": {"memory": "128m", "pids": 64}}
    serving |= fields.pop("serving", {})
    card = make_card(constellation=serving, **fields)
    return verify_image(image, card, engine, model_id=TRIAL_ID, settings=settings, on_line=lambda _: None)


def only_failure(report: VerificationReport) -> tuple[str, str]:
    """The one check that failed by itself: its name and its sentence."""
    assert [check.name for check in report.checks] == list(CHECKS)
    assert not report.passed
    assert len(report.failures) == 1, [check.message for check in report.failures]
    return report.failures[0].name, report.failures[0].message


@pytest.fixture(scope="module")
def good(stand_in_image: BuiltImage, engine: Engine) -> VerificationReport:
    return verify(stand_in_image, engine)


def test_a_good_image_passes_every_check(good: VerificationReport) -> None:
    assert good.passed, [check.message for check in good.failures]
    assert [check.name for check in good.checks] == list(CHECKS)
    good.raise_for_failures()


def test_each_check_tells_what_was_sent_what_came_back_and_how_long_it_took(good: VerificationReport) -> None:
    answers = good.check("answers_examples")
    assert "All good." in answers.sent
    assert "POSITIVE" in answers.received
    assert 0 < answers.seconds < 10
    assert "listening" in good.log_tail


def test_requests_are_truly_in_flight_when_sigterm_comes(good: VerificationReport) -> None:
    stopping = good.check("finishes_request_in_flight")
    assert "4 of them acknowledged" in stopping.sent
    assert stopping.received.count("200 ") == 4
    assert "exit code 0" in stopping.received


def test_a_container_runs_as_in_production(good: VerificationReport) -> None:
    host = json.loads(good.check("starts_as_in_production").sent)
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["NetworkMode"] == "none"
    assert host["Memory"] == host["MemorySwap"] == 128 * 1024 * 1024
    assert host["PidsLimit"] == 64


def test_there_is_no_way_out_not_even_to_the_host(stand_in_image: BuiltImage, engine: Engine) -> None:
    report = verify(stand_in_image, engine, "explore", widget=[{"text": "Look around."}])
    assert '"alone"' in report.check("answers_examples").received


def test_tokens_of_the_one_who_packages_are_not_sent_to_the_model(
    stand_in_image: BuiltImage, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_hunter2")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    report = verify(stand_in_image, engine, "echo", widget=[{"text": "Who am I?"}])
    told = report.check("answers_examples").received
    assert "Accept-Encoding" in told
    assert "hunter2" not in report.model_dump_json()


def test_secrets_of_the_card_are_stood_in_for(
    stand_in_image: BuiltImage, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_KEY", "hunter2")
    report = verify(
        stand_in_image,
        engine,
        serving={"secrets": {"BEHAVIOUR": "env:MODEL_KEY"}, "env": {}},
    )
    assert report.passed
    assert "hunter2" not in report.model_dump_json()


@pytest.mark.parametrize(
    ("behaviour", "check", "words"),
    [
        (
            "crash",
            "becomes_ready",
            "ended with code 1 before it was ready: RuntimeError: the weights are not",
        ),
        ("network", "becomes_ready", "wants the network to start"),
        ("writes", "becomes_ready", "wants to write outside /tmp"),
        ("memory", "becomes_ready", "more memory than its limit"),
        ("rubbish", "answers_examples", "is not a label with a finite score"),
        ("accepts anything", "rejects_malformed_input", "broken JSON was answered 200"),
        ("loses requests", "finishes_request_in_flight", "4 of 4 requests in flight at SIGTERM were lost"),
        ("ends badly", "finishes_request_in_flight", "ended with code 3 on SIGTERM"),
    ],
)
def test_a_bad_image_fails_with_one_clear_sentence(
    stand_in_image: BuiltImage, engine: Engine, behaviour: str, check: str, words: str
) -> None:
    name, message = only_failure(verify(stand_in_image, engine, behaviour))
    assert name == check
    assert words in message


def test_an_image_that_never_gets_ready_is_given_up_at_its_deadline(
    stand_in_image: BuiltImage, engine: Engine
) -> None:
    report = verify(
        stand_in_image,
        engine,
        "never ready",
        serving={"deploy": {"healthy_deadline": "1500ms"}, "env": {"BEHAVIOUR": "never ready"}},
    )
    name, message = only_failure(report)
    assert name == "becomes_ready"
    assert "not ready after 1.5 s: GET /ready answered 503" in message
    assert all(check.is_skipped for check in report.checks[2:])


def test_a_server_that_ignores_sigterm_is_told_of(stand_in_image: BuiltImage, engine: Engine) -> None:
    serving = {"deploy": {"stop_grace_period": "1s"}, "env": {"BEHAVIOUR": "ignores SIGTERM"}}
    name, message = only_failure(verify(stand_in_image, engine, serving=serving))
    assert name == "finishes_request_in_flight"
    assert "ignored SIGTERM and was killed after 1 s" in message


def test_an_answer_that_differs_from_the_cards_is_a_failure(
    stand_in_image: BuiltImage, engine: Engine
) -> None:
    widget = [{"text": "All bad.", "output": [{"label": "POSITIVE", "score": 1.0}]}]
    name, message = only_failure(verify(stand_in_image, engine, widget=widget))
    assert name == "answers_examples"
    assert "the card expects 'POSITIVE' and the answer is 'NEGATIVE'" in message


def test_a_failed_report_raises_one_sentence_with_the_log(stand_in_image: BuiltImage, engine: Engine) -> None:
    report = verify(stand_in_image, engine, "crash")
    with pytest.raises(VerificationFailed, match=r"tests/stand-in@1\.0 does not pass") as caught:
        report.raise_for_failures()
    assert "the weights are not where they should be" in caught.value.details["log_tail"]
    assert not caught.value.is_transient


def test_a_program_that_is_not_there_is_told_of(stand_in_image: BuiltImage, engine: Engine) -> None:
    broken = engine.build(
        build_context({"Dockerfile": f'FROM {stand_in_image.tag}\nENTRYPOINT ["/nowhere"]\n'}),
        tag=f"{IMAGE_PREFIX}/broken:1",
    )
    try:
        image = stand_in_image.model_copy(update={"image_id": broken.image_id})
        name, message = only_failure(verify(image, engine))
    finally:
        engine.remove_image(f"{IMAGE_PREFIX}/broken:1", force=True)
    assert name == "starts_as_in_production"
    assert "first program cannot be run" in message


def test_an_image_that_runs_as_root_is_refused(stand_in_image: BuiltImage, engine: Engine) -> None:
    rooted = engine.build(
        build_context({"Dockerfile": f"FROM {stand_in_image.tag}\nUSER root\n"}),
        tag=f"{IMAGE_PREFIX}/rooted:1",
    )
    try:
        image = stand_in_image.model_copy(update={"image_id": rooted.image_id})
        name, message = only_failure(verify(image, engine))
    finally:
        engine.remove_image(f"{IMAGE_PREFIX}/rooted:1", force=True)
    assert name == "starts_as_in_production"
    assert "runs as root" in message


def test_nothing_is_left_behind(stand_in_image: BuiltImage, engine: Engine) -> None:
    for behaviour in ("good", "crash"):
        verify(stand_in_image, engine, behaviour)
    assert not _verifications(engine, "tests/stand-in@1.0")


def test_what_a_killed_verification_left_behind_is_removed_by_the_next_one_of_its_row(
    stand_in_image: BuiltImage, engine: Engine, tmp_path: Path
) -> None:
    image = stand_in_image.model_copy(update={"model": f"tests/killed-{os.getpid()}@1.0"})
    (tmp_path / "image.json").write_text(image.model_dump_json())
    program = (
        "import sys\n"
        "from constellation_docker.engine import Engine\n"
        "from constellation_docker.packaging.image import BuiltImage\n"
        "from constellation_docker.packaging.verification import verify_image\n"
        "from constellation_docker.settings import VerificationSettings\n"
        "from constellation_docker_tests.packaging.images import make_card\n"
        f"image = BuiltImage.model_validate_json(open({str(tmp_path / 'image.json')!r}).read())\n"
        "card = make_card(constellation={'env': {'BEHAVIOUR': 'never ready'}})\n"
        f"verify_image(image, card, Engine.connect({engine.url!r}), model_id={TRIAL_ID!r},"
        " settings=VerificationSettings(), on_line=print)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], cwd=Path(__file__).parents[2])
    try:
        wait_for(
            lambda: len(_verifications(engine, image.model)) >= 2, what="the containers of a verification"
        )
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert _verifications(engine, image.model)
    assert verify(stand_in_image, engine).passed  # the next one of the same row
    assert not _verifications(engine, image.model)


def test_only_what_has_outlived_its_verification_is_removed(
    stand_in_image: BuiltImage, engine: Engine
) -> None:
    def container(name: str, expires_at: float) -> str:
        labels = {"constellation.role": "verification", "constellation.expires": f"{expires_at:.0f}"}
        config = {"Image": stand_in_image.image_id, "Labels": labels}
        return engine.create_container(f"constellation-test-{name}-{os.getpid()}", config)

    stale, fresh = container("stale", 1), container("fresh", time.time() + 600)
    try:
        assert verify(stand_in_image, engine).passed
        assert engine.container(stale) is None
        assert engine.container(fresh) is not None
    finally:
        engine.remove(fresh, force=True)
        engine.remove(stale, force=True)


def test_malformed_requests_suit_the_runtime() -> None:
    assert {request.name for request in plan_malformed(Runtime.CUSTOM)} < {
        request.name for request in plan_malformed(Runtime.ONNX)
    }


@pytest.mark.parametrize(
    ("task", "answer", "problem"),
    [
        ("text-classification", [{"label": "A", "score": 0.5}], None),
        ("text-classification", [{"label": "A", "score": float("nan")}], "finite"),
        ("text-classification", {"foo": 1}, "not a label"),
        ("feature-extraction", [[0.1, 0.2]], None),
        ("feature-extraction", [["a"]], "not a finite number"),
        ("sentence-similarity", [], "empty"),
        ("token-classification", [], None),
        ("question-answering", {"answer": "x", "score": 1.0}, None),
        ("text-generation", "words", None),
        ("text-generation", {"x": 1}, "not a text"),
        (None, {"anything": "goes"}, None),
        (None, None, "empty"),
    ],
)
def test_the_form_of_an_answer_is_checked_by_task(task: str | None, answer: Any, problem: str | None) -> None:
    found = misfit_of(task, answer)
    assert (found is None) == (problem is None)
    assert (problem or "") in (found or "")


def test_only_the_best_label_is_compared() -> None:
    expected = [{"label": "A", "score": 0.9}, {"label": "B", "score": 0.1}]
    assert label_mismatch(expected, [[{"label": "B", "score": 0.4}, {"label": "A", "score": 0.6}]]) is None
    assert label_mismatch(expected, [{"label": "B", "score": 0.6}])
    assert label_mismatch({"text": "x"}, [{"label": "B", "score": 0.6}]) is None


def test_a_card_without_examples_gets_its_tasks_default() -> None:
    examples = plan_examples(make_card(widget=[]), "sentence-similarity", most=5, read_file=lambda _: None)
    assert len(examples) == 1
    assert set(examples[0].inputs) == {"source_sentence", "sentences"}


def test_a_mask_is_taken_from_the_models_own_tokenizer() -> None:
    files = {"tokenizer_config.json": b'{"mask_token": {"content": "<mask>"}}'}
    card = make_card(widget=[], pipeline_tag="fill-mask")
    (example,) = plan_examples(card, "fill-mask", most=5, read_file=files.get)
    assert "<mask>" in example.inputs


def test_files_of_examples_come_from_the_repository_and_from_nowhere_else() -> None:
    card = make_card(
        pipeline_tag="image-classification",
        widget=[{"src": "cat.png"}, {"src": "https://images.example/dog.png"}],
    )
    examples = plan_examples(card, "image-classification", most=5, read_file={"cat.png": b"PNG"}.get)
    assert [example.inputs for example in examples] == [b"PNG"]


def test_the_clients_environment_has_no_secrets() -> None:
    kept = scrubbed({"HF_TOKEN": "x", "https_proxy": "y", "OPENAI_API_KEY": "z", "PATH": "/bin", "LANG": "C"})
    assert {"PATH", "LANG"} <= set(kept)
    assert not {"HF_TOKEN", "https_proxy", "OPENAI_API_KEY"} & set(kept)


@pytest.mark.parametrize(
    ("wire", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", b"ok"),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", b"until the end"),
    ],
)
def test_answers_are_read_in_every_form_of_http(wire: bytes, body: bytes) -> None:
    assert parse_answer(wire).body == body


@pytest.mark.parametrize(
    "wire",
    [
        b"",
        b"SSH-2.0-server\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nbroken off",
        b"HTTP/1.1 OK\r\n\r\n",
    ],
)
def test_what_is_no_answer_is_told_of(wire: bytes) -> None:
    with pytest.raises(NoAnswer):
        parse_answer(wire)


def _verifications(engine: Engine, model: str) -> list[dict[str, Any]]:
    return engine.list_containers({"constellation.role": "verification", "constellation.subject": model})
