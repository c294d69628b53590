"""The ledger of vocabulary releases: what a release is pinned to, its state, and reading it back without Spark.

A release is pinned once, by the first stage of its plane, and its pins never change: another taxonomy, cleaner,
embedder or training snapshot is another release. Its state does: a *trial* is an analyst's, it never goes live and is
thrown away or kept; a *served* release is refreshed nightly; a *retired* one is not, after its readers have
acknowledged it.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from sid_pipeline.keys import check_key
from sid_pipeline.promotion_log import live_pointer
from sid_pipeline.publication.folder import PublicationError, release_folder
from sid_pipeline.publication.store import StoreNotReached
from sid_pipeline.receipts import MissingInput
from sid_pipeline.resources.tables import Tables
from sid_pipeline.schemas import ALL_TABLES, RELEASES, TableSpec

if TYPE_CHECKING:
    from sid_pipeline.resources.warehouse import Warehouse

TRIAL, SERVED, RETIRED = "trial", "served", "retired"
# Assets of the release plane that belong to no flavour.
TOGETHER = ("taxonomy", "flavour_comparison", "explorer")


class ReleaseError(ValueError):
    """A release cannot be put into another state; the message says why and what to do first."""


@dataclass(frozen=True)
class Release:
    """A row of the ledger; texts that are not known are empty."""

    release: str
    state: str
    taxonomy_source: str
    taxonomy_revision: str
    training_snapshot: str
    embedder_ids: dict[str, str]
    cleaner_id: str = ""
    asked_by: str = ""
    reason: str = ""
    created_at: datetime = datetime(1970, 1, 1, tzinfo=timezone.utc)
    predecessor: str = ""
    acknowledged_by: str = ""
    acknowledged_on: str = ""

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Release:
        """From a row of the table; columns that an older table lacks are as if empty."""
        known = {field.name: row.get(field.name) for field in fields(cls)}
        given = {name: value for name, value in known.items() if value is not None}
        return cls(**{**given, "embedder_ids": json.loads(row["embedder_ids"])})

    def to_row(self) -> dict[str, Any]:
        """The table's row without its partition column."""
        row: dict[str, Any] = {name: value if value != "" else None for name, value in asdict(self).items()}
        return {**row, "embedder_ids": json.dumps(self.embedder_ids, sort_keys=True)}


def all_releases(tables: Tables) -> list[Release]:
    """Every release of the ledger, by name."""
    rows = tables.arrow(RELEASES).to_pylist()
    return sorted((Release.from_row(row) for row in rows), key=lambda release: release.release)


def find_release(tables: Tables, release: str) -> Release | None:
    """A release, or None when the ledger has none of that name."""
    check_key("release", release)
    return next((r for r in all_releases(tables) if r.release == release), None)


def need_release(tables: Tables, release: str) -> Release:
    """A release of the ledger.

    Raises:
        MissingInput: it was not pinned yet.
    """
    found = find_release(tables, release)
    if found is None:
        raise MissingInput(no_such_release(tables, release))
    return found


def release_to_build(tables: Tables, release: str) -> Release:
    """A release that a stage makes something for.

    Raises:
        MissingInput: it was not pinned yet.
        ReleaseError: it is retired.
    """
    found = need_release(tables, release)
    _refuse_if_retired(found)
    return found


def no_such_release(tables: Tables, release: str) -> str:
    """A sentence for a release that the ledger lacks, with those that it has."""
    known = ", ".join(found.release for found in all_releases(tables))
    there = f"there are {known}" if known else "there is none yet"
    return f"there is no release {release!r}; {there}. `sid run --release NAME` builds one"


def refuse_retired(tables: Tables, release: str) -> None:
    """Raise ReleaseError for a retired release, which is never built, refreshed or promoted again."""
    found = find_release(tables, release)
    if found is not None:
        _refuse_if_retired(found)


