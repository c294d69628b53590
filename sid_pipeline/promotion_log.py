"""The log of what was made live, taken back and held, and what it says of the live pointer.

What belongs here: reading PROMOTIONS, adding to it, and holding the pointer against it. What does not: who may change
what is live (`promotion.py`). No Spark is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from sid_pipeline.publication.folder import PublicationError, read_manifest, release_folder
from sid_pipeline.publication.live import ADVANCE, FIRST, SWITCH, pointer_path, read_pointer, write_pointer
from sid_pipeline.publication.store import MANIFEST, StoreNotReached
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.schemas import PROMOTIONS

ROLLBACK, HOLD, RELEASE_HOLD = "rollback", "hold", "release hold"
MOVES = (FIRST, ADVANCE, SWITCH, ROLLBACK)


def promotions(warehouse: Warehouse, flavour: str) -> list[dict[str, Any]]:
    """The log of a flavour, oldest first."""
    rows = warehouse.tables.arrow(PROMOTIONS).to_pylist()
    return sorted((row for row in rows if row["flavour"] == flavour), key=lambda row: row["at"])


def log(
    warehouse: Warehouse,
    flavour: str,
    kind: str,
    release: str,
    publication: str,
    live: Mapping[str, Any] | None,
    by: str,
    reason: str,
) -> None:
    """Add a row, but for one that an interrupted run added before the pointer followed."""
    previous = live["publication"] if live else ""
    logged = promotions(warehouse, flavour)
    last = logged[-1] if logged else None
    if last and (last["kind"], last["publication"], last["previous"]) == (kind, publication, previous):
        return  # of a run that was interrupted before the pointer followed
    now = datetime.now(timezone.utc)
    if last is not None:
        now = max(now, last["at"] + timedelta(microseconds=1))  # the order of the log outlives a clock set back
    row = {
        "flavour": flavour,
        "release": release,
        "publication": publication,
        "kind": kind,
        "previous": previous,
        "by": by,
        "reason": reason,
        "at": now,
    }
    warehouse.tables.append_rows(PROMOTIONS, [row])


def standing_hold(warehouse: Warehouse, flavour: str) -> dict[str, Any] | None:
    """The row of the log that holds the flavour now, or None."""
    rows = [row for row in promotions(warehouse, flavour) if row["kind"] in (HOLD, ROLLBACK, RELEASE_HOLD)]
    return rows[-1] if rows and rows[-1]["kind"] != RELEASE_HOLD else None


def tell_hold(held: Mapping[str, Any]) -> str:
    """A hold in words: who, since when, why."""
    what = "rolled back and held" if held["kind"] == ROLLBACK else "held"
    return f"{what} by {held['by']} since {held['at']:%Y-%m-%d %H:%M} UTC: {held['reason']}"


def live_pointer(warehouse: Warehouse, flavour: str) -> dict[str, Any] | None:
    """The live pointer of a flavour, None where nothing was live, or one publication at most.

    One that the log names may never have come to be live: a run can end between the log and the pointer.

    Raises:
        PublicationError: it cannot be read, or it is gone though the log knows of something that was live.
    """
    pointer = read_pointer(warehouse.store, flavour)
    was = [row["previous"] for row in promotions(warehouse, flavour) if row["previous"]] if pointer is None else []
    if was:
        raise PublicationError(
            f"{warehouse.published}/{pointer_path(flavour)} is gone, though {was[-1]} was live: promote a release "
            "again, which writes it anew"
        )
    return pointer


def mended_pointer(warehouse: Warehouse, flavour: str) -> dict[str, Any] | None:
    """The live pointer; one that is broken or gone is written anew for what the log says was made live last, so that
    readers have something again whatever comes of what was asked for. The caller holds the pointer's lock.

    Raises:
        PublicationError: it is broken, and nothing that was live is there either.
    """
    try:
        return live_pointer(warehouse, flavour)
    except StoreNotReached:  # it may be whole
        raise
    except PublicationError:
        last = logged_last(warehouse, flavour)
        if last is None:
            raise
        folder, store = last["publication"], warehouse.store
        if not store.exists(f"{folder}/{MANIFEST}") and not store.exists(pointer_path(flavour)):
            return None  # publications go to another place now: nothing is live there yet
        return write_pointer(store, folder, read_manifest(store, folder))


def logged_last(warehouse: Warehouse, flavour: str) -> dict[str, Any] | None:
    """The row of what the log says was made live last, None where nothing was."""
    moves = [row for row in promotions(warehouse, flavour) if row["kind"] in MOVES]
    return moves[-1] if moves else None


def was_live(warehouse: Warehouse, flavour: str, live: Mapping[str, Any] | None) -> list[str]:
    """The publications that rollbacks go back through, the live one last.

    A row counts only if the pointer followed it: the next row, or the pointer itself, starts from its publication.
    Those after the live one, which a pointer that was put back from a copy has left, do not count either.
    """
    moves = [row for row in promotions(warehouse, flavour) if row["kind"] in MOVES]
    after = [*(row["previous"] for row in moves), live["publication"] if live else ""][1:]
    stack: list[str] = []
    for row, followed in zip(moves, after, strict=True):
        if row["publication"] != followed:
            continue
        if row["kind"] == ROLLBACK:
            stack.pop()
            while stack and stack[-1] != row["publication"]:  # over those that were kept no more
                stack.pop()
        else:
            stack.append(row["publication"])
    if live is not None and live["publication"] in stack:
        while stack[-1] != live["publication"]:
            stack.pop()
    return stack


def ways_back(warehouse: Warehouse, flavour: str) -> list[str]:
    """What must stay for rollbacks: the publication that was live before the present one, and the one that was live
    before the present release. Folders of the store; those that are gone are left out."""
    live = live_pointer(warehouse, flavour)
    before = was_live(warehouse, flavour, live)[:-1]
    there = [folder for folder in before if warehouse.store.exists(f"{folder}/{MANIFEST}")]
    other = [f for f in there if live is not None and not f.startswith(f"{release_folder(flavour, live['release'])}/")]
    return list(dict.fromkeys([*there[-1:], *other[-1:]]))
