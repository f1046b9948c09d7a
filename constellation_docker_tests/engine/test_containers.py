"""Containers, networks, volumes and events on a real engine."""

from __future__ import annotations

import io
import itertools
import tarfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from constellation_docker.engine import (
    CallCancelled,
    Conflict,
    DeadlineExceeded,
    Engine,
    EngineError,
    EngineUnreachable,
    ImageNotFound,
    NotFound,
)
from constellation_docker.packaging.base_image import BaseImage
from constellation_docker_tests.fixtures.deadline import wait_for
from constellation_docker_tests.fixtures.engine import TEST_LABEL, PrivateEngine, build_context

Make = Callable[..., str]


@pytest.fixture
def label(engine: Engine) -> Iterator[dict[str, str]]:
    """A label for everything that one test makes; whatever carries it goes afterwards."""
    mark = {TEST_LABEL: f"containers-{uuid.uuid4().hex[:12]}"}
    yield mark
    for row in engine.list_containers(mark):
        engine.remove(row["Id"], force=True)
    for row in engine.list_networks(mark):
        engine.remove_network(row["Id"])
    for row in engine.list_volumes(mark):
        engine.remove_volume(row["Name"])


@pytest.fixture
def make(engine: Engine, python_base: BaseImage, label: dict[str, str]) -> Make:
    """Creates containers that run a shell script."""

    def create(script: str = "exec sleep 1000", **config: Any) -> str:
        body = {"Image": python_base.image_id, "Cmd": ["sh", "-c", script], "Labels": label, **config}
        return engine.create_container(f"constellation-test-{uuid.uuid4().hex[:12]}", body)

    return create


def test_a_container_runs_and_tells_its_exit_code_and_its_log(engine: Engine, make: Make) -> None:
    container = make("echo out; echo err >&2; printf 'no end'; exit 7")
    engine.start(container)
    assert engine.wait(container, timeout_seconds=30) == 7
    assert set(engine.logs(container).splitlines()) == {"out", "err", "no end"}
    assert engine.logs(container, tail=0) == ""
    assert engine.container(container)["State"]["ExitCode"] == 7  # type: ignore[index]


def test_a_log_is_followed_until_the_container_ends(engine: Engine, make: Make) -> None:
    container = make("for i in 1 2 3; do echo line $i; sleep 0.2; done")
    engine.start(container)
    assert list(engine.follow_logs(container)) == ["line 1", "line 2", "line 3"]


def test_following_a_silent_log_can_be_cancelled(engine: Engine, make: Make) -> None:
    container = make()
    engine.start(container)
    started = time.monotonic()
    with pytest.raises(CallCancelled):
        list(engine.follow_logs(container, is_cancelled=lambda: time.monotonic() > started + 0.3))


def test_a_log_longer_than_any_buffer_arrives_whole(engine: Engine, make: Make) -> None:
    container = make("python3 -c \"print('x' * 200_000); print('end')\"")
    engine.start(container)
    engine.wait(container, timeout_seconds=30)
    first, last = engine.logs(container).splitlines()
    assert len(first) == 200_000
    assert last == "end"


def test_a_terminals_log_is_read_too(engine: Engine, make: Make) -> None:
    container = make("echo one; echo two", Tty=True)
    engine.start(container)
    engine.wait(container, timeout_seconds=30)
    assert engine.logs(container).splitlines() == ["one", "two"]


def test_a_log_since_a_moment_leaves_out_what_came_before(engine: Engine, make: Make) -> None:
    container = make("echo early; sleep 1.2; echo late")
    engine.start(container)
    engine.wait(container, timeout_seconds=30)
    stamps = engine.logs(container, timestamps=True).splitlines()
    assert stamps[0].endswith("Z early")
    assert engine.logs(container, since=engine.now() - 0.9).splitlines() == ["late"]


def test_waiting_for_a_container_that_goes_on_ends_at_the_deadline(engine: Engine, make: Make) -> None:
    container = make()
    engine.start(container)
    with pytest.raises(DeadlineExceeded, match=r"0\.3 seconds"):
        engine.wait(container, timeout_seconds=0.3)


def test_stopping_sends_sigterm_and_kills_after_the_grace(engine: Engine, make: Make) -> None:
    kind, stubborn = (
        make("trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done"),
        make("trap '' TERM; echo up; while :; do sleep 0.05; done"),
    )
    for container in (kind, stubborn):
        engine.start(container)
        wait_for(lambda container=container: "up" in engine.logs(container))  # type: ignore[misc]
    engine.stop(kind, grace_seconds=20)
    assert engine.wait(kind, timeout_seconds=5) == 0
    assert "bye" in engine.logs(kind)
    engine.stop(stubborn, grace_seconds=1)
    assert engine.wait(stubborn, timeout_seconds=5) == 137


