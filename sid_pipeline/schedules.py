"""The schedules. They start by themselves only where `orchestration.automation` is set."""

from collections.abc import Mapping

import dagster as dg

from sid_pipeline.ingest.source_files import Unreachable
from sid_pipeline.jobs import SNAPSHOT_REFRESH, Job
from sid_pipeline.operations import retention
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.settings import Settings
from sid_pipeline.watch import has_arrived


def build_schedules(settings: Settings, jobs: Mapping[str, Job]) -> list[dg.ScheduleDefinition]:
    """`nightly_refresh`, the day's snapshot, and `weekly_retention`.

    When the night's run has ended, whatever became of it, the sensors `sids_follow_*` refresh the SIDs.

    A night whose catalogue has not come, or cannot be looked for, is not run: the sensor `late_nights` takes it when
    it comes.
    """
    running = settings.orchestration.automation

    @dg.schedule(
        name="nightly_refresh",
        job=jobs[SNAPSHOT_REFRESH],
        cron_schedule=settings.orchestration.nightly_cron,
        execution_timezone=settings.snapshots.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING if running else dg.DefaultScheduleStatus.STOPPED,
        description="Refresh the snapshot of the day that the schedule fires on.",
    )
    def nightly_refresh(
        context: dg.ScheduleEvaluationContext, warehouse: dg.ResourceParam[Warehouse]
    ) -> dg.RunRequest | dg.SkipReason:
        day = context.scheduled_execution_time.strftime("%Y-%m-%d")
        try:
            arrived = has_arrived(warehouse, day)
        except Unreachable as error:
            return dg.SkipReason(f"{error}; the sensor late_nights takes {day} when it can be")
        if not arrived:
            return dg.SkipReason(f"the catalogue of {day} has not come yet; the sensor late_nights waits for it")
        return dg.RunRequest(run_key=f"snapshot-{day}", partition_key=day)

    weekly_retention = dg.ScheduleDefinition(
        name="weekly_retention",
        job=retention,
        cron_schedule=settings.retention.cron,
        execution_timezone=settings.snapshots.timezone,
        default_status=nightly_refresh.default_status,
        description="Take away what nothing kept needs, and compact the tables.",
    )
    return [nightly_refresh, weekly_retention]
