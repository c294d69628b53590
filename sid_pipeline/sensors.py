"""Sensors. They start by themselves only where `orchestration.automation` is set.

What belongs here: asking on time and acting on the answers. What does not: the questions (`watch.py`) and how an
alert travels (`alerts.py`).
"""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
from dagster._utils.schedules import reverse_cron_string_iterator

from sid_pipeline.alerts import Alert, send
from sid_pipeline.jobs import SID_REFRESH, SNAPSHOT_REFRESH, Job
from sid_pipeline.releases import served_releases
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.run_history import PARTITION_TAG, UNFINISHED, end_lost_runs
from sid_pipeline.settings import Settings
from sid_pipeline.taxonomy_sensor import build_taxonomy_sensor
from sid_pipeline.watch import is_late, stale_flavours, waiting_nights, what_is_served


def build_sensors(settings: Settings, jobs: Mapping[str, Job]) -> list[dg.SensorDefinition]:
    """All sensors.

    sids_follow_snapshot, sids_follow_failed_snapshot: when the last of the runs that bring a day up to date ends,
        refresh the SIDs of every served release. Failed runs count too: what failed for one flavour does not hold
        back another, and a flavour whose newest complete snapshot is the one it stands on is left as it is.
    late_nights: take nights whose catalogue came late, or that were missed.
    tell_of_failures: an alert for each failed run.
    tell_of_age: an alert for a night that is late, and for live SIDs that stand on old data, each told once.
    taxonomy_watch: see `taxonomy_sensor`.
    """
    return [
        _follow(settings, jobs, "sids_follow_snapshot", dg.DagsterRunStatus.SUCCESS),
        _follow(settings, jobs, "sids_follow_failed_snapshot", dg.DagsterRunStatus.FAILURE),
        _late_nights(settings, jobs),
        _tell_of_failures(settings),
        _tell_of_age(settings),
        build_taxonomy_sensor(settings, jobs),
    ]


def _status(settings: Settings) -> dg.DefaultSensorStatus:
    running = settings.orchestration.automation
    return dg.DefaultSensorStatus.RUNNING if running else dg.DefaultSensorStatus.STOPPED


def _follow(settings: Settings, jobs: Mapping[str, Job], name: str, status: dg.DagsterRunStatus) -> dg.SensorDefinition:
    @dg.run_status_sensor(
        name=name,
        run_status=status,
        request_job=jobs[SID_REFRESH],
        default_status=_status(settings),
        description="After the last of the snapshot runs, refresh the SIDs of every served release at the newest.",
    )
    def sids_follow_snapshot(context: dg.RunStatusSensorContext, warehouse: dg.ResourceParam[Warehouse]):
        if not _is_of_a_night(context.dagster_run):
            return dg.SkipReason("not a run of the snapshot plane")
        if others := _unfinished_nights(context.instance):
            return dg.SkipReason(f"{len(others)} more snapshot run(s) are under way; the last one is followed")
        served = [release.release for release in served_releases(warehouse.tables)]
        if not served:
            return dg.SkipReason("no release is served yet")
        run = context.dagster_run.run_id
        return [dg.RunRequest(run_key=f"{run}-{release}", partition_key=release) for release in served]

    return sids_follow_snapshot


def _is_of_a_night(run: dg.DagsterRun) -> bool:
    """Whether a run brings a day up to date: the night's job, or a person's or a condition's run of a day's vectors."""
    if run.job_name == SNAPSHOT_REFRESH:
        return True
    return any(key.path[-1].endswith("_embeddings") for key in run.asset_selection or ())


def _unfinished_nights(instance: dg.DagsterInstance) -> set[str]:
    """Days that a run of the snapshot plane is waiting or working for; runs without a process are ended first."""
    end_lost_runs(instance, launched_here=True)
    runs = instance.get_runs(dg.RunsFilter(statuses=UNFINISHED))
    return {run.tags.get(PARTITION_TAG, "") for run in runs if _is_of_a_night(run)}


