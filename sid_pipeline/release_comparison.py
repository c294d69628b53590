"""Two releases side by side, as text: how good each is, and what a reader of one would notice of the other."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from sid_pipeline.evaluation.codebook_diff import diff
from sid_pipeline.publication.live import read_pointer
from sid_pipeline.receipts import MissingInput
from sid_pipeline.releases import ReleaseError, need_release
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.schemas import SEMANTIC_IDS
from sid_pipeline.sids import lengths
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
        old, new = (_base_sids(warehouse, flavour, name) for name in (other, release))
    except MissingInput as error:
        return str(error)
    found = diff(old, new)
    if not found["common"]:
        return "no product has a SID in both"
    if not found["comparable"]:
        return f"codes of {lengths(old['sid'])[0]} and of {lengths(new['sid'])[0]} levels: not comparable"
    shares = [row["kept_prefix"] for row in found["levels"]]
    levels = ", ".join(f"L1{f'..L{level}' if level > 1 else ''} {share:.1%}" for level, share in enumerate(shares, 1))
    return f"of {found['common']:,} products in both, with the same codes: {levels}"


def _base_sids(warehouse: Warehouse, flavour: str, release: str) -> pa.Table:
    """product_id and base SID, withdrawn products among them."""
    coded = pc.field("base_sid").is_valid()
    rows = warehouse.tables.arrow(SEMANTIC_IDS, ["product_id", "base_sid"], coded, flavour=flavour, release=release)
    if not len(rows):
        raise MissingInput(f"{flavour} has no SIDs in release {release!r}: sid run --release {release}")
    return rows.rename_columns(["product_id", "sid"])
