"""The sensor of drift, tick by tick, with its runs carried out on the real engine."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pytest

from constellation_docker.compose import endpoint_url
from constellation_docker.definitions import defs
from constellation_docker.defs import drift, drift_history, sensors, tags
from constellation_docker.defs.drift_cursor import DriftCursor, Position, choose_reason
from constellation_docker.defs.drift_history import Shown
from constellation_docker.defs.resources import SettingsResource
from constellation_docker.engine.client import EngineClient
from constellation_docker.rollout import News, observe
from constellation_docker.settings import HealingSettings, load_settings
from constellation_docker_tests.fixtures.deadline import wait_for
from constellation_docker_tests.fixtures.deployer import Deployer, keys
from constellation_docker_tests.fixtures.tiny_service import Clients

CELL = "dev|acme/tiny"


@dataclass
class Watch:
    """The sensor as the daemon runs it: each tick begins where the last one ended, and what it shows is kept."""

    deployer: Deployer
    cursor: str | None = None
    skipped: str = ""

    def tick(self) -> list[dg.RunRequest]:
        """One tick; the runs that it asks for."""
        context = dg.build_sensor_context(
            instance=self.deployer.instance, cursor=self.cursor, resources=self.deployer.resources()
        )
        result = drift.drifted_deployments(context)
        assert isinstance(result, dg.SensorResult)
        for shown in result.asset_events or []:
            self.deployer.instance.report_runless_asset_event(shown)
        self.cursor = result.cursor
        self.skipped = str(result.skip_reason.skip_message) if result.skip_reason else ""
        return list(result.run_requests or [])

    def next_request(self) -> dg.RunRequest:
        """The next run that it asks for; health checks and pauses take their time."""
        (request,) = wait_for(self.tick, seconds=40, what="a healing run")
        return request

    def carry_out(self, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
        """Execute a run as it was asked for."""
        self.deployer.instance.add_dynamic_partitions("models", [request.tags[tags.MODEL]])
        return defs.resolve_job_def("deploy_model").execute_in_process(
            instance=self.deployer.instance,
            partition_key=request.partition_key,
            tags=dict(request.tags),
            raise_on_error=False,
        )

    def shown(self, key: str = CELL) -> str:
        """What stands at a cell."""
        records = self.deployer.instance.fetch_observations(
            dg.AssetRecordsFilter(asset_key=drift_history.ASSET, asset_partitions=[key]), limit=1
        ).records
        seen = records[0].asset_observation if records else None
        return str(seen.description) if seen else ""

    def is_clear(self, key: str = CELL) -> bool:
        """Whether a further tick asks for nothing and shows that all is as wanted again."""
        return not self.tick() and self.shown(key) == drift_history.AS_WANTED

    def check(self) -> dg.AssetCheckEvaluation:
        """The check over all services."""
        records = self.deployer.instance.event_log_storage.get_asset_check_execution_history(
            dg.AssetCheckKey(drift_history.ASSET, drift_history.CHECK), limit=1
        )
        evaluation = records[0].evaluation
        assert evaluation is not None
        return evaluation


@pytest.fixture
def watch(deployer: Deployer) -> Watch:
    """A sensor that has not ticked yet."""
    return Watch(deployer)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every request to an engine."""
    asked: list[str] = []
    real = EngineClient.request

    def request(self: EngineClient, method: str, url: str, *more: Any, **named: Any) -> Any:
        asked.append(f"{method} {url.partition('/v1.')[2]}")
        return real(self, method, url, *more, **named)

    monkeypatch.setattr(EngineClient, "request", request)
    return asked


def name_of(deployer: Deployer, service: str = "acme-tiny-1", environment: str = "dev") -> str:
    return f"{deployer.projects[environment]}-{service}"


def remove_replica(deployer: Deployer) -> None:
    """Remove the container of the tiny model in `dev`, as somebody at a shell would."""
    (found,) = deployer.engine.list_containers(
        {"com.docker.compose.project": deployer.projects["dev"], "constellation.model": "acme/tiny"}
    )
    deployer.engine.remove(found["Id"], force=True)


