"""Two releases side by side, as text: how good each is, and what a reader of one would notice of the other."""

from __future__ import annotations

import numpy as np

from sid_pipeline.publication.live import read_pointer
from sid_pipeline.receipts import MissingInput
from sid_pipeline.releases import ReleaseError, need_release
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.schemas import SEMANTIC_IDS
from sid_pipeline.summary import table


def compare_releases(warehouse: Warehouse, release: str, other: str | None = None) -> str:
    """A table a flavour: headline figures of both reports, and the products that keep their codes.

    Args:
        release: the release looked at.
        other: what it is compared with; None takes each flavour's live release.

    Raises:
        MissingInput: a release is not in the ledger.
        ReleaseError: nothing can be compared.
    """
    need_release(warehouse.tables, release)
    if other is not None:
        need_release(warehouse.tables, other)
    parts = []
    for flavour in warehouse.settings.active_flavours:
        pointer = read_pointer(warehouse.published, flavour)
        beside = other or (pointer["release"] if pointer else None)
        if beside is not None and beside != release:
            parts.append(_compare(warehouse, flavour, release, beside))
    if not parts:
        raise ReleaseError(f"there is no other release to compare {release!r} with: name one (--with)")
    return "\n\n".join(parts)


def _compare(warehouse: Warehouse, flavour: str, release: str, other: str) -> str:
    headlines = []
    for name in (other, release):
        report = warehouse.receipts.get(f"{flavour}/report", name)
        headlines.append(report.facts["headline"] if report else {})
    rows = [[flavour, other, release]]
    for figure in dict.fromkeys((*headlines[0], *headlines[1])):
        rows.append([figure, *(f"{h[figure]:,.4g}" if figure in h else "-" for h in headlines)])
    return "\n".join([*table(rows), _kept(warehouse, flavour, release, other)])


def _kept(warehouse: Warehouse, flavour: str, release: str, other: str) -> str:
    """A line on the products that both have: the share that keeps its prefix, level by level."""
    try:
        old, new = (_codes(warehouse, flavour, name) for name in (other, release))
    except MissingInput as error:
        return str(error)
    common = sorted(old.keys() & new.keys())
    if not common:
        return "no product has a SID in both"
    same = np.array([old[key] for key in common]) == np.array([new[key] for key in common])
    kept = np.logical_and.accumulate(same, axis=1).mean(axis=0)
    levels = ", ".join(f"L1..L{level} {share:.1%}" for level, share in enumerate(kept.tolist(), 1))
    return f"of {len(common):,} products in both, with the same codes: {levels}"


def _codes(warehouse: Warehouse, flavour: str, release: str) -> dict[str, list[int]]:
    rows = warehouse.tables.arrow(SEMANTIC_IDS, ["product_id", "codes"], flavour=flavour, release=release).to_pylist()
    codes = {row["product_id"]: row["codes"] for row in rows if row["codes"]}
    if not codes:
        raise MissingInput(f"{flavour} has no SIDs in release {release!r}: sid run --release {release}")
    return codes
