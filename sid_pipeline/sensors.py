"""Sensors. They start by themselves only where `orchestration.automation` is set."""

from collections.abc import Mapping

import dagster as dg

from sid_pipeline.jobs import SID_REFRESH, SNAPSHOT_REFRESH, Job
from sid_pipeline.releases import SERVED, all_releases
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.settings import Settings


def build_sensors(settings: Settings, jobs: Mapping[str, Job]) -> list[dg.SensorDefinition]:
    """`sids_follow_snapshot`: when a snapshot run ends, refresh the SIDs of every served release.

    It follows a failed run too: what failed for one flavour does not hold back another, and a flavour whose newest
    complete snapshot is the one it stands on is left as it is.
    """
    return [
        _follow(settings, jobs, "sids_follow_snapshot", dg.DagsterRunStatus.SUCCESS),
        _follow(settings, jobs, "sids_follow_failed_snapshot", dg.DagsterRunStatus.FAILURE),
    ]


def _follow(settings: Settings, jobs: Mapping[str, Job], name: str, status: dg.DagsterRunStatus) -> dg.SensorDefinition:
    running = settings.orchestration.automation

    @dg.run_status_sensor(
        name=name,
        run_status=status,
        monitored_jobs=[jobs[SNAPSHOT_REFRESH]],
        request_job=jobs[SID_REFRESH],
        default_status=dg.DefaultSensorStatus.RUNNING if running else dg.DefaultSensorStatus.STOPPED,
        description="After a snapshot run, refresh the SIDs of every served release at the newest snapshot.",
    )
    def sids_follow_snapshot(context: dg.RunStatusSensorContext, warehouse: dg.ResourceParam[Warehouse]):
        served = [release.release for release in all_releases(warehouse.tables) if release.state == SERVED]
        if not served:
            return dg.SkipReason("no release is served yet")
        run = context.dagster_run.run_id
        return [dg.RunRequest(run_key=f"{run}-{release}", partition_key=release) for release in served]

    return sids_follow_snapshot
