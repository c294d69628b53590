"""What is kept and for how long: everything that a live, served or previous release, or unfinished work, stands on, and
what `[retention]` adds to it. The rest is taken away.

What belongs here: what stays and why (`kept`), what goes and why (`plan`), taking it away (`take_away`), and what a
wholly full disk can be relieved of before anything else works (`make_room`). What does not: when it runs
(`schedules.py`), Dagster's own records (`run_history.py`) and how tables delete (`resources.tables`).

Whatever refers to something goes before it: receipts before rows, a publication's manifest before its files, days
before the vectors and cleanings that only they use. A crash on the way leaves things that nothing refers to, and the
next time takes them.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sid_pipeline.embedders import RELEVANCE_MODEL, current_id, where_now
from sid_pipeline.files import digest
from sid_pipeline.promotion import pointer_lock
from sid_pipeline.promotion_log import live_pointer, ways_back
from sid_pipeline.publication.folder import finished, folders, newest, number_of
from sid_pipeline.receipts import MissingInput, complete_snapshots
from sid_pipeline.releases import RETIRED, Release, all_releases, clear, is_left_of
from sid_pipeline.resources.faults import machine_fault
from sid_pipeline.resources.tables import is_left_behind
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.schemas import (
    ALL_TABLES,
    CLEANED_ATTRIBUTES,
    CLEANING_CALLS,
    EMBEDDED_PRODUCTS,
    EMBEDDINGS,
    OFFERS,
    PRODUCTS,
    REJECTED_PRODUCTS,
    SNAPSHOT_CLEANINGS,
    TableSpec,
)

if TYPE_CHECKING:
    import dagster as dg
    from pyspark.sql import DataFrame

# What a day consists of, each before what it refers to.
OF_A_DAY = (EMBEDDED_PRODUCTS, SNAPSHOT_CLEANINGS, OFFERS, REJECTED_PRODUCTS, PRODUCTS)
RELEASE, PUBLICATION, DAY, EMBEDDED, VECTORS, CLEANINGS, CODEBOOK, CHECKPOINT, MODEL, CALLS, SPOOL, RUN = (
    "release",
    "publication",
    "day",
    "embedded day",
    "vectors",
    "cleanings",
    "codebook",
    "checkpoint",
    "model",
    "model answers",
    "spool",
    "dagster run",
)
SPOOL_DAYS = 7  # a process of another machine cannot be asked whether it still writes


@dataclass(frozen=True)
class Kept:
    """What stays, each with the reason.

    Attributes:
        releases, snapshots, publications: name or folder to why it stays.
        embedders: ids whose vectors stay, in the days that stay.
    """

    releases: dict[str, str]
    snapshots: dict[str, str]
    publications: dict[str, str]
    embedders: frozenset[str]


@dataclass(frozen=True)
class Removal:
    """One thing that goes: its kind and name, why, and how much it is (`size`, in words, empty where not known)."""

    kind: str
    name: str
    why: str
    size: str = ""


@dataclass(frozen=True)
class Plan:
    """What stays and what goes, in the order in which it is taken."""

    kept: Kept
    removals: tuple[Removal, ...]

    def names(self, kind: str) -> list[str]:
        """Names of what goes of a kind."""
        return [removal.name for removal in self.removals if removal.kind == kind]


# What stays


def kept(warehouse: Warehouse, open_work: Collection[str] = (), today: date | None = None) -> Kept:
    """Work out what stays, from the ledgers alone; needs no Spark.

    Args:
        open_work: days and releases that unfinished runs and backfills name, see `run_history.named_by_open_work`.
        today: decides how long ago a release was retired.

    Raises:
        MissingInput: no day was taken yet: then nothing can be judged, and nothing is taken away.
    """
    if not warehouse.receipts.partitions(PRODUCTS.name):
        raise MissingInput("no snapshot was materialised yet: there is nothing to keep, and nothing is taken away")
    releases = _kept_releases(warehouse, open_work, today or date.today())
    publications = _kept_publications(warehouse)
    snapshots = _kept_snapshots(warehouse, releases, open_work)
    return Kept(releases, snapshots, publications, _kept_embedders(warehouse, releases))


def _kept_releases(warehouse: Warehouse, open_work: Collection[str], today: date) -> dict[str, str]:
    ledger = {release.release: release for release in all_releases(warehouse.tables)}
    days = warehouse.settings.retention.retired_days
    why: dict[str, str] = {}
    for flavour in warehouse.settings.flavours:
        pointer = live_pointer(warehouse, flavour)
        if pointer is not None:
            why.setdefault(pointer["release"], f"live for {flavour}")
    for flavour in warehouse.settings.flavours:
        for folder in ways_back(warehouse, flavour):
            why.setdefault(_release_of(folder), f"sid rollback of {flavour} may go back to it")
    for name, release in ledger.items():
        if release.state != RETIRED:
            why.setdefault(name, release.state)
        elif release.acknowledged_on and (today - date.fromisoformat(release.acknowledged_on)).days < days:
            why.setdefault(name, f"retired on {release.acknowledged_on}, less than {days} days ago")
        if name in open_work:
            why.setdefault(name, "unfinished work names it")
    for name in list(why):
        before = ledger[name].predecessor if name in ledger else ""
        if before:
            why.setdefault(before, f"the codebooks of {name} were trained on from it")
    return why


def _kept_publications(warehouse: Warehouse) -> dict[str, str]:
    """Publications that stay, of every flavour of the settings."""
    store, number = warehouse.store, warehouse.settings.retention.publications
    why: dict[str, str] = {}
    for flavour in warehouse.settings.flavours:
        pointer = live_pointer(warehouse, flavour)
        if pointer is not None:
            why.setdefault(pointer["publication"], f"live for {flavour}")
        for folder in ways_back(warehouse, flavour):
            why.setdefault(folder, f"sid rollback of {flavour} may go back to it")
        for release in _published(warehouse, flavour):
            for folder in finished(store, flavour, release)[-number:]:
                why.setdefault(folder, f"of the newest {number} of {release}")
    return why


def _kept_snapshots(warehouse: Warehouse, releases: Iterable[str], open_work: Collection[str]) -> dict[str, str]:
    receipts, settings = warehouse.receipts, warehouse.settings
    taken, number = receipts.partitions(PRODUCTS.name), settings.retention.snapshots
    why = {day: f"of the newest {number}" for day in taken[-number:]}
    ledger = {release.release: release for release in all_releases(warehouse.tables)}
    for name in releases:
        if name in ledger:
            why.setdefault(ledger[name].training_snapshot, f"{name} is trained on it")
        for flavour in settings.flavours:
            for stage in ("semantic_ids", "publication"):
                made = receipts.get(f"{flavour}/{stage}", name)
                if made is not None:
                    why.setdefault(made.facts["as_of_snapshot"], f"{flavour}/{stage} of {name} stands on it")
    for flavour in settings.flavours:
        pointer = live_pointer(warehouse, flavour)
        if pointer is not None:
            why.setdefault(pointer["as_of_snapshot"], f"what is live for {flavour} stands on it")
        for folder in ways_back(warehouse, flavour):
            why.setdefault(_day_of(folder), f"what sid rollback of {flavour} may go back to stands on it")
    for flavour in settings.active_flavours:
        for day in complete_snapshots(receipts, settings, flavour)[-1:]:
            why.setdefault(day, f"the newest that is complete for {flavour}")
    for day in taken:
        if day in open_work:
            why.setdefault(day, "unfinished work names it")
    return why


def _kept_embedders(warehouse: Warehouse, releases: Iterable[str]) -> frozenset[str]:
    ledger = [release for release in all_releases(warehouse.tables) if release.release in set(releases)]
    pinned = {identity for release in ledger for identity in release.embedder_ids.values()}
    used = {name for flavour in warehouse.settings.active_flavours.values() for name in flavour.embedders}
    return frozenset(pinned | {current_id(warehouse, name) for name in used})


def _published(warehouse: Warehouse, flavour: str) -> list[str]:
    """Releases that have a folder of publications."""
    return warehouse.store.names(f"publications/{flavour}")


def _release_of(folder: str) -> str:
    return folder.split("/")[-2]


def _day_of(folder: str) -> str:
    return folder.rsplit("/", 1)[-1].split("-", 1)[1][: len("2026-01-05")]


# What goes


def plan(
    warehouse: Warehouse,
    instance: dg.DagsterInstance | None = None,
    *,
    but: str | None = None,
    today: date | None = None,
) -> Plan:
    """What goes, and why. Starts Spark for the stores of vectors and cleanings; changes nothing.

    Args:
        instance: Dagster's; without one, no work counts as unfinished and its runs are left alone.
        but: the run that asks, which does not count as unfinished.

    Raises:
        MissingInput: no day was taken yet.
    """
    from sid_pipeline.run_history import named_by_open_work

    today = today or date.today()
    open_work = named_by_open_work(instance, but) if instance is not None else frozenset()
    stay = kept(warehouse, open_work, today)
    days = list(_days_to_go(warehouse, stay))
    removals = [
        *_releases_to_go(warehouse, stay),
        *_publications_to_go(warehouse, stay),
        *days,
        *_vectors_to_go(warehouse, days),
        *_cleanings_to_go(warehouse, days),
        *_artefacts_to_go(warehouse, stay, open_work),
        *_calls_to_go(warehouse, today),
        *_spools_to_go(warehouse),
        *(_runs_to_go(warehouse, instance, stay) if instance is not None else ()),
    ]
    return Plan(stay, tuple(removals))


def _releases_to_go(warehouse: Warehouse, stay: Kept) -> Iterator[Removal]:
    for release in all_releases(warehouse.tables):
        if release.release not in stay.releases and is_left_of(warehouse, release.release):
            yield Removal(
                RELEASE, release.release, _retired(release), "all that was made for it; the ledger keeps its row"
            )


def _retired(release: Release) -> str:
    when = f"on {release.acknowledged_on}" if release.acknowledged_on else "long ago"
    return f"retired {when}, and nothing kept needs it"


def _publications_to_go(warehouse: Warehouse, stay: Kept) -> Iterator[Removal]:
    store, number = warehouse.store, warehouse.settings.retention.publications
    for flavour in warehouse.settings.flavours:
        for release in _published(warehouse, flavour):
            if release not in stay.releases and is_left_of(warehouse, release):
                continue  # goes whole
            whole = set(finished(store, flavour, release))
            last = newest(store, flavour, release)
            for folder in folders(store, flavour, release):
                if folder in whole and folder not in stay.publications:
                    why = f"older than the newest {number}, not live, and no way back"
                    yield Removal(PUBLICATION, folder, why, megabytes(store.size(folder)))
                elif folder not in {*whole, *stay.publications} and last and number_of(folder) < number_of(last):
                    yield Removal(PUBLICATION, folder, "it has no manifest: a removal was interrupted")


def _days_to_go(warehouse: Warehouse, stay: Kept) -> Iterator[Removal]:
    tables, receipts = warehouse.tables, warehouse.receipts
    embedded = tables.slices(EMBEDDED_PRODUCTS)
    of_tables = {day for spec in OF_A_DAY[1:] for (day,) in tables.slices(spec)} | {day for _, day in embedded}
    taken = receipts.partitions(PRODUCTS.name)
    # Younger than these a day that was not taken has failed, or is half done: a person looks at it.
    oldest = taken[-warehouse.settings.retention.snapshots :][0]
    for day in sorted(day for day in {*of_tables, *taken} - stay.snapshots.keys() if day < oldest):
        made = receipts.get(PRODUCTS.name, day)
        why = f"older than the newest {warehouse.settings.retention.snapshots}, and nothing kept stands on it"
        size = f"{made.facts['rows']:,} products" if made and "rows" in made.facts else ""
        yield Removal(DAY, day, why, size)
    for identity, day in embedded:
        if day in stay.snapshots and identity not in stay.embedders:
            yield Removal(EMBEDDED, f"{identity}/{day}", "no release in use pins the embedder")


def _artefacts_to_go(warehouse: Warehouse, stay: Kept, open_work: Collection[str]) -> Iterator[Removal]:
    """Codebooks and checkpoints that a release's codebook has left behind, and fine-tuned models."""
    state = warehouse.state
    for flavour in warehouse.settings.flavours:
        for release in stay.releases:
            made = warehouse.receipts.get(f"{flavour}/codebook", release)
            if made is None or release in open_work:
                continue  # a training may be under way, or go on from there
            for folder in _below(warehouse.codebooks(flavour, release)):
                if folder.relative_to(state).as_posix() != made.facts["folder"]:
                    yield _artefact(state, CODEBOOK, folder, f"not the codebook of {release}")
            for folder in _below(state / "checkpoints" / flavour / release):
                yield _artefact(state, CHECKPOINT, folder, f"{release} has its codebook")
    used = {_model_of(warehouse, identity) for identity in stay.embedders}
    current = warehouse.receipts.get(RELEVANCE_MODEL)
    used.add(current.facts["model"] if current else None)
    for folder in _below(state / "artefacts" / "models"):
        if folder.is_dir() and folder.relative_to(state).as_posix() not in used and current is not None:
            yield _artefact(state, MODEL, folder, "no embedder in use is this model")


