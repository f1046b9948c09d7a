"""Whether a service that differs from what is wanted is healed now: decided here, over plain data.

How often a release was healed is counted from Dagster's runs, which carry it as a tag; nothing else remembers it.

* What ran stably is healed, after a pause that doubles each time, and not for ever: a model that breaks again and
  again needs somebody to look. A release that was well for long is counted anew, and so is one that somebody launched.
* A release that never became stable is tried again only where its run failed for a passing reason or was killed.
* After a rollback that failed nothing is tried: nobody knows what a further attempt would do to what still runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

import dagster as dg

from constellation_docker.cards import DeploymentRow
from constellation_docker.defs import tags
from constellation_docker.defs.launches import PastRun, deployment_request, may_be_carried_out
from constellation_docker.rollout import Drift
from constellation_docker.settings import HealingSettings

UNSEEN = timedelta(minutes=1)
"""A wish that has no run after so long was overlooked by the sensor of wishes. A younger one is left to it."""

Answer = Literal["heal", "busy", "wait", "left", "given up"]


@dataclass(frozen=True)
class Verdict:
    """What is done about one service that differs.

    Attributes:
        row: The deployment.
        answer: `heal` it now; it is `busy`, or should `wait`; it is `left` as it is; it was `given up`.
        why: In words.
        attempt: Which healing in a row this is, where it is healed.
        look_at: When to look again; None: when something happens.
        last_run: The newest run on it; empty where there was none.
        is_told: The failed run itself said all of it to the webhook.
    """

    row: DeploymentRow
    answer: Answer
    why: str
    attempt: int = 0
    look_at: datetime | None = None
    last_run: str = ""
    is_told: bool = False


def decide_healing(
    row: DeploymentRow,
    drift: Drift | None,
    runs: Sequence[PastRun],
    *,
    settings: HealingSettings,
    max_tries: int,
    found_at: datetime,
    now: datetime,
) -> Verdict | None:
    """What to do about one service.

    Args:
        row: The deployment.
        drift: How the service differs; None: it does not.
        runs: Runs on its partition, newest first.
        settings: How healing is paced.
        max_tries: Most runs for one revision that is not stable.
        found_at: Since when it is known to differ.
        now: The present.

    Returns:
        None where it is as wanted.
    """
    own = [run for run in runs if run.partition == row.key]
    of_revision = [run for run in own if run.tags.get(tags.SERVICE_REVISION) == str(row.revision)]
    is_stable = row.stable_revision == row.revision
    is_unfinished = not is_stable and bool(of_revision) and of_revision[0].failed_for_passing_reason
    if drift is None and not is_unfinished:
        return None
    verdict = (
        _find_obstacle(row, own, drift, now)
        or (None if is_stable else _decide_about_unstable(row, of_revision, max_tries, now))
        or _decide_about_stable(row, own, settings, found_at, now)
    )
    return replace(verdict, last_run=next((run.run_id for run in own if run.run_id), ""))


def _find_obstacle(
    row: DeploymentRow, runs: Sequence[PastRun], drift: Drift | None, now: datetime
) -> Verdict | None:
    """Why nothing can be done now, whatever ran before."""
    if any(run.is_in_progress for run in runs):
        return Verdict(row, "busy", "a run is at work on it", look_at=now)
    if not may_be_carried_out(row):
        return Verdict(row, "left", "its version is not published yet")
    if runs and runs[0].tags.get(tags.OUTCOME) == "rollback_failed":
        return Verdict(row, "given up", "putting back what ran before failed", is_told=True)
    if drift is not None and drift.is_settling:
        return Verdict(row, "wait", "Docker has just started it", look_at=now)
    return None


def _decide_about_unstable(
    row: DeploymentRow, of_revision: Sequence[PastRun], max_tries: int, now: datetime
) -> Verdict:
    """What to do about a release whose rollout has not ended well."""
    if not of_revision and now - row.changed_at < UNSEEN:
        return Verdict(row, "busy", "it was only just wanted", look_at=row.changed_at + UNSEEN)
    if of_revision and not of_revision[0].failed_for_passing_reason:
        return Verdict(row, "left", "its rollout failed for good")
    if len(of_revision) >= max_tries:
        return Verdict(row, "given up", f"its rollout was tried {len(of_revision)} times")
    return Verdict(row, "heal", "its rollout was not finished", attempt=1)


def _decide_about_stable(
    row: DeploymentRow,
    runs: Sequence[PastRun],
    settings: HealingSettings,
    found_at: datetime,
    now: datetime,
) -> Verdict:
    """What to do about a release that ran as wanted once."""
    chain = count_healings(row, runs, settings.quiet_seconds, found_at)
    if len(chain) >= settings.max_attempts:
        why = f"it was healed {len(chain)} times in a row, and did not stay well"
        return Verdict(row, "given up", why)
    not_before = (chain[0].ended or now) + _pause(len(chain), settings) if chain else now
    if not_before > now:
        return Verdict(row, "wait", f"healing {len(chain) + 1} comes after a pause", look_at=not_before)
    return Verdict(row, "heal", "it ran stably before", attempt=len(chain) + 1)


def count_healings(
    row: DeploymentRow, runs: Sequence[PastRun], quiet_seconds: float, found_at: datetime
) -> list[PastRun]:
    """The healings in a row of the release that is wanted, newest first.

    Any other run between them ends the row, and so does a time in which the release was well.

    Args:
        row: The deployment.
        runs: Runs on its partition, newest first.
        quiet_seconds: How long it must have been well.
        found_at: Since when it is known to differ.
    """
    chain: list[PastRun] = []
    broke_at = found_at
    for run in runs:
        if tags.HEALING not in run.tags or run.tags.get(tags.MODEL_ID) != row.model_id:
            break
        was_well = run.status is dg.DagsterRunStatus.SUCCESS and run.ended is not None
        if was_well and broke_at - run.ended > timedelta(seconds=quiet_seconds):  # type: ignore[operator]
            break
        chain.append(run)
        broke_at = run.created or broke_at
    return chain


def may_be_healed_again(run_tags: Mapping[str, str], settings: HealingSettings) -> bool:
    """Whether a run that failed was a healing that is followed by another one, if need be."""
    if run_tags.get(tags.OUTCOME) == "rollback_failed" or settings.mode == "report":
        return False
    return tags.HEALING in run_tags and int(run_tags[tags.HEALING]) < settings.max_attempts


def healing_request(verdict: Verdict) -> dg.RunRequest:
    """The run that heals a service. Where nothing has run since, a repeated tick asks for the same run."""
    row = verdict.row
    key = f"heal:{row.key}:{row.revision}:{verdict.last_run or 'first'}"
    return deployment_request(row, run_key=key, more_tags={tags.HEALING: str(verdict.attempt)})


def _pause(healings: int, settings: HealingSettings) -> timedelta:
    # 2 ** 50 seconds are enough, and more would not fit a float for ever.
    doubled = settings.backoff_seconds * 2.0 ** min(healings - 1, 50)
    return timedelta(seconds=min(doubled, settings.max_backoff_seconds))
