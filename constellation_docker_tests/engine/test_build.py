"""Building images: what is told, what fails how, and that stopping stops."""

from __future__ import annotations

import io
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from constellation_docker.engine import (
    BuildCancelled,
    BuildFailed,
    BuildTimedOut,
    DiskFull,
    Engine,
    EngineUnreachable,
    RegistryUnreachable,
)
from constellation_docker.packaging.base_image import BaseImage
from constellation_docker_tests.fixtures.deadline import wait_for
from constellation_docker_tests.fixtures.engine import TEST_LABEL, PrivateEngine, build_context
from constellation_docker_tests.fixtures.ports import free_port


@pytest.fixture
def tag(engine: Engine) -> Iterator[str]:
    """A name for an image, which is removed afterwards."""
    name = f"constellation-test-build:{uuid.uuid4().hex[:12]}"
    yield name
    engine.remove_image(name, force=True)


def _context(base: BaseImage, *lines: str, **files: str) -> io.BytesIO:
    return build_context({"Dockerfile": "\n".join((f"FROM {base.reference}", *lines)), **files})


def test_a_build_gives_an_image_and_its_steps(engine: Engine, python_base: BaseImage, tag: str) -> None:
    salt = uuid.uuid4().hex
    context = _context(python_base, f"RUN echo {salt}", "COPY greeting /greeting", greeting="hello")
    built = engine.build(context, tag=tag, labels={TEST_LABEL: "build"})
    facts = engine.require_image(tag)
    assert facts.id == built.image_id
    assert facts.labels[TEST_LABEL] == "build"
    assert [step.name for step in built.steps if step.name.startswith("[2/3]")] == [f"[2/3] RUN echo {salt}"]
    assert not built.is_cached
    assert built.seconds > 0


def test_every_line_of_a_step_is_told_as_it_comes_under_its_number(
    engine: Engine, python_base: BaseImage, tag: str
) -> None:
    salt = uuid.uuid4().hex
    came: list[tuple[float, str]] = []
    context = _context(python_base, f"RUN echo first-{salt}; sleep 2; printf 'second\\nthird without an end'")
    engine.build(context, tag=tag, on_line=lambda line: came.append((time.monotonic(), line)))
    times = {line.partition(" ")[2]: when for when, line in came}
    number = next(line.partition(" ")[0] for _, line in came if line.endswith(f" first-{salt}"))
    assert f"{number} second" in [line for _, line in came]
    assert f"{number} third without an end" in [line for _, line in came]
    assert times["second"] - times[f"first-{salt}"] > 0.2


def test_the_same_build_again_is_cached(engine: Engine, python_base: BaseImage, tag: str) -> None:
    salt = uuid.uuid4().hex
    lines = (f"RUN echo {salt}",)
    first = engine.build(_context(python_base, *lines), tag=tag)
    second = engine.build(_context(python_base, *lines), tag=tag)
    assert second.is_cached
    assert second.image_id == first.image_id


def test_arguments_target_and_labels_arrive(engine: Engine, python_base: BaseImage, tag: str) -> None:
    dockerfile = (
        f"FROM {python_base.reference} AS one\nARG WORD\nRUN echo $WORD > /word\nLABEL stage=one\n"
        "FROM one AS two\nLABEL stage=two\n"
    )
    engine.build(
        build_context({"folder/Own": dockerfile}),
        tag=tag,
        dockerfile="folder/Own",
        target="one",
        build_args={"WORD": uuid.uuid4().hex},
        labels={"b": "2", "a": "1"},
    )
    labels = engine.require_image(tag).labels
    assert (labels["stage"], labels["a"], labels["b"]) == ("one", "1", "2")


def test_a_failing_step_is_named_with_its_last_lines(
    engine: Engine, python_base: BaseImage, tag: str
) -> None:
    context = _context(
        python_base, "RUN echo good", f"RUN echo one; echo two >&2; echo {uuid.uuid4().hex}; exit 3"
    )
    with pytest.raises(BuildFailed) as caught:
        engine.build(context, tag=tag)
    assert caught.value.step is not None
    assert caught.value.step.startswith("[3/3] RUN echo one")
    assert {"one", "two"} < set(caught.value.log_tail)
    assert caught.value.details["log_tail"] == list(caught.value.log_tail)
    assert "exit code: 3" in caught.value.message
    assert tag in caught.value.message
    assert not caught.value.is_transient
    assert engine.image(tag) is None


def test_of_a_long_log_the_end_is_kept(engine: Engine, python_base: BaseImage, tag: str) -> None:
    context = _context(
        python_base, f"RUN for i in $(seq 500); do echo line $i; done; echo {uuid.uuid4().hex}; exit 1"
    )
    with pytest.raises(BuildFailed) as caught:
        engine.build(context, tag=tag)
    assert caught.value.log_tail[-2] == "line 500"
    assert len(caught.value.log_tail) == 60


def test_a_wrong_dockerfile_is_a_failed_build(engine: Engine, python_base: BaseImage, tag: str) -> None:
    with pytest.raises(BuildFailed, match="unknown instruction: RUNN"):
        engine.build(_context(python_base, "RUNN x"), tag=tag)


def test_a_missing_file_is_a_failed_build(engine: Engine, python_base: BaseImage, tag: str) -> None:
    with pytest.raises(BuildFailed) as caught:
        engine.build(_context(python_base, "COPY nowhere /x"), tag=tag)
    assert "nowhere" in caught.value.message


def test_a_base_image_whose_registry_is_down_may_be_tried_again(engine: Engine, tag: str) -> None:
    with pytest.raises(RegistryUnreachable, match="connection refused") as caught:
        engine.build(build_context({"Dockerfile": f"FROM 127.0.0.1:{free_port()}/a/b:1"}), tag=tag)
    assert caught.value.is_transient