def deployed(deployer: Deployer, *models: str) -> None:
    for model in models:
        deployer.publish(model)
        assert deployer.deploy(model).success


def test_what_somebody_removes_is_seen_at_the_next_tick_shown_and_healed(
    watch: Watch, deployer: Deployer
) -> None:
    deployed(deployer, "acme/tiny")
    assert watch.tick() == []
    assert watch.skipped == "Everything runs as wanted."
    remove_replica(deployer)
    (request,) = watch.tick()
    assert deployer.drifts() == [], "the schedule at the same moment does not ask for it again"
    assert (keys([request]), request.tags[tags.HEALING]) == ([CELL], "1")
    assert "1 of 1 replicas is missing" in watch.shown()
    assert (watch.check().passed, watch.check().severity) == (False, dg.AssetCheckSeverity.WARN)
    assert watch.carry_out(request).success
    assert deployer.running("acme/tiny") == ["1"]
    wait_for(watch.is_clear, what="the all-clear")
    assert watch.check().passed


def test_what_a_run_is_at_work_on_is_not_shown_as_drift(watch: Watch, deployer: Deployer) -> None:
    deployed(deployer, "acme/tiny")
    watch.tick()
    at_work = dg.DagsterRun(
        job_name="deploy_model",
        tags={"dagster/partition": CELL},
        status=dg.DagsterRunStatus.STARTED,
    )
    deployer.instance.add_run(at_work)
    remove_replica(deployer)
    wait_for(lambda: not watch.tick() and "a run is at work on it" in watch.skipped, what="the comparison")
    assert "missing" not in watch.shown()
    deployer.instance.delete_run(at_work.run_id)
    assert keys([watch.next_request()]) == [CELL]
    assert "1 of 1 replicas is missing" in watch.shown()


def test_a_tick_without_news_asks_little_however_many_services_there_are(
    watch: Watch, deployer: Deployer, calls: list[str]
) -> None:
    counts = []
    for model in ("acme/one", "acme/two"):
        deployed(deployer, model)
        wait_for(lambda: not watch.tick() and watch.skipped.startswith("The engines"), what="a quiet tick")
        calls.clear()
        watch.tick()
        counts.append(len(calls))
    assert counts[0] == counts[1] <= 8, calls
    assert not [call for call in calls if "/containers/" in call]


@pytest.mark.parametrize("fault", ["killed", pytest.param("removed", marks=pytest.mark.slow)])
def test_a_balancer_that_went_away_is_brought_back(watch: Watch, deployer: Deployer, fault: str) -> None:
    deployed(deployer, "acme/tiny")
    watch.tick()
    balancer = name_of(deployer, "balancer-1")
    if fault == "killed":
        deployer.engine.kill(balancer)
    else:
        deployer.engine.remove(balancer, force=True)
    assert watch.carry_out(watch.next_request()).success
    with Clients(endpoint_url(load_settings().environment("dev"), "acme-tiny"), count=1) as clients:
        wait_for(lambda: clients.answered, what="an answer")
    assert clients.failures == []


