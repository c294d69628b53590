"""What runs by itself just now: schedules and sensors that are switched on, and whether a daemon is there for them.

Asks a Dagster instance; what a person switched in the UI counts before what the settings say. An instance that cannot
be read (a full disk, a database that is down) is told of, and holds up nothing else that `sid status` says.
"""

from __future__ import annotations

import time
from typing import Any

import dagster as dg
from dagster._core.scheduler.instigation import InstigatorStatus
from dagster._daemon.types import DaemonStatus

from sid_pipeline.resources.faults import machine_fault
from sid_pipeline.run import home
from sid_pipeline.run_history import LostRun, lost_runs
from sid_pipeline.settings import Settings

DAEMON_SECONDS = 120  # a daemon that was silent for longer is not there


def ask_dagster(settings: Settings) -> tuple[list[str], list[LostRun]]:
    """Lines for `sid status` on what runs by itself, and the runs whose process died."""
    from sid_pipeline.definitions import build_definitions

    try:
        home(settings)
        with dg.DagsterInstance.get() as instance:
            return what_runs(instance, build_definitions(settings)), lost_runs(instance)
    except Exception as error:
        # A fault of another kind is told by its name alone: a database's address may hold a password.
        sentence = machine_fault(error, "What is live stays.") or f"{type(error).__name__}. What is live stays."
        return [f"what runs by itself is not known, because Dagster's history cannot be opened: {sentence}"], []


def what_runs(instance: dg.DagsterInstance, definitions: dg.Definitions) -> list[str]:
    """Lines for `sid status`."""
    switched = {state.instigator_name: state.status for state in instance.all_instigator_state()}
    repository = definitions.get_repository_def()
    defined: list[Any] = [*repository.schedule_defs, *repository.sensor_defs]
    on: list[str] = []
    off: list[str] = []
    for found in defined:
        status = switched.get(found.name, InstigatorStatus.DECLARED_IN_CODE)
        by_default = status == InstigatorStatus.DECLARED_IN_CODE and found.default_status.value == "RUNNING"
        running = by_default or status == InstigatorStatus.RUNNING
        (on if running else off).append(found.name)
    lines = [f"schedules and sensors on: {', '.join(on) or 'none'}; off: {', '.join(off) or 'none'}"]
    if on and not _daemon(instance):
        lines.append("no daemon is running: none of them starts anything (sid ui, or the service sid-daemon)")
    return lines


def _daemon(instance: dg.DagsterInstance) -> bool:
    beats: dict[str, DaemonStatus] = dict(instance.get_daemon_statuses())
    newest = max((s.last_heartbeat.timestamp for s in beats.values() if s.last_heartbeat is not None), default=0.0)
    return time.time() - newest < DAEMON_SECONDS
