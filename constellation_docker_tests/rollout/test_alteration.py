"""What somebody changes of a container in place: `docker update`, `rename`, `pause`, `network disconnect` and `connect`."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import httpx
import pytest

from constellation_docker.cards.serving_options import Reservations, Resources
from constellation_docker.compose import compile_environment
from constellation_docker.engine import Engine
from constellation_docker.rollout import (
    Observed,
    Replica,
    choose_inspected,
    find_alterations,
    find_drift,
    inspect_replicas,
    observe,
    plan_environment,
)
from constellation_docker.rollout.observed import balancer_name, parse_replica
from constellation_docker.settings import EnvironmentSettings
from constellation_docker_tests.compose.services import BALANCER_IMAGE, wanted
from constellation_docker_tests.fixtures.deadline import wait_for
from constellation_docker_tests.fixtures.tiny_service import PATIENT, Clients, Environment

SLUG = "acme-sentiment"
MEBIBYTE = 1 << 20


def facts(**limits: Any) -> dict[str, Any]:
    """What an engine says of a container as it was created, but for these fields of `HostConfig`."""
    config = {
        "Memory": 128 * MEBIBYTE,
        "MemorySwap": 256 * MEBIBYTE,
        "MemoryReservation": 64 * MEBIBYTE,
        "NanoCpus": 500_000_000,
        "PidsLimit": 99,
        "CpuShares": 0,
        "CpusetCpus": "",
        "RestartPolicy": {"Name": "unless-stopped", "MaximumRetryCount": 0},
    }
    endpoint = {"Aliases": [f"p-{SLUG}-1", SLUG, f"1.{SLUG}", "0123456789ab"]}
    return {
        "Name": f"/p-{SLUG}-1",
        "HostConfig": {**config, **limits},
        "NetworkSettings": {"Networks": {"p_default": endpoint, "monitoring": {"Aliases": None}}},
    }


def alterations(found: dict[str, Any], resources: Resources | None = None) -> tuple[str, ...]:
    limits = resources or Resources(memory="128m", cpus=0.5, pids=99, reservations=Reservations(memory="64m"))
    file = compile_environment(
        "dev",
        EnvironmentSettings(project="p"),
        [wanted(resources=limits)],
        balancer_image=BALANCER_IMAGE,
    )
    return find_alterations(found, file.services[SLUG].service, file.network, f"1.{SLUG}", now=1000.0)


@pytest.mark.parametrize(
    ("limits", "found"),
    [
        ({}, ()),
        ({"Memory": 64 * MEBIBYTE}, ("has 64 MiB of memory instead of 128 MiB",)),
        ({"MemoryReservation": 32 * MEBIBYTE}, ("has 32 MiB of reserved memory instead of 64 MiB",)),
        ({"NanoCpus": 2_000_000_000}, ("has 2 processors instead of 0.5",)),
        ({"PidsLimit": -1}, ("may run any number of processes instead of 99",)),
        ({"PidsLimit": 5}, ("may run 5 processes instead of 99",)),
        ({"MemorySwap": 512 * MEBIBYTE}, ("has another limit of swap",)),
        ({"CpuShares": 2}, ("has limits that nobody asked for: CpuShares",)),
        ({"RestartPolicy": {"Name": "no"}}, ("has the restart policy no instead of unless-stopped",)),
        ({"RestartPolicy": {"Name": ""}}, ("has the restart policy no instead of unless-stopped",)),
    ],
)
def test_every_change_that_an_update_can_make_is_said_in_words(
    limits: dict[str, Any], found: tuple[str, ...]
) -> None:
    assert alterations(facts(**limits)) == found


def test_an_engine_that_cannot_set_limits_altered_nothing() -> None:
    helpless = {"Memory": 0, "MemoryReservation": 0, "NanoCpus": 0, "PidsLimit": None, "MemorySwap": -1}
    assert alterations(facts(**helpless)) == ()


def test_a_container_that_left_the_network_or_lost_its_name_there_is_altered() -> None:
    away, nameless = deepcopy(facts()), deepcopy(facts())
    del away["NetworkSettings"]["Networks"]["p_default"]
    nameless["NetworkSettings"]["Networks"]["p_default"]["Aliases"] = ["0123456789ab"]
    assert alterations(away) == ("is not in the network p_default",)
    assert alterations(nameless) == (f"is not known as 1.{SLUG} in the network p_default",)


@pytest.mark.parametrize(
    ("crashes", "started", "found"),
    [
        (3, "1970-01-01T00:16:00.123456789Z", ("crashes again and again",)),
        (2, "1970-01-01T00:16:00.123456789Z", ()),
        (9, "1970-01-01T00:05:00Z", ()),
        (9, "", ()),
    ],
)
def test_a_container_that_docker_starts_again_and_again_is_found_while_it_does(
    crashes: int, started: str, found: tuple[str, ...]
) -> None:
    assert alterations({**facts(), "RestartCount": crashes, "State": {"StartedAt": started}}) == found


def row(**changes: Any) -> dict[str, Any]:
    found = {
        "Id": "id",
        "Names": [f"/p-{SLUG}-1"],
        "State": "running",
        "Status": "Up",
        "Labels": {
            "com.docker.compose.project": "p",
            "com.docker.compose.service": SLUG,
            "com.docker.compose.container-number": "1",
        },
        "NetworkSettings": {"Networks": {"p_default": {"IPAddress": "10.0.0.2"}}},
    }
    return {**found, **changes}


def test_the_list_of_containers_shows_another_name_and_a_container_off_its_network() -> None:
    replica = parse_replica(row())
    assert (replica.alterations, replica.state, replica.address) == ((), "running", "10.0.0.2")
    assert parse_replica(row(Names=["/x"])).alterations == (f"has another name than p-{SLUG}-1",)
    elsewhere = {"Networks": {"a": {"IPAddress": "10.9.9.9"}, "p_default": {"IPAddress": "10.0.0.2"}}}
    assert parse_replica(row(NetworkSettings=elsewhere)).address == "10.0.0.2"
    del elsewhere["Networks"]["p_default"]
    assert parse_replica(row(NetworkSettings=elsewhere)).state == "disconnected"


def test_a_comparison_asks_for_those_that_were_named_and_for_all_the_others_in_turn() -> None:
    def group(slug: str) -> tuple[Replica, ...]:
        names = [f"p-{slug}-{number}" for number in range(1, 8)]
        return tuple(Replica(name, name, 1, name, "running", "healthy", "h") for name in names)

    observed = Observed("p", services={"one": group("one"), "two": group("two")})
    everything = {replica.id for replicas in observed.services.values() for replica in replicas}
    assert choose_inspected(observed, ["p-two-3", "gone"], 0, 0) == {"p-two-3"}
    turns = [choose_inspected(observed, [], turn, 4) for turn in range(4)]
    assert [len(turn) for turn in turns] == [4, 4, 4, 4]
    assert set().union(*turns) == everything
    assert choose_inspected(observed, [], 7, 1_000_000) == everything
    assert choose_inspected(Observed("p"), ["x"], 3, 10) == set()


def alter(engine: Engine, project: str) -> None:
    """Do something else to each of three replicas."""
    names = [f"{project}-tiny-{number}" for number in range(1, 4)]
    engine.update(names[0], {"Memory": 64 * MEBIBYTE, "RestartPolicy": {"Name": "no"}})
    engine.rename(names[0], f"{project}-other")
    engine.disconnect_container(f"{project}_default", names[1])
    engine.connect_container(f"{project}_default", names[1])
    with engine._calling("pausing") as client:
        client.pause(names[2])


@pytest.mark.slow
def test_replicas_that_were_altered_in_place_are_all_replaced_and_no_request_is_lost(
    environment: Environment,
) -> None:
    engine, project = environment.engine, environment.project
    environment.deploy = PATIENT
    environment.want(replicas=4)
    environment.roll_out()

    def look() -> Observed:
        seen = observe(engine, project)
        own = {replica.id for replica in seen.replicas("tiny")}
        return inspect_replicas(engine, seen, environment.file, own)

    assert find_drift(look(), environment.file).services == {}, "what is as it was created is not altered"
    alter(engine, project)
    faults = find_drift(look(), environment.file).services["tiny"].faults
    assert faults == (
        f"{project}-other has another name than {project}-tiny-1",
        f"{project}-other has 64 MiB of memory instead of 128 MiB",
        f"{project}-other has the restart policy no instead of unless-stopped",
        f"{project}-tiny-2 is not known as 2.tiny in the network {project}_default",
        f"{project}-tiny-3 is paused",
    )
    # What a frozen process has taken is lost whoever replaces it; the balancer sends it no more after a few checks.
    wait_for(lambda: is_down(engine, project, "3.tiny"), seconds=120, what="the balancer's verdict")
    with Clients(environment.url(), count=4) as clients:
        environment.roll_out()
    assert clients.failures == [] and clients.answered
    assert sorted(environment.containers()) == [f"{project}-tiny-{number}" for number in (4, 5, 6, 7)]
    assert find_drift(look(), environment.file).services == {}
    assert environment.roll_out().outcome == "unchanged"


def is_down(engine: Engine, project: str, host: str) -> bool:
    members = observe(engine, project).state.members("tiny")
    return any(member.host == host and member.check == "down" for member in members)


@pytest.mark.slow
@pytest.mark.parametrize("change", ["paused", "disconnected", "renamed"])
def test_a_balancer_that_was_changed_in_place_answers_again_after_the_next_rollout(
    environment: Environment, change: str
) -> None:
    engine, project = environment.engine, environment.project
    environment.deploy = PATIENT
    environment.want()
    environment.roll_out()
    name = balancer_name(project)
    if change == "paused":
        with engine._calling("pausing") as client:
            client.pause(name)
    elif change == "disconnected":
        engine.disconnect_container(f"{project}_default", name)
    else:
        engine.rename(name, f"{project}-other")
    report = find_drift(observe(engine, project), environment.file)
    assert report.ground and report.services == {}
    assert environment.roll_out().outcome == "unchanged"
    wait_for(lambda: httpx.post(environment.url()).status_code == 200, what="the endpoint")
    seen = observe(engine, project)
    assert find_drift(seen, environment.file).ground == ()
    assert plan_environment(seen, environment.file).is_empty