def _late_nights(settings: Settings, jobs: Mapping[str, Job]) -> dg.SensorDefinition:
    @dg.sensor(
        name="late_nights",
        job=jobs[SNAPSHOT_REFRESH],
        minimum_interval_seconds=300,
        default_status=_status(settings),
        description="Take the nights whose catalogue came after their time, or that were missed.",
    )
    def late_nights(
        context: dg.SensorEvaluationContext, warehouse: dg.ResourceParam[Warehouse]
    ) -> list[dg.RunRequest] | dg.SkipReason:
        now = datetime.now(ZoneInfo(settings.snapshots.timezone))
        due = last_due(settings, now)
        under_way = _unfinished_nights(context.instance)
        days = [day for day in waiting_nights(warehouse, due.date()) if day not in under_way]
        if not days:
            return dg.SkipReason("no night is waiting")
        # A failed day is not asked for again by itself: its key stays the same.
        return [dg.RunRequest(run_key=f"snapshot-{day}", partition_key=day) for day in days]

    return late_nights


def last_due(settings: Settings, now: datetime) -> datetime:
    """When the last night was due by the schedule's cron, at or before `now` (with a time zone)."""
    cron, zone = settings.orchestration.nightly_cron, settings.snapshots.timezone
    return next(time for time in reverse_cron_string_iterator(now.timestamp() + 1, cron, zone) if time <= now)


def _tell_of_failures(settings: Settings) -> dg.SensorDefinition:
    @dg.run_failure_sensor(
        name="tell_of_failures",
        default_status=_status(settings),
        description="Send an alert for each failed run: what failed, what readers still get, what to do.",
    )
    def tell_of_failures(context: dg.RunFailureSensorContext, warehouse: dg.ResourceParam[Warehouse]) -> None:
        causes = []
        for event in context.get_step_failure_events():
            data: Any = event.event_specific_data
            told = data.user_failure_data.description if data.user_failure_data else None
            causes.append(f"{event.step_key}: {told or (data.error.message.strip() if data.error else 'failed')}")
        run = context.dagster_run
        day = run.tags.get(PARTITION_TAG)
        send(
            settings.alerts,
            Alert(
                "run_failure",
                f"{run.job_name}{f' {day}' if day else ''} failed",
                "\n".join(causes) or context.failure_event.message or "The run ended before any step failed.",
                what_is_served(warehouse),
                f"Mend what is said above and run {run.job_name}{f' for {day}' if day else ''} again, from the UI (run "
                f"{run.run_id}) or with sid run: what is done is not done twice.",
            ),
        )

    return tell_of_failures


def _tell_of_age(settings: Settings) -> dg.SensorDefinition:
    @dg.sensor(
        name="tell_of_age",
        minimum_interval_seconds=900,
        default_status=_status(settings),
        description="Send an alert for a night that is late and for live SIDs that stand on old data, each once.",
    )
    def tell_of_age(context: dg.SensorEvaluationContext, warehouse: dg.ResourceParam[Warehouse]) -> dg.SensorResult:
        now = datetime.now(ZoneInfo(settings.snapshots.timezone))
        told: list[str] = json.loads(context.cursor or "[]")
        standing: list[str] = []
        due = last_due(settings, now)
        if is_late(warehouse, now, due):
            day = due.date().isoformat()
            standing.append(f"late {day}")
            if standing[-1] not in told:
                where = settings.location(settings.source.products.replace("{snapshot}", day))
                send(
                    settings.alerts,
                    Alert(
                        "late_input",
                        f"the catalogue of {day} is late",
                        f"It was due at {due:%Y-%m-%d %H:%M %Z} and nothing lies at {where} yet.",
                        what_is_served(warehouse),
                        "Ask for the delivery. The night runs by itself when it comes; no older day is taken for it.",
                    ),
                )
        for stale in stale_flavours(warehouse, now.date()):
            standing.append(f"stale {stale.flavour} {stale.as_of_snapshot}")
            if standing[-1] not in told:
                send(
                    settings.alerts,
                    Alert(
                        "stale",
                        f"the live SIDs of {stale.flavour} are {stale.days} days old",
                        f"They stand on {stale.as_of_snapshot}; at most {settings.alerts.stale_after_days} days are "
                        "allowed (alerts.stale_after_days).",
                        what_is_served(warehouse),
                        "sid status says what blocks the newer nights.",
                    ),
                )
        return dg.SensorResult(cursor=json.dumps(standing))

    return tell_of_age