def test_drift_that_is_only_reported_touches_nothing(
    watch: Watch, deployer: Deployer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONSTELLATION_HEALING__MODE", "report")
    deployed(deployer, "acme/tiny")
    remove_replica(deployer)
    assert watch.tick() == [] == deployer.drifts()
    assert "drift is only reported" in watch.skipped
    assert "drift is only reported" in watch.shown()
    assert not watch.check().passed


def test_a_click_on_the_check_compares_and_touches_nothing(watch: Watch, deployer: Deployer) -> None:
    deployed(deployer, "acme/tiny")
    key = dg.AssetCheckKey(drift_history.ASSET, drift_history.CHECK)
    job = defs.get_implicit_global_asset_job_def().get_subset(asset_check_selection={key})
    verdicts = []
    for _ in range(2):
        result = job.execute_in_process(instance=deployer.instance)
        (evaluation,) = result.get_asset_check_evaluations()
        verdicts.append(evaluation.passed)
        deployer.engine.stop(name_of(deployer), grace_seconds=1)
    assert verdicts == [True, False]


@pytest.mark.slow
def test_an_unhealthy_replica_is_replaced_and_no_request_is_lost(watch: Watch, deployer: Deployer) -> None:
    deployer.publish("acme/tiny")
    assert deployer.deploy("acme/tiny", replicas=2).success
    watch.tick()
    deployer.engine.kill(name_of(deployer), "SIGSTOP")
    request = watch.next_request()
    assert "is unhealthy" in watch.shown()
    # A request that a frozen process has taken is lost whoever replaces it; the balancer sends it no more of them.
    wait_for(lambda: _is_out(deployer), seconds=60, what="the balancer's verdict")
    with Clients(endpoint_url(load_settings().environment("dev"), "acme-tiny"), count=4) as clients:
        assert watch.carry_out(request).success
    assert clients.failures == [] and clients.answered
    assert deployer.running("acme/tiny") == ["1", "1"]


def _is_out(deployer: Deployer) -> bool:
    members = observe(deployer.engine, deployer.projects["dev"]).state.members("acme-tiny")
    return any(member.check == "down" for member in members)


@pytest.mark.slow
def test_what_never_stays_well_is_given_up_and_told_once_and_goes_on_when_somebody_launches_it(
    watch: Watch, deployer: Deployer, monkeypatch: pytest.MonkeyPatch, webhook: list[dict[str, object]]
) -> None:
    monkeypatch.setenv("CONSTELLATION_HEALING__MAX_ATTEMPTS", "2")
    monkeypatch.setenv("CONSTELLATION_HEALING__BACKOFF_SECONDS", "1")
    deployed(deployer, "acme/tiny")
    watch.tick()
    for attempt in ("1", "2"):
        remove_replica(deployer)
        request = watch.next_request()
        assert request.tags[tags.HEALING] == attempt
        assert watch.carry_out(request).success
    remove_replica(deployer)
    assert watch.tick() == watch.tick() == deployer.drifts() == []
    assert "it was healed 2 times in a row" in watch.shown()
    assert watch.check().severity is dg.AssetCheckSeverity.ERROR
    (notice,) = webhook
    assert (notice["partition"], notice["will_be_retried"]) == (CELL, False)
    assert "Nothing is tried any more" in str(notice["text"])

    assert deployer.deploy("acme/tiny").success
    wait_for(watch.is_clear, what="the all-clear")
    remove_replica(deployer)
    assert watch.next_request().tags[tags.HEALING] == "1"


@pytest.mark.slow
def test_a_rollback_that_fails_stops_everything_until_somebody_looks(
    watch: Watch, deployer: Deployer, webhook: list[dict[str, object]]
) -> None:
    deployed(deployer, "acme/tiny")
    deployer.publish("acme/tiny", "2", env={"CRASH": "1"}, deploy={"order": "stop-first"})
    remover = threading.Thread(target=_remove_once_stopped, args=(deployer, name_of(deployer)))
    remover.start()
    result = deployer.deploy("acme/tiny", version="2")
    remover.join(timeout=30)
    run = deployer.instance.get_run_by_id(result.run_id)
    assert not result.success
    assert run is not None and run.tags[tags.OUTCOME] == "rollback_failed"
    context = dg.build_run_status_sensor_context(
        "failed_runs",
        dagster_event=result.get_run_failure_event(),
        dagster_instance=deployer.instance,
        dagster_run=run,
    ).for_run_failure()
    sensors.failed_runs(context, settings=SettingsResource())
    assert watch.tick() == watch.tick() == deployer.drifts() == []
    assert "putting back what ran before failed" in watch.shown()
    (notice,) = webhook
    assert (notice["partition"], notice["outcome"]) == (CELL, "rollback_failed")
    assert notice["will_be_retried"] is False
    for part in (
        "acme-tiny-2",
        "Putting back what ran before failed too",
        "Nothing is tried any more",
    ):
        assert part in str(notice["text"])
    assert deployer.deploy("acme/tiny", version="1").success
    assert deployer.running("acme/tiny") == ["1"]


def _remove_once_stopped(deployer: Deployer, name: str) -> None:
    wait_for(
        lambda: ((deployer.engine.container(name) or {}).get("State") or {}).get("Status") == "exited",
        what="the stop of the old release",
    )
    deployer.engine.remove(name, force=True)


def test_an_environment_whose_engine_is_away_is_said_and_holds_up_no_other(
    watch: Watch, deployer: Deployer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    deployed(deployer, "acme/tiny")
    row = deployer.store.deployment("dev", "acme/tiny")
    deployer.store.want("production", "acme/tiny", model_id=row.model_id)
    environments = json.loads(load_settings().model_dump_json())["environments"]
    environments["production"]["engine_url"] = f"unix://{tmp_path}/nobody.sock"
    monkeypatch.setenv("CONSTELLATION_ENVIRONMENTS", json.dumps(environments))
    assert watch.tick() == []
    assert "production: " in watch.skipped and "nobody.sock" in watch.skipped
    remove_replica(deployer)
    assert keys(watch.tick()) == [CELL]


SETTINGS = HealingSettings(full_comparison_seconds=60)


@pytest.mark.parametrize(
    ("position", "news", "reason"),
    [
        (Position(compared_at=950), News(1000.0), ""),
        (Position(compared_at=950), News(1000.0, ("die of x",)), "die of x"),
        (Position(compared_at=950), News(1000.0, ("a", "b", "c", "d")), "a, b, c, …"),
        (Position(compared_at=930), News(1000.0), "the last comparison is long ago"),
        (Position(), News(1000.0), "the last comparison is long ago"),
        (Position(compared_at=950, look_at=990), News(1000.0), "a service was not as wanted"),
        (Position(compared_at=950, look_at=1010), News(1000.0), ""),
        (Position(compared_at=950, fingerprint="a"), News(1000.0, (), "a"), ""),
        (
            Position(compared_at=950, fingerprint="a"),
            News(1000.0, (), "b"),
            "more happened than the engine remembers",
        ),
    ],
)
def test_an_environment_is_compared_only_for_a_reason(position: Position, news: News, reason: str) -> None:
    assert choose_reason(position, news, 1000.0, SETTINGS) == reason


def test_a_cursor_survives_its_text_and_none_is_a_new_one() -> None:
    cursor = DriftCursor(environments={"dev": Position(since=1.5, told={CELL: Shown(text="gone")})})
    assert DriftCursor.parse(cursor.model_dump_json()) == cursor
    assert DriftCursor.parse(None) == DriftCursor()


@pytest.mark.slow
def test_what_an_engine_starts_anew_all_at_once_runs_as_wanted_after_the_next_ticks(
    watch: Watch, deployer: Deployer
) -> None:
    """As after a restart of the engine: every container ended, and came up again by its restart policy."""
    deployed(deployer, "acme/tiny")
    watch.tick()
    own = deployer.engine.list_containers({"com.docker.compose.project": deployer.projects["dev"]})
    for container in own:
        deployer.engine.stop(container["Id"], grace_seconds=0)
    for container in own:
        deployer.engine.start(container["Id"])
    url = endpoint_url(load_settings().environment("dev"), "acme-tiny")

    def is_well() -> bool:
        for request in watch.tick():
            watch.carry_out(request)
        try:
            return watch.shown() in {"", drift_history.AS_WANTED} and httpx.post(url).status_code == 200
        except httpx.HTTPError:
            return False

    wait_for(is_well, seconds=90, what="the endpoint")