def test_a_command_inside_gives_both_streams_and_its_exit_code(engine: Engine, make: Make) -> None:
    container = make()
    engine.start(container)
    result = engine.execute(
        container,
        ["sh", "-c", "echo $WORD; id -u; echo bad >&2; exit 5"],
        user="65532",
        environment={"WORD": "hi"},
    )
    assert (result.exit_code, result.stdout, result.stderr) == (5, b"hi\n65532\n", b"bad\n")


def test_a_command_inside_reads_its_input_to_the_end(engine: Engine, make: Make) -> None:
    container = make()
    engine.start(container)
    data = bytes(range(256)) * 8_000
    assert engine.execute(container, ["cat"], stdin=data).stdout == data
    assert engine.execute(container, ["sh", "-c", "echo early; exit 0"], stdin=data).stdout == b"early\n"


def test_a_command_inside_that_hangs_ends_at_the_deadline(engine: Engine, make: Make) -> None:
    container = make()
    engine.start(container)
    with pytest.raises(DeadlineExceeded, match="running sleep"):
        engine.execute(container, ["sleep", "1000"], timeout_seconds=0.3)


def test_a_command_in_a_container_that_does_not_run_is_a_conflict(engine: Engine, make: Make) -> None:
    with pytest.raises(Conflict, match="is not running"):
        engine.execute(make(), ["true"])


def test_files_go_in_and_come_out(engine: Engine, make: Make) -> None:
    container = make()
    engine.put_file(container, "/tmp/message", b"hello", mode=0o600)
    with tarfile.open(fileobj=io.BytesIO(engine.get_archive(container, "/tmp/message"))) as archive:
        member = archive.getmembers()[0]
        assert (member.name, member.mode & 0o777) == ("message", 0o600)
        assert archive.extractfile(member).read() == b"hello"  # type: ignore[union-attr]
    with pytest.raises(NotFound):
        engine.get_archive(container, "/no/such")


def test_what_is_not_there_is_none_or_false_or_a_typed_error(engine: Engine) -> None:
    assert engine.container("no-such-container") is None
    assert engine.image("no/such:image") is None
    assert engine.network("no-such-network") is None
    assert engine.volume("no-such-volume") is None
    assert engine.remove("no-such-container") is False
    assert engine.remove_image("no/such:image") is False
    assert engine.remove_network("no-such-network") is False
    assert engine.remove_volume("no-such-volume") is False
    with pytest.raises(NotFound, match="no-such-container"):
        engine.start("no-such-container")
    with pytest.raises(ImageNotFound):
        engine.create_container("constellation-test-none", {"Image": "no/such:image"})


def test_a_taken_name_is_a_conflict(engine: Engine, make: Make) -> None:
    name = engine.container(make())["Name"].lstrip("/")  # type: ignore[index]
    with pytest.raises(Conflict, match=name):
        engine.create_container(name, {"Image": engine.container(name)["Image"]})  # type: ignore[index]


