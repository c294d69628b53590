"""Making a release's newest publication live: the automatic advance and the switch that a person asks for.

Used by the `live` assets and by `sid promote`. The log is written before the pointer, so that nothing ever goes
live unlogged; a crash between the two leaves a row that the rerun does not repeat.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from sid_pipeline.publication.live import (
    ADVANCE,
    FIRST,
    OTHER_RELEASE,
    SAME,
    SWITCH,
    read_pointer,
    transition,
    write_pointer,
)
from sid_pipeline.publication.publish import verify
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.schemas import PROMOTIONS


@dataclass(frozen=True)
class Promotion:
    """What is live now, and a sentence on what happened."""

    live: dict[str, Any]
    sentence: str


def go_live(warehouse: Warehouse, flavour: str, release: str, *, by: str, reason: str, switch: bool) -> Promotion:
    """Make the newest publication of a release live.

    Args:
        warehouse: the state.
        flavour: the flavour.
        release: the release.
        by: who asks.
        reason: why.
        switch: whether another release than the live one may become live.

    Raises:
        MissingInput: the release has no publication.
        PublicationError: the publication is damaged.
    """
    with warehouse.receipts.lock(f"{flavour}.pointer"):
        return _go_live(warehouse, flavour, release, by, reason, switch)


def _go_live(warehouse: Warehouse, flavour: str, release: str, by: str, reason: str, switch: bool) -> Promotion:
    published = warehouse.receipts.need(f"{flavour}/publication", release)
    folder = warehouse.state / published.facts["folder"]
    verify(folder)
    live = read_pointer(warehouse.state, flavour)
    codebook_id = published.facts["codebook_id"]
    kind = transition(live, release, published.facts["folder"], codebook_id)
    if live is not None and kind == SAME:
        return Promotion(live, f"{release} as of {live['as_of_snapshot']} was live already")
    if live is not None and kind == OTHER_RELEASE and not switch:
        return Promotion(
            live,
            f"{live['release']} stays live; {release} is published beside it and waits for "
            f"`sid promote {release} --flavour {flavour} --by NAME --reason WHY`",
        )
    kind = SWITCH if kind == OTHER_RELEASE else kind
    _log(warehouse, flavour, release, published.facts["folder"], kind, live, by, reason)
    snapshot = published.facts["as_of_snapshot"]
    pointer = write_pointer(warehouse.state, flavour, release, snapshot, folder, codebook_id)
    verbs = {FIRST: "is the first to go live", ADVANCE: "advanced", SWITCH: "was switched to"}
    return Promotion(pointer, f"{flavour}: {release} {verbs[kind]}, as of {snapshot}")


def _log(
    warehouse: Warehouse,
    flavour: str,
    release: str,
    publication: str,
    kind: str,
    live: dict[str, Any] | None,
    by: str,
    reason: str,
) -> None:
    previous = live["publication"] if live else ""
    logged = warehouse.tables.arrow(PROMOTIONS, columns=["flavour", "publication", "previous", "at"]).to_pylist()
    mine = sorted((row for row in logged if row["flavour"] == flavour), key=lambda row: row["at"])
    if mine and (mine[-1]["publication"], mine[-1]["previous"]) == (publication, previous):
        return
    row = {
        "flavour": flavour,
        "release": release,
        "publication": publication,
        "kind": kind,
        "previous": previous,
        "by": by,
        "reason": reason,
        "at": datetime.now(timezone.utc),
    }
    frame = warehouse.spark.createDataFrame([row], PROMOTIONS.ddl())
    warehouse.tables.append(PROMOTIONS, frame)
