"""The two partition dimensions: the catalogue's days and the vocabulary releases.

They meet only by an explicit `as_of_snapshot`; the mapping between them is lineage, never a choice of data.
"""

from __future__ import annotations

import dagster as dg

from sid_pipeline.settings import SnapshotSettings

releases = dg.DynamicPartitionsDefinition(name="releases")


def from_snapshots(key: str) -> dg.AssetDep:
    """A dependency of the release plane on the snapshot plane.

    Which snapshot a run stands on is in its `as_of_snapshot`, not here. The mapping is there because Dagster's default
    looks for a day with the release's name, and refuses a backfill when there is none.
    """
    return dg.AssetDep(dg.AssetKey(key.split("/")), partition_mapping=dg.LastPartitionMapping())


def snapshots(settings: SnapshotSettings) -> dg.DailyPartitionsDefinition:
    """Daily partitions from the first day on, the running day included: a night's input may come before midnight."""
    return dg.DailyPartitionsDefinition(start_date=settings.start.isoformat(), timezone=settings.timezone, end_offset=1)
