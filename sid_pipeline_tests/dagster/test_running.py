"""The lines of `sid status` on what runs by itself."""

import time

import dagster as dg
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus, InstigatorType
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._daemon.types import DaemonHeartbeat

from sid_pipeline.definitions import build_definitions
from sid_pipeline.running import what_runs
from sid_pipeline.settings import load_settings


def switch(instance: dg.DagsterInstance, name: str, status: InstigatorStatus) -> None:
    location = ManagedGrpcPythonEnvCodeLocationOrigin(LoadableTargetOrigin(module_name="sid_pipeline.definitions"))
    origin = RemoteInstigatorOrigin(RemoteRepositoryOrigin(location, "__repository__"), name)
    instance.add_instigator_state(InstigatorState(origin, InstigatorType.SENSOR, status))


def test_the_settings_count_until_somebody_switches_and_a_daemon_must_be_there(tmp_path):
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        (off,) = what_runs(instance, build_definitions(load_settings(env={})))
        assert off.startswith("schedules and sensors on: none; off: nightly_refresh, weekly_retention, ")
        definitions = build_definitions(load_settings(env={"SID_ORCHESTRATION__AUTOMATION": "true"}))
        switch(instance, "taxonomy_watch", InstigatorStatus.STOPPED)
        on, warning = what_runs(instance, definitions)
        assert "nightly_refresh" in on.split("; off: ")[0] and on.endswith("; off: taxonomy_watch")
        assert "no daemon is running" in warning
        instance.add_daemon_heartbeat(DaemonHeartbeat(time.time(), "SENSOR", "1", []))
        assert len(what_runs(instance, definitions)) == 1