def _model_of(warehouse: Warehouse, identity: str) -> str | None:
    """The folder of an embedder's fine-tuned model within the state, None where it has none."""
    file = warehouse.state / "artefacts" / "embedders" / f"{identity}.json"
    if not file.is_file():
        return None
    model = json.loads(file.read_text(encoding="utf-8"))["model"]
    folder = warehouse.settings.path(where_now(warehouse, model))
    return folder.relative_to(warehouse.state).as_posix() if folder.is_relative_to(warehouse.state) else None


def _artefact(state: Path, kind: str, folder: Path, why: str) -> Removal:
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return Removal(kind, folder.relative_to(state).as_posix(), why, megabytes(size))


def _below(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _vectors_to_go(warehouse: Warehouse, gone: Collection[Removal]) -> Iterator[Removal]:
    for (identity,) in warehouse.tables.slices(EMBEDDINGS):
        count = _unused_vectors(warehouse, identity, gone).count()
        if count:
            yield Removal(VECTORS, identity, "no kept day has their texts", f"{count:,} rows")


def _unused_vectors(warehouse: Warehouse, identity: str, gone: Collection[Removal] = ()) -> DataFrame:
    """Vectors of an embedder whose text no embedded day has, but for days that are about to go."""
    from pyspark.sql import functions as F

    names = {removal.name for removal in gone}
    embedded = [day for i, day in warehouse.tables.slices(EMBEDDED_PRODUCTS) if i == identity]
    days = [day for day in embedded if not names & {day, f"{identity}/{day}"}]
    stored = warehouse.tables.read(EMBEDDINGS, embedder_id=identity).select("text_hash")
    if not days:
        return stored
    used = warehouse.tables.read(EMBEDDED_PRODUCTS).where(F.col("embedder_id") == identity)
    return stored.join(used.where(F.col("snapshot").isin(days)), "text_hash", "left_anti")


def _cleanings_to_go(warehouse: Warehouse, gone: Collection[Removal]) -> Iterator[Removal]:
    for (cleaner,) in warehouse.tables.slices(warehouse.cleaned):
        count = _unused_cleanings(warehouse, cleaner, gone).count()
        if count:
            yield Removal(CLEANINGS, cleaner, "no kept day uses them", f"{count:,} rows")


def _unused_cleanings(warehouse: Warehouse, cleaner: str, gone: Collection[Removal] = ()) -> DataFrame:
    """Cleanings of a cleaner that no day uses, but for days that are about to go.

    What a night that did not end well has made stays. What was paid for stays as long as the model's answer
    (`retention.call_days`): a product that was gone for longer than days are kept may come back, and is not asked for
    again.
    """
    from pyspark.sql import functions as F

    tables, names = warehouse.tables, {removal.name for removal in gone}
    unused = tables.read(warehouse.cleaned, cleaner_id=cleaner).select("text_hash")
    for spec, days in (
        (SNAPSHOT_CLEANINGS, [day for (day,) in tables.slices(SNAPSHOT_CLEANINGS)]),
        (PRODUCTS, [day for (day,) in tables.slices(PRODUCTS) if not _is_cleaned(warehouse, day)]),
    ):
        days = [day for day in days if day not in names]
        if days:
            used = tables.read(spec).where(F.col("snapshot").isin(days))
            used = used.where(F.col("cleaner_id") == cleaner) if spec is SNAPSHOT_CLEANINGS else used
            unused = unused.join(used, "text_hash", "left_anti")
    if tables.exists(CLEANING_CALLS):
        paid = tables.read(CLEANING_CALLS, cleaner_id=cleaner)
        unused = unused.join(paid.select(F.explode("text_hashes").alias("text_hash")), "text_hash", "left_anti")
    return unused


def _is_cleaned(warehouse: Warehouse, day: str) -> bool:
    products = warehouse.receipts.get(PRODUCTS.name, day)
    cleaned = warehouse.receipts.get(CLEANED_ATTRIBUTES.name, day)
    if products is None or cleaned is None or cleaned.facts.get("to_retry"):
        return False
    return cleaned.inputs.get("products") == products.data_version


def _calls_to_go(warehouse: Warehouse, today: date) -> Iterator[Removal]:
    import pyarrow.dataset as ds

    days = warehouse.settings.retention.call_days
    first = (today - timedelta(days=days)).isoformat()
    rows = len(warehouse.tables.arrow(CLEANING_CALLS, ["day"], filters=ds.field("day") < first))
    if rows:
        yield Removal(CALLS, first, f"answered before {first}, {days} days ago", f"{rows:,} rows")


def _spools_to_go(warehouse: Warehouse, days: int = SPOOL_DAYS) -> Iterator[Removal]:
    for folder in _below(warehouse.state / "spool"):
        left = is_left_behind(folder)
        if left is False:
            continue
        try:
            age = time.time() - folder.stat().st_mtime
        except FileNotFoundError:  # it was taken away just now
            continue
        if age >= (days if left else SPOOL_DAYS) * 86_400:
            why = "its process is gone" if left else f"of another machine, and untouched for {SPOOL_DAYS} days"
            yield _artefact(warehouse.state, SPOOL, folder, why)


def _runs_to_go(warehouse: Warehouse, instance: dg.DagsterInstance, stay: Kept) -> Iterator[Removal]:
    from sid_pipeline.run_history import old_runs

    days = warehouse.settings.retention.run_days
    for run_id in old_runs(instance, days, [*stay.snapshots, *stay.releases]):
        yield Removal(RUN, run_id, f"ended more than {days} days ago, and nothing kept was last made by it")


def megabytes(size: int) -> str:
    """Bytes in words."""
    return f"{size / 1e6:,.1f} MB"


# Taking it away


def take_away(
    warehouse: Warehouse, going: Plan, instance: dg.DagsterInstance | None = None, *, but: str | None = None
) -> list[str]:
    """Take away what a plan names, then compact the tables. Done again after a crash, it goes on where it was.

    The nights' cleaning and encoding wait meanwhile, but not for the compaction, which comes last because it needs
    room. What is named by work that began since the plan was made stays. Arguments as for `plan`.

    Returns:
        A sentence for each table that could not be compacted; the others are.
    """
    from sid_pipeline.run_history import delete_run, named_by_open_work

    state, tables = warehouse.state, warehouse.tables
    if instance is not None:
        named = named_by_open_work(instance, but)
        going = replace(going, removals=tuple(removal for removal in going.removals if removal.name not in named))
    for release in going.names(RELEASE):
        clear(warehouse, release)
    _take_publications(warehouse, going.names(PUBLICATION))
    with ExitStack() as locks:
        for name in (CLEANED_ATTRIBUTES.name, *sorted(f"{name}_embeddings" for name in warehouse.settings.embedders)):
            locks.enter_context(warehouse.receipts.lock(name))
        for day in going.names(DAY):
            locks.enter_context(warehouse.receipts.lock(f"{PRODUCTS.name}.{day}"))
        # Once more: the locks may have been waited for, and whoever comes now waits for them.
        named = named_by_open_work(instance, but) if instance is not None else frozenset()
        days = [day for day in going.names(DAY) if day not in named]
        _take_days(warehouse, days)
        _take_embedded(warehouse, going.names(EMBEDDED))
        # Asked once more: a night that came since the plan was made has its texts, too.
        for identity in going.names(VECTORS):
            tables.remove(EMBEDDINGS, _unused_vectors(warehouse, identity), embedder_id=identity)
        for cleaner in going.names(CLEANINGS):
            tables.remove(warehouse.cleaned, _unused_cleanings(warehouse, cleaner), cleaner_id=cleaner)
        for day in days:
            warehouse.receipts.forget_lock(f"{PRODUCTS.name}.{day}")
    for first in going.names(CALLS):
        tables.delete_before(CLEANING_CALLS, "day", first)
    for name in going.names(MODEL):
        (state / f"{name}.json").unlink(missing_ok=True)
    for kind in (CODEBOOK, CHECKPOINT, MODEL, SPOOL):
        for name in going.names(kind):
            (state / name / "manifest.json").unlink(missing_ok=True)
            shutil.rmtree(state / name, ignore_errors=True)
    if instance is not None:
        for run_id in going.names(RUN):
            delete_run(instance, run_id)
    _take_history(warehouse)
    uncompacted = []
    for spec in _tables(warehouse):
        try:
            tables.compact(spec)
        except Exception as error:
            sentence = machine_fault(error, "The table is whole; it is compacted the next time.")
            if sentence is None:
                raise
            uncompacted.append(f"{spec.name} is not compacted. {sentence}")
    return uncompacted


def make_room(warehouse: Warehouse, dry_run: bool = False) -> list[Removal]:
    """Take away what no unfinished work can need, whatever Dagster's history says: on a wholly full disk that history
    cannot be opened, and nothing can be written.

    That is old publications and what processes left behind that are gone; where there is none of it, the files that
    the tables replaced long ago.
    """
    every = dict.fromkeys((release.release for release in all_releases(warehouse.tables)), "")
    stay = Kept(every, {}, _kept_publications(warehouse), frozenset())
    going = [*_publications_to_go(warehouse, stay), *_spools_to_go(warehouse, days=0)]
    if not dry_run:
        _take_publications(warehouse, [removal.name for removal in going if removal.kind == PUBLICATION])
        for removal in going:
            if removal.kind == SPOOL:
                shutil.rmtree(warehouse.state / removal.name, ignore_errors=True)
        if not going:
            _take_history(warehouse)
    return going


def _take_history(warehouse: Warehouse) -> None:
    for spec in _tables(warehouse):
        warehouse.tables.vacuum(spec, history_hours=24 * warehouse.settings.retention.history_days)


def _tables(warehouse: Warehouse) -> list[TableSpec]:
    known = {**ALL_TABLES, warehouse.cleaned.name: warehouse.cleaned}
    return [spec for spec in known.values() if warehouse.tables.exists(spec)]


def _take_publications(warehouse: Warehouse, folders: list[str]) -> None:
    """Oldest first; what was made live since the plan was made stays."""
    for folder in folders:
        flavour = folder.split("/")[1]
        with pointer_lock(warehouse, flavour):
            pointer = live_pointer(warehouse, flavour)
            if folder not in {pointer["publication"] if pointer else "", *ways_back(warehouse, flavour)}:
                warehouse.store.remove(folder)


def _take_days(warehouse: Warehouse, days: list[str]) -> None:
    """Receipts first, so that no stage takes a day for complete whose rows are going."""
    receipts = warehouse.receipts
    catalogue = (OFFERS.name, REJECTED_PRODUCTS.name, PRODUCTS.name)
    embeddings = sorted(folder.name for folder in receipts.folder.glob("*_embeddings"))
    for day in days:
        for asset in (*embeddings, CLEANED_ATTRIBUTES.name, *catalogue):
            receipts.forget(asset, day)
    for spec in OF_A_DAY:
        slices = [dict(zip(spec.partition_by, found, strict=True)) for found in warehouse.tables.slices(spec)]
        warehouse.tables.delete(spec, [found for found in slices if found["snapshot"] in days])


def _take_embedded(warehouse: Warehouse, names: list[str]) -> None:
    """Days of embedders that nothing pins any more: out of the receipts, then out of the table."""
    receipts = warehouse.receipts
    pairs = [tuple(name.rsplit("/", 1)) for name in names]
    gone: dict[str, set[str]] = {}
    for identity, day in pairs:
        gone.setdefault(day, set()).add(identity)
    for asset in sorted(folder.name for folder in receipts.folder.glob("*_embeddings")):
        for day, identities in gone.items():
            made = receipts.get(asset, day)
            if made is None or not identities & made.facts["embedder_ids"].keys():
                continue
            versions = {i: v for i, v in made.facts["embedder_ids"].items() if i not in identities}
            if not versions:
                receipts.forget(asset, day)
                continue
            inputs: dict[str, Any] = {**made.inputs, "embedder_ids": sorted(versions)}
            facts = {**made.facts, "embedder_ids": versions}
            receipts.put(replace(made, inputs=inputs, facts=facts, data_version=digest(versions)))
    warehouse.tables.delete(EMBEDDED_PRODUCTS, [{"embedder_id": i, "snapshot": day} for i, day in pairs])
