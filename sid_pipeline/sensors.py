"""Sensors. They start by themselves only where `orchestration.automation` is set.

What belongs here: asking on time and acting on the answers. What does not: the questions (`watch.py`) and how an
alert travels (`alerts.py`).
"""

import json
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
from dagster._utils.schedules import reverse_cron_string_iterator

from sid_pipeline.alerts import Alert, tell, tell_again
from sid_pipeline.ingest.source_files import Unreachable
from sid_pipeline.jobs import SID_REFRESH, SNAPSHOT_REFRESH, Job
from sid_pipeline.releases import served_releases
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.run_history import PARTITION_TAG, UNFINISHED, end_lost_runs
from sid_pipeline.settings import Settings
from sid_pipeline.taxonomy_sensor import build_taxonomy_sensor
from sid_pipeline.watch import (
    Stale,
    last_delivery,
    late_places,
    sids_behind,
    stale_flavours,
    waiting_nights,
    what_is_served,
)

# How long a day may be complete for a flavour before its SIDs no longer wait for the end of the run that brought it,
# and where newer days are being worked on, after which one refresh serves for all.
PATIENCE, PATIENCE_IN_A_BACKLOG = timedelta(hours=1), timedelta(hours=6)


def build_sensors(settings: Settings, jobs: Mapping[str, Job]) -> list[dg.SensorDefinition]:
    """All sensors.

    sids_follow_snapshot, sids_follow_failed_snapshot, sids_follow_canceled_snapshot: when the last of the runs that
        bring a day up to date ends, refresh the SIDs of every served release. Failed and canceled runs count too:
        what failed for one flavour does not hold back another, nor does a canceled run those that ended before it,
        and a flavour whose newest complete snapshot is the one it stands on is left as it is.
    sids_catch_up: refresh SIDs that still stand on an older day though a newer one has been complete for them for long:
        its run goes on for another flavour's sake, newer days never stop coming, or a run's end was not seen.
    late_nights: take nights whose catalogue came late, or that were missed, but none that failed.
    tell_of_failures: an alert for each failed run.
    tell_of_age: an alert for a night that is late or cannot be looked for, and for live SIDs that stand on old data,
        each told once; and whatever alert could not be delivered before.
    taxonomy_watch: see `taxonomy_sensor`.
    """
    return [
        _follow(settings, jobs, "sids_follow_snapshot", dg.DagsterRunStatus.SUCCESS),
        _follow(settings, jobs, "sids_follow_failed_snapshot", dg.DagsterRunStatus.FAILURE),
        _follow(settings, jobs, "sids_follow_canceled_snapshot", dg.DagsterRunStatus.CANCELED),
        _catch_up(settings, jobs),
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


def _catch_up(settings: Settings, jobs: Mapping[str, Job]) -> dg.SensorDefinition:
    @dg.sensor(
        name="sids_catch_up",
        job=jobs[SID_REFRESH],
        minimum_interval_seconds=600,
        default_status=_status(settings),
        description="Refresh the SIDs of served releases that a newer day has long been complete for.",
    )
    def sids_catch_up(
        context: dg.SensorEvaluationContext, warehouse: dg.ResourceParam[Warehouse]
    ) -> list[dg.RunRequest] | dg.SkipReason:
        now = datetime.now(timezone.utc)
        coming = _unfinished_nights(context.instance)
        since: dict[str, datetime] = {}
        for late in sids_behind(warehouse):
            wait = PATIENCE_IN_A_BACKLOG if any(day > late.snapshot for day in coming) else PATIENCE
            if now - late.since > wait:
                since[late.release] = max(late.since, since.get(late.release, late.since))
        asked = [
            dg.RunRequest(run_key=f"{release}-{when.isoformat()}", partition_key=release)
            for release, when in since.items()
            if not _is_refreshed(context.instance, release, when)
        ]
        return asked or dg.SkipReason("no SIDs have been behind for long, or their refresh was asked for")

    return sids_catch_up


def _is_refreshed(instance: dg.DagsterInstance, release: str, since: datetime) -> bool:
    """Whether a refresh of a release began since then, whatever became of it, or work on the release is under way."""
    tags = {PARTITION_TAG: release}
    begun = dg.RunsFilter(job_name=SID_REFRESH, tags=tags, created_after=since)
    under_way = dg.RunsFilter(tags=tags, statuses=UNFINISHED)
    return bool(instance.get_run_records(begun, limit=1) or instance.get_run_records(under_way, limit=1))


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
        try:
            days = [day for day in waiting_nights(warehouse, due.date()) if day not in under_way]
        except Unreachable as error:
            return dg.SkipReason(f"{error}: which nights are waiting is not known")
        keys = {day: _run_key(context.instance, warehouse, day) for day in days}
        asked = [dg.RunRequest(run_key=key, partition_key=day) for day, key in keys.items() if key is not None]
        if asked:
            return asked
        failed = f"; {', '.join(keys)} failed or was canceled, and waits for other files or a person" if keys else ""
        return dg.SkipReason(f"no night is waiting{failed}")

    return late_nights


def _run_key(instance: dg.DagsterInstance, warehouse: Warehouse, day: str) -> str | None:
    """The key to ask for a day's run with; None for a day that is not asked for again by itself.

    That a run failed or was canceled is for a person, whoever asked for it (the schedule's keys are not this sensor's,
    so keys alone would let the sensor ask at once for what the schedule's run failed at). Files that were delivered
    after that end are worth another run, under another key: Dagster runs a key once.
    """
    ended = dg.RunsFilter(
        job_name=SNAPSHOT_REFRESH,
        tags={PARTITION_TAG: day},
        statuses=[dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED],
    )
    records = instance.get_run_records(ended, limit=1)
    if not records:
        return f"snapshot-{day}"
    end = datetime.fromtimestamp(records[0].end_time or records[0].create_timestamp.timestamp(), timezone.utc)
    delivered = last_delivery(warehouse, day)
    if delivered is None or delivered <= end:
        return None
    return f"snapshot-{day}-after-{records[0].dagster_run.run_id}"


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
        alert = Alert(
            "run_failure",
            f"{run.job_name}{f' {day}' if day else ''} failed",
            "\n".join(causes) or context.failure_event.message or "The run ended before any step failed.",
            what_is_served(warehouse),
            f"Mend what is said above and run {run.job_name}{f' for {day}' if day else ''} again, from the UI (run "
            f"{run.run_id}) or with sid run: what is done is not done twice.",
        )
        # Dagster shows a failed run to this sensor once, whatever comes of it.
        for fault in tell(settings, alert):
            context.log.warning(fault)

    return tell_of_failures


def _tell_of_age(settings: Settings) -> dg.SensorDefinition:
    @dg.sensor(
        name="tell_of_age",
        minimum_interval_seconds=900,
        default_status=_status(settings),
        description="Send an alert for a night that is late and for live SIDs that stand on old data, each once, and "
        "deliver alerts that could not be sent before.",
    )
    def tell_of_age(context: dg.SensorEvaluationContext, warehouse: dg.ResourceParam[Warehouse]) -> dg.SensorResult:
        now = datetime.now(ZoneInfo(settings.snapshots.timezone))
        faults = tell_again(settings)
        told: list[str] = json.loads(context.cursor or "[]")
        standing: list[str] = []

        def tell_once(key: str, alert: Callable[..., Alert], *of: Any) -> None:
            standing.append(key)
            if key not in told:
                faults.extend(tell(settings, alert(warehouse, *of)))

        due = last_due(settings, now)
        day = due.date().isoformat()
        unreachable = f"unreachable {now.date().isoformat()}"
        try:
            places = late_places(warehouse, now, due)
        except Unreachable as error:
            standing += [key for key in told if key == f"late {day}"]  # whether it still is, nobody knows
            tell_once(unreachable, _not_looked_at, day, str(error))
        else:
            standing += [key for key in told if key == unreachable]  # once a day, however often it comes and goes
            if places:
                tell_once(f"late {day}", _late, due, places)
        for stale in stale_flavours(warehouse, now.date()):
            tell_once(f"stale {stale.flavour} {stale.as_of_snapshot}", _stale, stale)
        for fault in faults:
            context.log.warning(fault)
        return dg.SensorResult(cursor=json.dumps(standing))

    return tell_of_age


def _late(warehouse: Warehouse, due: datetime, places: list[str]) -> Alert:
    return Alert(
        "late_input",
        f"the catalogue of {due.date().isoformat()} is late",
        f"It was due at {due:%Y-%m-%d %H:%M %Z} and nothing lies at {', '.join(places)} yet.",
        what_is_served(warehouse),
        "Ask for the delivery. The night runs by itself when it comes; no older day is taken for it.",
    )


def _not_looked_at(warehouse: Warehouse, day: str, sentence: str) -> Alert:
    return Alert(
        "late_input",
        f"whether the catalogue of {day} has come is not known",
        f"{sentence}. The night is late, and whether its files are there nobody can tell.",
        what_is_served(warehouse),
        "See that the place answers and that its credentials hold. The night runs by itself when its files are found.",
    )


def _stale(warehouse: Warehouse, stale: Stale) -> Alert:
    allowed = warehouse.settings.alerts.stale_after_days
    return Alert(
        "stale",
        f"the live SIDs of {stale.flavour} are {stale.days} days old",
        f"They stand on {stale.as_of_snapshot}; at most {allowed} days are allowed (alerts.stale_after_days).",
        what_is_served(warehouse),
        "sid status says what blocks the newer nights.",
    )
