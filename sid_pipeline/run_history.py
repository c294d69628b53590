"""Dagster's own records: which days and releases unfinished work names, which runs lost their process, and which are
old enough to go.

What belongs here: questions to a Dagster instance, ending runs that are dead, and deleting runs. What does not: the
pipeline's state (`retention.py`).
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus, PartitionBackfill
from dagster._core.storage.dagster_run import FINISHED_STATUSES

from sid_pipeline.processes import identity, is_there, ran_at

PARTITION_TAG = "dagster/partition"
HOST_TAG = "sid/host"  # the machine of a run that is not started by Dagster's launcher
PROCESS_TAG = "sid/process"  # such a run's id, and what its process is known by there, see `processes.identity`
LOST_TAG = "sid/lost"  # a run that was ended because its process was gone
UNFINISHED = [status for status in dg.DagsterRunStatus if status not in FINISHED_STATUSES]
# What can lose its process: a queued run has none yet.
WITH_PROCESS = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
SILENT_SECONDS = 600  # a run that says nothing for so long, not even which process it is, never came to have one
OPEN = [BulkActionStatus.REQUESTED, BulkActionStatus.CANCELING, BulkActionStatus.FAILING]


def own_tags(run_id: str) -> dict[str, str]:
    """Tags of a run that this process makes itself, by which it is known whether the process is still there.

    They name the run, because a run that is started again from Dagster's UI gets the tags of the one before.
    """
    return {HOST_TAG: socket.gethostname(), PROCESS_TAG: f"{run_id} {identity()}"}


def named_by_open_work(instance: dg.DagsterInstance, but: str | None = None) -> frozenset[str]:
    """Every text that a queued or running run, or an open backfill, names as partition or in its config.

    Args:
        but: a run that does not count: the one that asks.
    """
    named: set[str] = set()
    for run in instance.get_runs(dg.RunsFilter(statuses=UNFINISHED)):
        if run.run_id != but:
            named |= {*run.tags.values(), *_texts(run.run_config)}
    for backfill in instance.get_backfills(filters=BulkActionsFilter(statuses=OPEN)):
        named |= set(_partitions(backfill))
    return frozenset(named)


def _partitions(backfill: PartitionBackfill) -> Iterator[str]:
    yield from backfill.partition_names or ()
    if backfill.asset_backfill_data is not None:
        for subset in backfill.asset_backfill_data.target_subset.partitions_subsets_by_asset_key.values():
            yield from subset.get_partition_keys()


def _texts(config: Any) -> Iterator[str]:
    if isinstance(config, dict):
        for value in config.values():
            yield from _texts(value)
    elif isinstance(config, (list, tuple)):
        for value in config:
            yield from _texts(value)
    elif isinstance(config, str):
        yield config


@dataclass(frozen=True)
class LostRun:
    """A run that did not come to its end because its process was gone."""

    job: str
    partition: str
    started: datetime


def lost_runs(instance: dg.DagsterInstance) -> list[LostRun]:
    """Runs whose process is gone, also those that `end_lost_runs` ended; without those that a person cancelled, and
    those of a partition (or, where there is none, a job) that was run again since."""
    ended = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], tags={LOST_TAG: "true"})
    found = []
    for record in [*_without_process(instance, False), *instance.get_run_records(ended)]:
        run, partition = record.dagster_run, record.dagster_run.tags.get(PARTITION_TAG, "")
        if run.status == dg.DagsterRunStatus.CANCELING:
            continue
        again = dg.RunsFilter(tags={PARTITION_TAG: partition}) if partition else dg.RunsFilter(job_name=run.job_name)
        (newest,) = instance.get_runs(again, limit=1)
        if newest.run_id == run.run_id:
            started = datetime.fromtimestamp(record.start_time or record.create_timestamp.timestamp(), timezone.utc)
            found.append(LostRun(run.job_name, partition, started))
    return found


def end_lost_runs(instance: dg.DagsterInstance, launched_here: bool = False) -> list[str]:
    """Report runs whose process is gone as failed, or as cancelled where that was asked for, and give a sentence for
    each.

    While Dagster takes them for running, whatever waits for the last run to end waits for ever, and they keep their
    place in the queue. Dagster itself notices neither a killed `sid run` nor a machine that was started anew.

    Args:
        launched_here: the caller is the code server, whose children the launched runs are.
    """
    told = []
    for record in _without_process(instance, launched_here):
        run = record.dagster_run
        now = instance.get_run_by_id(run.run_id)
        if now is None or now.status in FINISHED_STATUSES:  # it came to its end just now
            continue
        instance.add_run_tags(run.run_id, {LOST_TAG: "true"})
        if now.status == dg.DagsterRunStatus.CANCELING:
            instance.report_run_canceled(now, "Its process is gone.")
        else:
            instance.report_run_failed(now, "Its process is gone. What is done is not done twice: run it again.")
        of = run.tags.get(PARTITION_TAG, "")
        told.append(f"the run {run.job_name}{f' {of}' if of else ''} had lost its process and is ended")
    return told


def _without_process(instance: dg.DagsterInstance, launched_here: bool) -> Iterator[dg.RunRecord]:
    """Runs that did not end, of which this machine can tell that their process is gone, or that none came to be."""
    for record in instance.get_run_records(dg.RunsFilter(statuses=WITH_PROCESS)):
        run = record.dagster_run
        if _is_of_this_machine(instance, run, launched_here) and not _has_process(instance, record):
            yield record


def _has_process(instance: dg.DagsterInstance, record: dg.RunRecord) -> bool:
    """Whether a run of this machine has its process, or may have it yet."""
    run = record.dagster_run
    of, _, process = run.tags.get(PROCESS_TAG, "").partition(" ")
    if of == run.run_id:
        return is_there(process)
    noted = _process(instance, run.run_id)
    if noted is not None:
        pid, when = noted
        return ran_at(pid, when) and _is_python(pid)
    if run.status == dg.DagsterRunStatus.STARTED:
        return True
    told = [entry.timestamp for entry in instance.all_logs(run.run_id)]
    return time.time() - max(told, default=record.create_timestamp.timestamp()) < SILENT_SECONDS


def _is_of_this_machine(instance: dg.DagsterInstance, run: dg.DagsterRun, launched_here: bool) -> bool:
    """Whether a run's process would be seen here. Of an instance that watches its runs, other machines may be part."""
    host = run.tags.get(HOST_TAG)
    if host is not None:
        return host == socket.gethostname()
    if not instance.run_monitoring_enabled:
        return True
    return launched_here and isinstance(instance.run_launcher, dg.DefaultRunLauncher)