def test_containers_are_found_by_label_renamed_and_updated(
    engine: Engine, make: Make, label: dict[str, str]
) -> None:
    container = make()
    assert [row["Id"] for row in engine.list_containers(label)] == [container]
    assert [row["Id"] for row in engine.list_containers({TEST_LABEL: None, **label})] == [container]
    assert engine.list_containers(label, all=False) == []
    name = f"constellation-test-{uuid.uuid4().hex[:12]}"
    engine.rename(container, name)
    engine.update(container, {"RestartPolicy": {"Name": "unless-stopped"}})
    facts = engine.container(name)
    assert facts is not None
    assert facts["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"


def test_a_running_container_tells_what_it_uses(engine: Engine, make: Make) -> None:
    container = make()
    engine.start(container)
    assert engine.stats(container)["memory_stats"]["usage"] > 0


def test_a_container_joins_several_networks_under_its_aliases(
    engine: Engine, make: Make, label: dict[str, str]
) -> None:
    names = [f"constellation-test-{uuid.uuid4().hex[:12]}" for _ in range(2)]
    for name in names:
        engine.create_network(name, labels=label, internal=True)
    endpoints = {name: {"Aliases": [f"alias-{number}"]} for number, name in enumerate(names)}
    container = make(NetworkingConfig={"EndpointsConfig": endpoints}, HostConfig={"NetworkMode": names[1]})
    joined = engine.container(container)["NetworkSettings"]["Networks"]  # type: ignore[index]
    assert set(joined) == set(names)
    assert all(f"alias-{number}" in joined[name]["Aliases"] for number, name in enumerate(names))
    assert {row["Name"] for row in engine.list_networks(label)} == set(names)


def test_a_container_that_cannot_join_a_network_is_not_left_behind(
    engine: Engine, make: Make, label: dict[str, str]
) -> None:
    names = [f"constellation-test-{uuid.uuid4().hex[:12]}" for _ in range(2)]
    for name in names:
        engine.create_network(name, labels=label, internal=True)
    impossible = {"IPAMConfig": {"IPv4Address": "no address"}}
    with pytest.raises(EngineError):
        make(
            NetworkingConfig={"EndpointsConfig": {names[0]: {}, names[1]: impossible}},
            HostConfig={"NetworkMode": names[0]},
        )
    assert engine.list_containers(label) == []


def test_a_container_joins_and_leaves_a_network(engine: Engine, make: Make, label: dict[str, str]) -> None:
    name = f"constellation-test-{uuid.uuid4().hex[:12]}"
    engine.create_network(name, labels=label, internal=True)
    container = make()
    engine.connect_container(name, container, aliases=["friend"])
    assert "friend" in engine.container(container)["NetworkSettings"]["Networks"][name]["Aliases"]  # type: ignore[index]
    assert engine.disconnect_container(name, container)
    assert name not in engine.container(container)["NetworkSettings"]["Networks"]  # type: ignore[index]
    with pytest.raises(Conflict):
        engine.create_network(name, labels=label)


def test_volumes_are_made_found_and_removed(engine: Engine, label: dict[str, str]) -> None:
    name = f"constellation-test-{uuid.uuid4().hex[:12]}"
    engine.create_volume(name, labels=label)
    assert [row["Name"] for row in engine.list_volumes(label)] == [name]
    assert engine.remove_volume(name)
    assert engine.volume(name) is None


def test_events_come_in_order_and_each_once(engine: Engine, make: Make, label: dict[str, str]) -> None:
    since = engine.now()
    container = make("exit 3")
    engine.start(container)
    engine.wait(container, timeout_seconds=30)
    wanted = {"label": [f"{TEST_LABEL}={label[TEST_LABEL]}"], "type": ["container"]}
    events = list(itertools.islice(engine.events(since=since, filters=wanted), 3))
    assert [event.action for event in events] == ["create", "start", "die"]
    assert events[2].attributes["exitCode"] == "3"
    assert {event.id for event in events} == {container}
    past = list(engine.events(since=since, until=engine.now(), filters=wanted))
    assert [event.action for event in past] == ["create", "start", "die"]


def test_following_events_can_be_cancelled(engine: Engine) -> None:
    started = time.monotonic()
    wanted = {"label": ["constellation.test=nobody"]}
    assert list(engine.events(filters=wanted, is_cancelled=lambda: time.monotonic() > started + 0.3)) == []


def test_events_go_on_after_the_engine_was_killed_and_came_back(second_engine: PrivateEngine) -> None:
    engine = second_engine.connect()
    seen: list[str] = []
    is_over = threading.Event()

    def follow() -> None:
        for event in engine.events(filters={"type": ["volume"]}, is_cancelled=is_over.is_set):
            seen.append(event.id)

    follower = threading.Thread(target=follow)
    follower.start()
    try:
        wait_for(lambda: _made(engine, "before") and "before" in seen, what="the first event")
        second_engine.kill()
        second_engine.start()
        wait_for(lambda: _made(engine, "after") and "after" in seen, what="an event of the new engine")
    finally:
        is_over.set()
        follower.join(20)
    assert not follower.is_alive()


def test_events_of_an_engine_that_stays_away_end_with_an_error(second_engine: PrivateEngine) -> None:
    engine = second_engine.connect()
    events = engine.events(filters={"type": ["volume"]}, reconnect_seconds=1.0, since=engine.now())
    engine.create_volume("first")
    engine.remove_volume("first")
    assert next(events).id == "first"
    second_engine.kill()
    try:
        with pytest.raises(EngineUnreachable):
            list(events)
    finally:
        second_engine.start()


def test_images_are_saved_loaded_and_labelled(
    engine: Engine, second_engine: PrivateEngine, label: dict[str, str]
) -> None:
    other = second_engine.connect()
    name = f"constellation-test-save:{uuid.uuid4().hex[:12]}"
    context = build_context({"Dockerfile": "FROM scratch\nCOPY x /x", "x": name})
    engine.build(context, tag=name, labels=label)
    try:
        assert other.load_image(engine.save_image(name)) == (name,)
        assert other.require_image(name).layers == engine.require_image(name).layers
        # Its id there may be another one: it depends on how an engine stores images.
        assert [row.tags for row in other.list_images(dict(label))] == [(name,)]
        assert other.image_history(name)[0]["CreatedBy"]
        assert other.remove_image(name)
    finally:
        engine.remove_image(name, force=True)


def _made(engine: Engine, name: str) -> bool:
    engine.create_volume(name)
    engine.remove_volume(name)
    return True
