"""The sensors' and the schedule's ticks on a real card store and a real (ephemeral) Dagster instance."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy import Engine as SqlEngine
from sqlalchemy import create_engine, event, text

from constellation_docker.cards import CardStore, ModelCard, Publication
from constellation_docker.cards.launch_guards import LaunchGuards, packaging_subject
from constellation_docker.defs import schedules, sensors, tags
from constellation_docker.defs.notices import NotificationFailed
from constellation_docker.defs.resources import CardStoreResource, SettingsResource
from constellation_docker.defs.sensors import ROWS_PER_TICK, SETTLING, ChangeCursor, advance

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    url = f"sqlite:///{tmp_path}/cards.db"
    monkeypatch.setenv("CONSTELLATION_DATABASE_URL", url)
    monkeypatch.setenv("CONSTELLATION_HOME", str(tmp_path))
    return url


@pytest.fixture
def store(database: str) -> Iterator[CardStore]:
    with CardStore.open(database) as opened:
        yield opened


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


def tick(instance: dg.DagsterInstance, cursor: str | None = None) -> dg.SensorResult | dg.SkipReason:
    context = dg.build_sensor_context(
        instance=instance,
        cursor=cursor,
        resources={"settings": SettingsResource(), "cards": CardStoreResource()},
    )
    result = sensors.model_cards(context)
    assert isinstance(result, dg.SensorResult | dg.SkipReason)
    return result


def register(store: CardStore, name: str = "sentiment", version: str = "1") -> str:
    card = ModelCard.from_registration(
        {
            "model_name": name,
            "model_version": version,
            "repo_url": "https://git.example/sentiment",
            "model_card": {"description": "", "data_used": "", "dependencies": []},
        }
    )
    return store.add(card).model_id


def age(database: str, seconds: float = 3600) -> None:
    """Make every row look as if it had been written some time ago."""
    moment = (datetime.now(UTC) - timedelta(seconds=seconds)).strftime("%Y-%m-%d %H:%M:%S.%f")
    with create_engine(database).begin() as connection:
        # The table's trigger would set the time again for an update of any other column.
        connection.execute(text("UPDATE model_cards SET updated_at = :moment"), {"moment": moment})


def test_one_tick_adds_the_partition_and_requests_the_run(
    store: CardStore, instance: dg.DagsterInstance
) -> None:
    model_id = register(store)
    result = tick(instance)
    assert isinstance(result, dg.SensorResult)
    (request,) = result.run_requests or []
    assert (request.partition_key, request.tags[tags.MODEL_ID]) == ("sentiment@1", model_id)
    (addition,) = result.dynamic_partitions_requests or []
    assert addition.partition_keys == ["sentiment@1"]


def test_a_published_model_is_put_on_the_board_even_if_its_run_was_killed_before_it_did_so(
    store: CardStore, instance: dg.DagsterInstance
) -> None:
    model_id = register(store)
    store.publish(
        model_id,
        Publication(
            model_id=model_id,
            commit="c" * 40,
            source_digest="sha256:s",
            image="sha256:i",
            image_size_bytes=1,
            runtime="onnx",
            published_at=datetime.now(UTC),
        ),
    )
    register(store, "waiting")
    result = tick(instance)
    assert isinstance(result, dg.SensorResult)
    additions = {
        addition.partitions_def_name: sorted(addition.partition_keys)
        for addition in result.dynamic_partitions_requests or []
    }
    assert additions == {"model_versions": ["sentiment@1", "waiting@1"], "models": ["sentiment"]}


def test_what_a_gateway_is_launching_is_left_to_it_and_not_lost(
    store: CardStore, instance: dg.DagsterInstance, database: str
) -> None:
    guards = LaunchGuards(store.database)
    subject = packaging_subject("sentiment@1")
    assert guards.take([subject], holder="a gateway", seconds=600) == {subject}
    register(store)
    age(database)
    result = tick(instance)
    assert isinstance(result, dg.SensorResult)
    assert (result.run_requests, result.cursor) == ([], None)
    guards.give_up(subject, holder="a gateway")
    later = tick(instance, result.cursor)
    assert isinstance(later, dg.SensorResult)
    assert [request.partition_key for request in later.run_requests or []] == ["sentiment@1"]
    # And the other way: what the sensor has asked for is not launched by a gateway meanwhile.
    assert guards.take([subject], holder="a gateway", seconds=600) == set()


def test_a_tick_that_is_repeated_before_its_runs_exist_asks_with_the_same_run_key(
    store: CardStore, instance: dg.DagsterInstance
) -> None:
    register(store)
    first, again = tick(instance), tick(instance)
    assert isinstance(first, dg.SensorResult) and isinstance(again, dg.SensorResult)
    assert [r.run_key for r in first.run_requests or []] == [r.run_key for r in again.run_requests or []]


def test_a_run_that_was_launched_some_other_way_is_not_doubled(
    store: CardStore, instance: dg.DagsterInstance
) -> None:
    register(store)

    @dg.op
    def anything() -> None: ...

    @dg.job(name="package_model")
    def clicked() -> None:
        anything()

    instance.create_run_for_job(
        clicked, tags={tags.PARTITION: "sentiment@1"}, status=dg.DagsterRunStatus.STARTED
    )
    result = tick(instance)
    assert isinstance(result, dg.SensorResult)
    assert not result.run_requests


def click(
    instance: dg.DagsterInstance, asset: str, status: dg.DagsterRunStatus, partition: str = "sentiment@1"
) -> None:
    """Leave a run of a click on one asset, with the tags that its first step adds."""
    instance.add_run(
        dg.DagsterRun(
            job_name="__ASSET_JOB",
            status=status,
            tags={tags.PARTITION: partition, tags.CARD_REVISION: "1"},
            asset_selection=frozenset({dg.AssetKey(asset)}),
        )
    )


@pytest.mark.parametrize(
    ("asset", "status", "is_packaged"),
    [
        ("model_card", dg.DagsterRunStatus.SUCCESS, False),
        ("model_image", dg.DagsterRunStatus.FAILURE, False),
        ("model_card", dg.DagsterRunStatus.STARTED, True),
        ("published_image", dg.DagsterRunStatus.FAILURE, True),
    ],
)
def test_a_click_that_ended_counts_as_packaging_only_where_it_was_to_publish(
    store: CardStore,
    instance: dg.DagsterInstance,
    asset: str,
    status: dg.DagsterRunStatus,
    is_packaged: bool,
) -> None:
    register(store)
    click(instance, asset, status)
    result = tick(instance)
    assert isinstance(result, dg.SensorResult)
    assert bool(result.run_requests) is not is_packaged


def test_a_failed_read_is_not_an_empty_table(
    store: CardStore, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(store)
    monkeypatch.setenv("CONSTELLATION_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/cards")
    result = tick(instance, cursor=None)
    assert isinstance(result, dg.SkipReason)
    assert "Nothing was changed" in str(result.skip_message)


def test_an_invalid_row_hides_no_other(store: CardStore, database: str, instance: dg.DagsterInstance) -> None:
    register(store)
    with create_engine(database).begin() as connection:
        connection.execute(
            text(
                "INSERT INTO model_cards (model_name, model_version, repo_url, card) VALUES (:n, '1', :u, :c)"
            ),
            {"n": "bad", "u": "https://git.example/bad", "c": json.dumps({"descripton": "misspelt"})},
        )
    result = tick(instance)
    assert isinstance(result, dg.SensorResult)
    assert [request.partition_key for request in result.run_requests or []] == ["sentiment@1"]


def test_ten_thousand_rows_are_taken_a_few_at_a_time_and_none_is_lost(
    store: CardStore, database: str, instance: dg.DagsterInstance
) -> None:
    """A backend may insert everything in one transaction, so that all rows carry the same time."""
    count = 10_000
    rows = [
        {"n": f"model-{number}", "c": json.dumps({"description": "", "data_used": "", "dependencies": []})}
        for number in range(count)
    ]
    with create_engine(database).begin() as connection:
        connection.execute(
            text(
                "INSERT INTO model_cards (model_name, model_version, repo_url, card) "
                "VALUES (:n, '1', 'https://git.example/m', :c)"
            ),
            rows,
        )
    age(database)
    with collected_statements() as statements:
        seen: set[str | None] = set()
        cursor: str | None = None
        for _ in range(5):
            result = tick(instance, cursor)
            assert isinstance(result, dg.SensorResult)
            requests = result.run_requests or []
            assert 0 < len(requests) <= ROWS_PER_TICK
            assert not seen & {request.partition_key for request in requests}
            seen |= {request.partition_key for request in requests}
            assert result.cursor != cursor
            cursor = result.cursor
    assert len(statements) / 5 < 30, "a tick's queries do not grow with the table"


def test_a_tick_after_the_last_change_reads_no_row(
    store: CardStore, database: str, instance: dg.DagsterInstance
) -> None:
    register(store)
    age(database)
    first = tick(instance)
    assert isinstance(first, dg.SensorResult)
    idle = tick(instance, first.cursor)
    assert isinstance(idle, dg.SensorResult)
    assert not idle.run_requests and not idle.dynamic_partitions_requests
    assert idle.cursor == first.cursor


def repackage(directory: Path) -> tuple[list[str | None], list[str]]:
    """A tick of the schedule: the partitions of its runs, and all partitions then."""
    directory.mkdir()
    with dg.DagsterInstance.local_temp(str(directory)) as instance:
        context = dg.build_schedule_context(
            instance=instance, resources={"settings": SettingsResource(), "cards": CardStoreResource()}
        )
        result = schedules.repackage_failed(context)
        requests = result if isinstance(result, list) else []
        partitions = instance.get_dynamic_partitions("model_versions")
        return [request.partition_key for request in requests], list(partitions)


def test_the_schedule_packages_a_row_that_no_sensor_saw_and_leaves_a_fresh_one_to_the_sensor(
    store: CardStore, database: str, tmp_path: Path
) -> None:
    register(store)
    with create_engine(database).begin() as connection:
        connection.execute(
            text(
                "INSERT INTO model_cards (model_name, model_version, repo_url, card) VALUES (:n, '1', :u, :c)"
            ),
            {"n": "bad", "u": "https://git.example/bad", "c": json.dumps({"descripton": "misspelt"})},
        )
    assert repackage(tmp_path / "at-once") == ([], [])
    age(database)
    assert repackage(tmp_path / "later") == (["sentiment@1"], ["sentiment@1"])


def test_the_cursor_stays_behind_changes_that_are_fresh_or_held_back() -> None:
    now = LONG_AGO
    old, older, fresh = (
        ChangeCursor(moment=now - age, row_id="r") for age in (SETTLING, 2 * SETTLING, SETTLING / 2)
    )
    assert advance(None, [(older, False), (old, False), (fresh, False)], now) == old
    assert advance(None, [(older, False), (old, True), (fresh, False)], now) == older
    assert advance(older, [], now) == older


@contextmanager
def collected_statements() -> Iterator[list[str]]:
    """The SQL that SQLAlchemy sends to the table of model cards."""
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "model_cards" in statement:
            statements.append(statement)

    event.listen(SqlEngine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(SqlEngine, "before_cursor_execute", note)


def failed_run(instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    @dg.op
    def building() -> None:
        raise dg.Failure("sentiment@1, building the image: The step failed. Correct it.", allow_retries=False)

    @dg.job
    def some_job() -> None:
        building()

    return some_job.execute_in_process(instance=instance, raise_on_error=False)


def test_a_failed_run_is_told_to_the_webhook_in_its_own_sentence(
    database: str, instance: dg.DagsterInstance, webhook: list[dict[str, object]]
) -> None:
    result = failed_run(instance)
    context = dg.build_run_status_sensor_context(
        "failed_runs",
        dagster_event=result.get_run_failure_event(),
        dagster_instance=instance,
        dagster_run=result.dagster_run,
    ).for_run_failure()
    sensors.failed_runs(context, settings=SettingsResource())
    assert webhook[0]["text"] == "sentiment@1, building the image: The step failed. Correct it."
    assert webhook[0]["run_id"] == result.run_id
    assert webhook[0]["will_be_retried"] is False


def test_the_webhooks_address_is_never_told(
    database: str, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_WEBHOOK", "http://127.0.0.1:1/secret-token")
    monkeypatch.setenv("CONSTELLATION_NOTIFICATIONS__WEBHOOK_URL", "env:TEST_WEBHOOK")
    result = failed_run(instance)
    context = dg.build_run_status_sensor_context(
        "failed_runs",
        dagster_event=result.get_run_failure_event(),
        dagster_instance=instance,
        dagster_run=result.dagster_run,
    ).for_run_failure()
    with pytest.raises(NotificationFailed) as raised:
        sensors.failed_runs(context, settings=SettingsResource())
    assert "secret-token" not in str(raised.value)
