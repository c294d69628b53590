"""Dagster's own records: which days and releases unfinished work names, which runs lost their process, and which are
old enough to go.

What belongs here: questions to a Dagster instance, and deleting runs. What does not: the pipeline's state
(`retention.py`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus, PartitionBackfill
from dagster._core.storage.dagster_run import FINISHED_STATUSES

UNFINISHED = [status for status in dg.DagsterRunStatus if status not in FINISHED_STATUSES]
OPEN = [BulkActionStatus.REQUESTED, BulkActionStatus.CANCELING, BulkActionStatus.FAILING]


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
    """A run that Dagster takes for running, and whose process is gone."""

    job: str
    partition: str
    started: datetime


def lost_runs(instance: dg.DagsterInstance) -> list[LostRun]:
    """Runs that began, did not end, and whose process is gone; the newest of a job and partition counts.

    Where Dagster itself watches its runs (`run_monitoring`), perhaps on other machines, nothing is looked for.
    """
    if instance.run_monitoring_enabled:
        return []
    found = []
    for record in instance.get_run_records(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])):
        run, partition = record.dagster_run, record.dagster_run.tags.get("dagster/partition", "")
        tags = {"dagster/partition": partition} if partition else {}
        (newest,) = instance.get_runs(dg.RunsFilter(job_name=run.job_name, tags=tags), limit=1)
        pid = _process(instance, run.run_id)
        if newest.run_id == run.run_id and pid is not None and not _is_there(pid):
            started = datetime.fromtimestamp(record.start_time or record.create_timestamp.timestamp(), timezone.utc)
            found.append(LostRun(run.job_name, partition, started))
    return found


def _process(instance: dg.DagsterInstance, run_id: str) -> int | None:
    """The process that began a run's steps, as Dagster noted it."""
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
        data: Any = entry.dagster_event.event_specific_data if entry.dagster_event else None
        noted = data.metadata.get("pid") if data is not None else None
        if noted is not None and str(noted.value).isdigit():
            return int(str(noted.value))
    return None


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
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
