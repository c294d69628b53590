"""Keeping the store of vectors small: few files, and no row that nothing kept refers to.

What belongs here: what is kept, and taking away the rest. What does not: encoding (`assets/embeddings.py`) and when
it runs (`schedules.py`).
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from sid_pipeline.embedders import current_id
from sid_pipeline.receipts import MissingInput
from sid_pipeline.releases import RETIRED, all_releases
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.schemas import EMBEDDED_PRODUCTS, EMBEDDINGS, PRODUCTS


@dataclass(frozen=True)
class Upkeep:
    """What was taken away: snapshots of an embedder (`embedder_id/day`), and vectors."""

    dropped: list[str]
    collected: int


def tidy_embeddings(warehouse: Warehouse) -> Upkeep:
    """Collect vectors that nothing kept refers to, then compact the tables.

    Kept are the newest `embedding.keep_snapshots` snapshots, those that a release in use was trained on or stands on,
    and in them the embedders of the settings and of releases in use. A snapshot that is dropped counts as never
    embedded. Files that no version within Delta's retention (a week) needs are removed.
    """
    tables = warehouse.tables
    with ExitStack() as locks:
        for name in sorted(warehouse.settings.embedders):
            locks.enter_context(warehouse.receipts.lock(f"{name}_embeddings"))
        if not tables.exists(EMBEDDINGS):
            return Upkeep([], 0)
        dropped = _drop_slices(warehouse)
        collected = _collect(warehouse)
        for table in (EMBEDDED_PRODUCTS, EMBEDDINGS):
            tables.compact(table)
    return Upkeep(dropped, collected)


def _kept_embedders(warehouse: Warehouse) -> set[str]:
    used = {name for flavour in warehouse.settings.active_flavours.values() for name in flavour.embedders}
    kept = {identity for release in _in_use(warehouse) for identity in release.embedder_ids.values()}
    return kept | {current_id(warehouse, name) for name in used}


def _kept_snapshots(warehouse: Warehouse) -> set[str]:
    receipts = warehouse.receipts
    kept = set(receipts.partitions(PRODUCTS.name)[-warehouse.settings.embedding.keep_snapshots :])
    for release in _in_use(warehouse):
        kept.add(release.training_snapshot)
        for flavour in warehouse.settings.flavours:
            assigned = receipts.get(f"{flavour}/semantic_ids", release.release)
            kept |= {assigned.facts["as_of_snapshot"]} if assigned else set()
    return kept


def _in_use(warehouse: Warehouse) -> list:
    return [release for release in all_releases(warehouse.tables) if release.state != RETIRED]


def _drop_slices(warehouse: Warehouse) -> list[str]:
    embedders, snapshots = _kept_embedders(warehouse), _kept_snapshots(warehouse)
    if not snapshots:
        raise MissingInput("no snapshot was materialised yet: there is nothing to keep, and nothing is taken away")
    dropped = []
    for identity, snapshot in warehouse.tables.slices(EMBEDDED_PRODUCTS):
        if identity in embedders and snapshot in snapshots:
            continue
        if snapshot not in snapshots:
            for name in warehouse.settings.embedders:
                warehouse.receipts.forget(f"{name}_embeddings", snapshot)
        warehouse.tables.delete(EMBEDDED_PRODUCTS, embedder_id=identity, snapshot=snapshot)
        dropped.append(f"{identity}/{snapshot}")
    return dropped


def _collect(warehouse: Warehouse) -> int:
    tables, collected = warehouse.tables, 0
    wanted = {identity for identity, _ in tables.slices(EMBEDDED_PRODUCTS)}
    for (identity,) in tables.slices(EMBEDDINGS):
        stored = tables.read(EMBEDDINGS, embedder_id=identity).select("text_hash")
        if identity not in wanted:
            collected += stored.count()
            tables.delete(EMBEDDINGS, embedder_id=identity)
            continue
        used = tables.read(EMBEDDED_PRODUCTS).where(f"embedder_id = '{identity}'").select("text_hash")
        unused = stored.join(used, "text_hash", "left_anti")
        count = unused.count()
        if count:
            tables.remove(EMBEDDINGS, unused, embedder_id=identity)
        collected += count
    return collected