def _refuse_if_retired(found: Release) -> None:
    if found.state == RETIRED:
        raise ReleaseError(
            f"release {found.release!r} is retired ({found.acknowledged_by}, {found.acknowledged_on}), and a retired "
            "name is never used again: build a release of another name (sid run --release NAME) and promote it"
        )


def served_releases(tables: Tables) -> list[Release]:
    """The releases that are refreshed nightly."""
    return [release for release in all_releases(tables) if release.state == SERVED]


def live_flavours(warehouse: Warehouse, release: str) -> list[str]:
    """The flavours whose readers are pointed at a release.

    Raises:
        PublicationError: a live pointer cannot be read, or is gone.
    """
    pointers = {name: live_pointer(warehouse, name) for name in warehouse.settings.flavours}
    return [name for name, pointer in pointers.items() if pointer and pointer["release"] == release]


def to_refresh(warehouse: Warehouse) -> tuple[list[str], list[str]]:
    """The live releases that a run without a named one refreshes, and sentences on flavours that it cannot refresh.

    Raises:
        StoreNotReached: it is not known what is live.
    """
    found: dict[str, None] = {}
    left_out = []
    for flavour in warehouse.settings.active_flavours:
        try:
            pointer = live_pointer(warehouse, flavour)
        except StoreNotReached:
            raise
        except PublicationError as error:
            left_out.append(f"{flavour} is not refreshed: {error}")
            continue
        if pointer is None:
            continue
        ledger = find_release(warehouse.tables, pointer["release"])
        if ledger is not None and ledger.state == RETIRED:
            left_out.append(
                f"{flavour} is not refreshed: what is live, {pointer['release']}, is retired; promote one that is "
                f"served (sid promote RELEASE --flavour {flavour} --by NAME --reason WHY)"
            )
        else:
            found[pointer["release"]] = None
    return list(found), left_out


def default_release(warehouse: Warehouse) -> str:
    """The release that a command looks at when none is named: what is live, else `release.default`.

    Raises:
        PublicationError: a live pointer cannot be read, or is gone, and no other flavour tells a release.
    """
    fault = None
    for flavour in warehouse.settings.active_flavours:
        try:
            pointer = live_pointer(warehouse, flavour)
        except PublicationError as error:
            fault = fault or error
            continue
        if pointer is not None:
            return pointer["release"]
    if fault is not None:
        raise fault
    return warehouse.settings.release.default


def newest_release(warehouse: Warehouse) -> Release | None:
    """The release that a new one follows: of those that are live, else of those served, the newest."""
    served = served_releases(warehouse.tables)
    live = [release for release in served if live_flavours(warehouse, release.release)]
    return max(live or served, key=lambda release: (release.created_at, release.release), default=None)


def write_release(warehouse: Warehouse, release: Release) -> None:
    """Write a release's row of the ledger, replacing the one before."""
    row = release.to_row()
    name = row.pop("release")
    frame = warehouse.spark.createDataFrame([row], RELEASES.ddl(without=("release",)))
    warehouse.tables.replace(RELEASES, frame, release=name)


def retire(warehouse: Warehouse, release: str, acknowledged_by: str, acknowledged_on: str) -> Release:
    """Stop refreshing a release. Its publications stay where they are.

    Raises:
        MissingInput: there is no such release.
        ReleaseError: it is live, or nobody is named, or the day is none.
    """
    found = need_release(warehouse.tables, release)
    live = live_flavours(warehouse, release)
    if live:
        raise ReleaseError(f"release {release!r} is live for {', '.join(live)}: promote another one first")
    if not acknowledged_by.strip():
        raise ReleaseError("retiring a release needs the name of whoever says that no reader uses it any more")
    try:
        day = datetime.strptime(acknowledged_on, "%Y-%m-%d").date().isoformat()
    except ValueError as error:
        raise ReleaseError(f"{acknowledged_on!r} is no day (YYYY-MM-DD)") from error
    return _change(warehouse, found, state=RETIRED, acknowledged_by=acknowledged_by.strip(), acknowledged_on=day)