def test_a_base_image_that_does_not_exist_is_a_failed_build(
    engine: Engine, anonymous_registry: object, tag: str
) -> None:
    base = f"{anonymous_registry.address}/no/such:1"  # type: ignore[attr-defined]
    with pytest.raises(BuildFailed) as caught:
        engine.build(build_context({"Dockerfile": f"FROM {base}"}), tag=tag)
    assert base in str(caught.value.step)


def test_cancelling_stops_the_step_on_the_engine(engine: Engine, python_base: BaseImage, tag: str) -> None:
    seconds = str(100_000 + uuid.uuid4().int % 100_000)  # found again among the machine's processes
    has_started = threading.Event()

    def follow(line: str) -> None:
        if line.endswith(" it runs"):
            has_started.set()

    context = _context(python_base, f"RUN echo it runs; exec sleep {seconds}")
    with pytest.raises(BuildCancelled, match=tag):
        engine.build(
            context, tag=tag, on_line=follow, is_cancelled=lambda: has_started.is_set() and _runs(seconds)
        )
    wait_for(lambda: not _runs(seconds), what="the end of the step")
    assert engine.image(tag) is None


def test_an_error_of_the_caller_stops_the_step_too(engine: Engine, python_base: BaseImage, tag: str) -> None:
    seconds = str(100_000 + uuid.uuid4().int % 100_000)

    def follow(line: str) -> None:
        if line.endswith(" it runs"):
            wait_for(lambda: _runs(seconds), what="the step's start")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.build(
            _context(python_base, f"RUN echo it runs; exec sleep {seconds}"), tag=tag, on_line=follow
        )
    wait_for(lambda: not _runs(seconds), what="the end of the step")


def test_a_build_that_takes_too_long_is_stopped_and_says_where(
    engine: Engine, python_base: BaseImage, tag: str
) -> None:
    seconds = str(100_000 + uuid.uuid4().int % 100_000)
    context = _context(python_base, f"RUN echo it runs; exec sleep {seconds}")
    with pytest.raises(BuildTimedOut) as caught:
        engine.build(context, tag=tag, timeout_seconds=3)
    assert f"sleep {seconds}" in str(caught.value.step)
    assert caught.value.log_tail == ("it runs",)
    wait_for(lambda: not _runs(seconds), what="the end of the step")


def test_an_upload_may_be_cancelled(engine: Engine, tag: str) -> None:
    sent: list[int] = []

    def endless() -> Iterator[bytes]:
        while True:
            sent.append(1)
            yield b"\0" * 65536

    with pytest.raises(BuildCancelled):
        engine.build(endless(), tag=tag, is_cancelled=lambda: len(sent) > 100)


def test_a_context_that_cannot_be_read_is_not_taken_for_a_lost_engine(
    engine: Engine, tag: str, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError, match="gone"):
        engine.build(tmp_path / "gone.tar", tag=tag)


def test_the_engine_may_be_killed_in_the_middle_and_the_next_build_is_right(
    second_engine: PrivateEngine, engine: Engine, balancer_base: BaseImage
) -> None:
    other = second_engine.connect()
    _load_shell(engine, balancer_base, other)
    lines = "FROM constellation-test-shell:1\nRUN --mount=type=tmpfs,target=/x echo it runs; sleep 30"
    context = build_context({"Dockerfile": lines})
    killed: list[str] = []

    def kill(line: str) -> None:
        if line.endswith(" it runs"):
            killed.append(line)
            second_engine.kill()

    try:
        with pytest.raises(EngineUnreachable, match="building constellation-test-mid:1") as caught:
            other.build(context, tag="constellation-test-mid:1", network="none", on_line=kill)
        assert caught.value.is_transient
        assert killed
    finally:
        second_engine.start()
    quick = build_context({"Dockerfile": "FROM constellation-test-shell:1\nRUN echo again"})
    assert other.build(quick, tag="constellation-test-mid:1", network="none").image_id


def test_a_full_disk_is_named_with_its_step(
    small_engine: PrivateEngine, engine: Engine, balancer_base: BaseImage
) -> None:
    other = small_engine.connect()
    _load_shell(engine, balancer_base, other)
    dockerfile = "FROM constellation-test-shell:1\nRUN dd if=/dev/zero of=/big bs=1M count=1000"
    with pytest.raises(DiskFull) as caught:
        other.build(
            build_context({"Dockerfile": dockerfile}), tag="constellation-test-full:1", network="none"
        )
    assert "dd if=/dev/zero" in caught.value.message
    assert "docker system df" in caught.value.remedy
    # The room that the broken step took is free again.
    small = build_context({"Dockerfile": "FROM constellation-test-shell:1\nRUN echo small"})
    assert other.build(small, tag="constellation-test-full:1", network="none").image_id


def test_a_context_too_large_for_the_disk_is_a_full_disk(small_engine: PrivateEngine) -> None:
    engine = small_engine.connect()
    files = {"Dockerfile": "FROM scratch\nCOPY big /big", "big": bytes(250_000_000)}
    with pytest.raises(DiskFull):
        engine.build(build_context(files), tag="constellation-test-full:2")


def _runs(seconds: str) -> bool:
    """Whether `sleep <seconds>` runs on this machine."""
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return f"sleep {seconds}" in [line.strip() for line in listed.splitlines()]


def _load_shell(source: Engine, base: BaseImage, target: Engine) -> None:
    """Give an empty engine an image with a shell, by way of an archive."""
    target.load_image(source.save_image(base.reference))
    target.build(
        build_context({"Dockerfile": f"FROM {base.reference}\nUSER 0:0"}), tag="constellation-test-shell:1"
    )
