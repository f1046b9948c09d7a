"""What belongs to nothing: who is chosen, by tables; and removed, on the real engine."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from constellation_docker.engine import Engine, ImageSummary
from constellation_docker.rollout.reaper import (
    Claims,
    Holdings,
    Leftover,
    measure,
    plan_reaping,
    reap,
    take_stock,
)
from constellation_docker_tests.fixtures.engine import TEST_LABEL, build_context
from constellation_docker_tests.fixtures.tiny_service import TINY_IMAGE

NOW, HOUR, OLD = 1_000_000.0, 3600.0, 1_000_000 - 7200
CLAIMS = Claims(
    projects=frozenset({"p"}),
    model_ids=frozenset({"known"}),
    images=frozenset({"ours/kept:1", "registry.example/models/kept@sha256:b"}),
    busy_models=frozenset({"acme/busy"}),
    prefix="ours",
    repository="registry.example/models",
)


def container(created: int = OLD, image: str = "", **labels: str) -> dict[str, Any]:
    named = {
        f"constellation.{key.replace('_', '-')}": value for key, value in labels.items() if key != "project"
    }
    if "project" in labels:
        named["com.docker.compose.project"] = labels["project"]
    return {
        "Id": "c",
        "Names": ["/c"],
        "Created": created,
        "ImageID": image,
        "State": "exited",
        "Labels": named,
    }


def image(
    *tags: str,
    digests: tuple[str, ...] = (),
    created: float = OLD,
    image_id: str = "sha256:i",
    marks: Mapping[str, str] | None = None,
    **more: str,
) -> ImageSummary:
    found = {**(marks or {}), **more}
    named = {f"constellation.{key.replace('_', '-')}": value for key, value in found.items()}
    return ImageSummary(image_id, tags, digests, 1, named, created)


MODEL = {"role": "model", "model_id": "known", "model": "acme/tiny", "version": "1"}


@pytest.mark.parametrize(
    ("found", "is_chosen"),
    [
        (container(role="verification", expires=str(NOW - 1)), True),
        (container(role="verification", expires=str(NOW + 1)), False),
        (container(resolver="17"), True),
        (container(resolver="17", created=int(NOW) - 60), False),
        (container(role="lock", project="p"), True),
        (container(role="lock", project="p", created=int(NOW) - 60), False),
        (container(role="lock", project="another installation's"), False),
        (container(role="model", project="p"), False),
        (container(role="model", project="p", expires=str(NOW - 1)), False),
        (container(test="somebody else's"), False),
    ],
)
def test_containers_of_killed_trials_go_when_their_time_is_over(
    found: dict[str, Any], is_chosen: bool
) -> None:
    chosen = plan_reaping(Holdings([found]), CLAIMS, now=NOW, min_age_seconds=HOUR)
    assert bool(chosen) is is_chosen


@pytest.mark.parametrize(
    ("found", "is_chosen"),
    [
        (image("ours/tiny:1", marks=MODEL), True),
        (image(marks=MODEL), True),
        (image("registry.example/models/tiny:1", marks=MODEL), True),
        (image("ours/kept:1", marks=MODEL), False),
        (image("ours/k:1", digests=("registry.example/models/kept@sha256:b",), marks=MODEL), False),
        (image("ours/tiny:1", created=NOW - 60, marks=MODEL), False),
        (image("ours/tiny:1", marks={**MODEL, "model": "acme/busy"}), False),
        (image("ours/tiny:1", marks={**MODEL, "model_id": "another installation's"}), False),
        (image("ours/tiny:1", "my/own:name", marks=MODEL), False),
        (image("ours/environment:e", role="environment", environment="sha256:e"), True),
        (image("theirs/environment:e", role="environment", environment="sha256:e"), False),
        (image("ours/environment:e", created=NOW - 60, role="environment", environment="sha256:e"), False),
        (image("ours/exporter:e", role="exporter", lock_digest="sha256:l"), True),
        (image("ours/own:e", role="own"), True),
        (image(role="environment", environment="sha256:e"), True),
        (image("ours/anything:1"), False),
    ],
)
def test_images_go_that_nobody_needs_or_may_return_to(found: ImageSummary, is_chosen: bool) -> None:
    holdings = Holdings(images=[found])
    assert bool(plan_reaping(holdings, CLAIMS, now=NOW, min_age_seconds=HOUR)) is is_chosen
    used = replace(holdings, containers=[container(image=found.id)])
    assert plan_reaping(used, CLAIMS, now=NOW, min_age_seconds=HOUR) == ()


def test_an_environment_stays_with_the_last_model_that_is_built_upon_it() -> None:
    environment = image("ours/environment:e", image_id="sha256:e", role="environment", environment="sha256:x")
    kept = image("ours/kept:1", environment="sha256:x", marks=MODEL)
    gone = image("ours/tiny:1", environment="sha256:x", marks=MODEL)

    def chosen(*images: ImageSummary, claims: Claims = CLAIMS) -> list[str]:
        found = plan_reaping(Holdings(images=images), claims, now=NOW, min_age_seconds=HOUR)
        return [item.name for item in found]

    assert chosen(environment, kept) == []
    assert chosen(environment, gone) == ["ours/tiny:1", "ours/environment:e"]
    assert chosen(environment, claims=replace(CLAIMS, is_building=True)) == [], "a run may be about to use it"


def test_a_network_goes_with_the_last_container_of_its_environment() -> None:
    network = {"Id": "n", "Name": "p_default", "Labels": {"com.docker.compose.project": "p"}}
    other = {"Id": "o", "Name": "q_default", "Labels": {"com.docker.compose.project": "q"}}
    idle = replace(CLAIMS, busy_models=frozenset())

    def chosen(claims: Claims, *containers: dict[str, Any]) -> list[str]:
        holdings = Holdings(containers, (), [network, other])
        return [item.name for item in plan_reaping(holdings, claims, now=NOW, min_age_seconds=HOUR)]

    assert chosen(idle) == ["p_default"]
    assert chosen(idle, container(role="balancer", project="p")) == []
    assert chosen(CLAIMS) == [], "a run may be about to use it"


@pytest.fixture
def prefix(engine: Engine) -> Iterator[str]:
    """A repository prefix of the test's own; what bears it goes."""
    mine = f"ct-reap-{uuid.uuid4().hex[:8]}"
    yield mine
    for found in engine.list_images({TEST_LABEL: mine}):
        engine.remove_image(found.id, force=True)