def keep(warehouse: Warehouse, release: str) -> Release:
    """Make a trial a served release, refreshed nightly and free to be promoted.

    Raises:
        MissingInput: there is no such release.
        ReleaseError: it is no trial.
    """
    found = need_release(warehouse.tables, release)
    if found.state != TRIAL:
        raise ReleaseError(f"release {release!r} is {found.state}, not a trial")
    return _change(warehouse, found, state=SERVED)


def drop_trial(warehouse: Warehouse, release: str) -> None:
    """Throw a trial release away: all that was made for it, the ledger's row last; or what was left by a release that
    failed before it came into the ledger.

    A crash on the way leaves a trial that can be dropped again.

    Raises:
        MissingInput: there is no such release.
        ReleaseError: it is no trial; what readers may have seen is never deleted.
    """
    if find_release(warehouse.tables, release) is None and _failed(warehouse, release):
        clear(warehouse, release)
        return
    found = need_release(warehouse.tables, release)
    if found.state != TRIAL:
        raise ReleaseError(f"release {release!r} is {found.state}: only a trial can be thrown away; retire it instead")
    clear(warehouse, release)
    _empty(warehouse.tables, RELEASES, release=release)


def _failed(warehouse: Warehouse, release: str) -> bool:
    return any(
        trouble.partition == release and trouble.asset in _made_for(warehouse)
        for trouble in warehouse.receipts.troubles()
    )


def clear(warehouse: Warehouse, release: str) -> None:
    """Take away all that was made for a release, but for its row of the ledger: receipts first, then publications,
    artefacts and rows. After a crash on the way it can be done again."""
    from sid_pipeline.publication.publish import drop_scratch

    flavours = list(warehouse.settings.flavours)
    for asset in _made_for(warehouse):
        warehouse.receipts.forget(asset, release)
    for flavour in flavours:
        warehouse.store.remove(release_folder(flavour, release))
        drop_scratch(warehouse.store, flavour, release)
    shutil.rmtree(warehouse.explorer(release), ignore_errors=True)
    for flavour in flavours:
        kinds = [kind for kind in (warehouse.state / "artefacts").glob("*") if kind.name != "explorers"]
        for root in (*kinds, warehouse.state / "checkpoints"):
            shutil.rmtree(root / flavour / release, ignore_errors=True)
    tables = warehouse.tables
    for spec in ALL_TABLES.values():
        if spec is not RELEASES and spec.partition_by == ("release",):
            _empty(tables, spec, release=release)
        elif spec.partition_by == ("flavour", "release"):
            for flavour in warehouse.settings.flavours:
                _empty(tables, spec, flavour=flavour, release=release)


def _made_for(warehouse: Warehouse) -> list[str]:
    """Assets of the release plane that left receipts."""
    # By flavour and stage, never by the bare name: a release may be named like a flavour or a day.
    folders = [f for flavour in warehouse.settings.flavours for f in warehouse.receipts.folder.glob(f"{flavour}/*")]
    return [*TOGETHER, *(f.relative_to(warehouse.receipts.folder).as_posix() for f in folders if f.is_dir())]


def is_left_of(warehouse: Warehouse, release: str) -> bool:
    """Whether `clear` would find anything of a release."""
    if any(warehouse.receipts.get(asset, release) for asset in _made_for(warehouse)):
        return True
    if any(warehouse.store.names(release_folder(flavour, release)) for flavour in warehouse.settings.flavours):
        return True
    planes = [spec for spec in ALL_TABLES.values() if spec is not RELEASES and "release" in spec.partition_by]
    return any(release == found[-1] for spec in planes for found in warehouse.tables.slices(spec))


def _empty(tables: Tables, spec: TableSpec, **slice: Any) -> None:
    if tables.exists(spec):
        frame = tables.spark.createDataFrame([], spec.ddl(without=tuple(slice)))
        tables.replace(spec, frame, **slice)


def _change(warehouse: Warehouse, release: Release, **changes: str) -> Release:
    changed = replace(release, **changes)  # type: ignore[arg-type]
    write_release(warehouse, changed)
    return changed
