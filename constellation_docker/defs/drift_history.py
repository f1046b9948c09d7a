"""What is shown of services that differ: an observation at each one's cell, and one check over all of them.

From the observations a later look knows since when a service differs. Dagster's event log is the only place where this
is kept. A check for each cell would say it better, but Dagster 1.13 keeps only the first verdict from a sensor for each
partition of a check, and refuses the next (a unique index over check, run and partition, and a sensor has no run).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg
from pydantic import BaseModel

from constellation_docker.defs import metadata
from constellation_docker.defs.healing import Verdict
from constellation_docker.rollout import Drift

ASSET = dg.AssetKey("deployment")
CHECK = "runs_as_wanted"
AS_WANTED = "It runs as wanted."
ALL_AS_WANTED = "Every service runs as wanted."
_SINCE = "differs since"
_GIVEN_UP = "given up"


class Shown(BaseModel):
    """What is shown of one service that differs.

    Attributes:
        text: What is wrong, and what is done about it.
        is_given_up: Nobody tries any more.
    """

    text: str
    is_given_up: bool = False


@dataclass(frozen=True)
class Finding:
    """What was known of a service before this look.

    Attributes:
        since: Since when it differs; now where it was as wanted.
        is_given_up: Whether somebody has been told that nobody tries any more.
    """

    since: datetime
    is_given_up: bool = False


def find(instance: dg.DagsterInstance, key: str, now: datetime) -> Finding:
    """What the last look said of a service.

    Args:
        instance: Dagster's instance.
        key: Its partition.
        now: The present.
    """
    records = instance.fetch_observations(
        dg.AssetRecordsFilter(asset_key=ASSET, asset_partitions=[key]), limit=1
    ).records
    seen = records[0].asset_observation if records else None
    since = seen.metadata.get(_SINCE) if seen is not None else None
    if seen is None or not isinstance(since, dg.TimestampMetadataValue):
        return Finding(now)
    given_up = seen.metadata.get(_GIVEN_UP)
    return Finding(
        datetime.fromtimestamp(float(since.value or 0), UTC),
        isinstance(given_up, dg.BoolMetadataValue) and bool(given_up.value),
    )


def faults_of(drift: Drift | None, verdict: Verdict) -> tuple[str, ...]:
    """What is wrong with a service, one sentence each."""
    return drift.faults if drift is not None else (verdict.why,)


def describe(verdict: Verdict, drift: Drift | None) -> Shown:
    """What is shown of a service that differs."""
    is_given_up = verdict.answer == "given up"
    sentence = "; ".join(faults_of(drift, verdict)) + "."
    # A name at the beginning stays as it is written.
    first = sentence.split()[0]
    is_name = any(sign in first for sign in "-_.|@")
    if is_given_up:
        sentence += f" Nothing is tried any more: {verdict.why}. Look at it, then launch its deployment."
    elif verdict.answer == "left":
        sentence += f" It is left so: {verdict.why}."
    return Shown(text=sentence if is_name else sentence[0].upper() + sentence[1:], is_given_up=is_given_up)


def observe_drift(verdict: Verdict, drift: Drift | None, finding: Finding) -> dg.AssetObservation:
    """The observation at the cell of a service that differs."""
    shown = describe(verdict, drift)
    return dg.AssetObservation(
        asset_key=ASSET,
        partition=verdict.row.key,
        description=shown.text,
        metadata={
            "faults": metadata.table([{"fault": fault} for fault in faults_of(drift, verdict)]),
            "running": dg.MetadataValue.text(drift.running if drift else "as wanted"),
            "wanted": dg.MetadataValue.text(drift.wanted if drift else "as it runs"),
            "healing": dg.MetadataValue.text(f"{verdict.answer}: {verdict.why}"),
            "revision": dg.MetadataValue.int(verdict.row.revision),
            "as wanted": dg.MetadataValue.bool(False),
            _SINCE: dg.MetadataValue.timestamp(finding.since),
            _GIVEN_UP: dg.MetadataValue.bool(shown.is_given_up),
        },
    )


def observe_all_clear(key: str) -> dg.AssetObservation:
    """The observation at the cell of a service that differed and does not any more."""
    return dg.AssetObservation(
        asset_key=ASSET,
        partition=key,
        description=AS_WANTED,
        metadata={"as wanted": dg.MetadataValue.bool(True)},
    )


def is_overtaken(instance: dg.DagsterInstance, judged_at: float) -> bool:
    """Whether something was deployed since the check said something: Dagster shows such a check as not evaluated.

    Args:
        instance: Dagster's instance.
        judged_at: When the check said something, in seconds since 1970.
    """
    deployed = instance.get_latest_materialization_event(ASSET)
    return deployed is not None and deployed.timestamp >= judged_at


def judge(differing: Mapping[str, Shown]) -> dg.AssetCheckEvaluation:
    """The check over all services.

    Args:
        differing: What is shown of each service that differs, by partition.
    """
    rows: list[dict[str, metadata.Cell]] = [
        {"service": key, "drift": shown.text, "given up": shown.is_given_up}
        for key, shown in sorted(differing.items())
    ]
    is_given_up = any(shown.is_given_up for shown in differing.values())
    count = len(differing)
    entries: dict[str, dg.MetadataValue] = {"services that differ": dg.MetadataValue.int(count)}
    if rows:
        entries["drift"] = metadata.table(rows)
    return dg.AssetCheckEvaluation(
        asset_key=ASSET,
        check_name=CHECK,
        passed=not differing,
        severity=dg.AssetCheckSeverity.ERROR if is_given_up else dg.AssetCheckSeverity.WARN,
        description=f"{count} {'service differs' if count == 1 else 'services differ'} from what is wanted."
        if count
        else ALL_AS_WANTED,
        metadata=entries,
    )