def test_an_old_release_and_a_killed_trial_are_removed_and_what_that_frees_is_known(
    engine: Engine, tiny_image: str, prefix: str
) -> None:
    model_id = str(uuid.uuid4())
    ids = {}
    for version in ("1", "2"):
        context = build_context(
            {"Dockerfile": f"FROM {TINY_IMAGE}\nCOPY blob /blob{version}\n", "blob": version * 300_000}
        )
        labels = {"constellation.role": "model", "constellation.model-id": model_id, TEST_LABEL: prefix}
        ids[version] = engine.build(context, tag=f"{prefix}/tiny:{version}", labels=labels).image_id
    # It expires half an hour before the moment that is planned for; now, a verification elsewhere would take it away.
    expiry = str(time.time() + HOUR / 2)
    expired = {"constellation.role": "verification", "constellation.expires": expiry}
    trial = engine.create_container(f"{prefix}-trial", {"Image": ids["2"], "Labels": expired})
    claims = Claims(model_ids=frozenset({model_id}), images=frozenset({f"{prefix}/tiny:2"}), prefix=prefix)
    # Others work on this engine, so only what is ours is looked at.
    stock = take_stock(engine)
    mine = Holdings(
        [row for row in stock.containers if row["Id"] == trial],
        [found for found in stock.images if found.id in ids.values()],
    )
    chosen = measure(engine, plan_reaping(mine, claims, now=engine.now() + HOUR, min_age_seconds=HOUR))
    assert [(item.sort, item.name) for item in chosen] == [
        ("container", f"{prefix}-trial"),
        ("image", f"{prefix}/tiny:1"),
    ]
    report = reap(engine, chosen)
    assert report.removed == chosen
    assert 300_000 <= report.freed_bytes < 400_000, "its own layer, and not those that it shares"
    assert engine.container(trial) is None
    assert engine.image(f"{prefix}/tiny:1") is None
    assert engine.image(f"{prefix}/tiny:2") is not None


def test_what_somebody_uses_after_all_stays(engine: Engine, tiny_image: str, prefix: str) -> None:
    context = build_context({"Dockerfile": f"FROM {TINY_IMAGE}\nENV A=B\n"})
    built = engine.build(context, tag=f"{prefix}/tiny:1", labels={TEST_LABEL: prefix}).image_id
    with engine.temporary_container(f"{prefix}-user", {"Image": built}):
        report = reap(engine, [Leftover("image", built, "tiny", "a test", (f"{prefix}/tiny:1",))])
    assert report.removed == ()
    assert "tiny" in report.kept