def _process(instance: dg.DagsterInstance, run_id: str) -> tuple[int, float] | None:
    """The process that began a run's steps and when it said so, as Dagster noted it."""
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
        data: Any = entry.dagster_event.event_specific_data if entry.dagster_event else None
        noted = data.metadata.get("pid") if data is not None else None
        if noted is not None and str(noted.value).isdigit():
            return int(str(noted.value)), entry.timestamp
    return None


def _is_python(pid: int) -> bool:
    """Whether a process is one of Python; where that cannot be told, it is taken for one."""
    try:
        return b"python" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # no Linux
        return True


def old_runs(instance: dg.DagsterInstance, days: int, kept: Iterable[str], now: datetime | None = None) -> list[str]:
    """Finished runs that ended more than `days` ago, oldest first, without those that last made something kept.

    Without the run that last materialised an asset's partition, Dagster would show that partition as missing.

    Args:
        kept: partition keys (days and releases) whose assets' last materialisations stay.
    """
    before = (now or datetime.now(timezone.utc)) - timedelta(days=days)
    found = instance.get_run_records(dg.RunsFilter(statuses=FINISHED_STATUSES, created_before=before))
    ended = [r.dagster_run.run_id for r in reversed(found) if (r.end_time or 0) < before.timestamp()]
    last = _last_makers(instance, set(kept)) if ended else set()
    return [run_id for run_id in ended if run_id not in last]


def _last_makers(instance: dg.DagsterInstance, kept: set[str]) -> set[str]:
    """Runs that last materialised an unpartitioned asset or a kept partition."""
    makers: set[str] = set()
    for key in instance.all_asset_keys():
        newest = instance.get_latest_materialization_event(key)
        makers |= {newest.run_id} if newest else set()
        events = dg.DagsterEventType.ASSET_MATERIALIZATION
        ids = instance.get_latest_storage_id_by_partition(key, events)
        wanted = [storage_id for partition, storage_id in ids.items() if partition in kept]
        for start in range(0, len(wanted), 500):  # as many as an SQL statement takes
            records = instance.fetch_materializations(
                dg.AssetRecordsFilter(asset_key=key, storage_ids=wanted[start : start + 500]), limit=500
            ).records
            makers |= {record.run_id for record in records}
    return makers


def delete_run(instance: dg.DagsterInstance, run_id: str) -> None:
    """Delete a run, its events and its captured logs."""
    instance.delete_run(run_id)
    instance.compute_log_manager.delete_logs(prefix=[run_id])
    shard = getattr(instance.event_log_storage, "path_for_shard", None)  # SQLite: a file a run, which stays behind
    if shard is not None:
        path = Path(shard(run_id))
        for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
            path.with_name(name).unlink(missing_ok=True)
