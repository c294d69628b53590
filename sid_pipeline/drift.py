"""The figures of the nights: taken from the receipts, kept in a table, and judged against earlier nights.

Used by the check of `assets/drift.py` and by `sid status`. Reads and writes without Spark. What does not belong here:
what counts as drift (`evaluation/drift.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from sid_pipeline.evaluation.drift import Finding, Night, judge
from sid_pipeline.keys import MAX_TOKENS
from sid_pipeline.receipts import Receipt
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.schemas import CLEANED_ATTRIBUTES, NIGHTLY_FIGURES, OFFERS, PRODUCTS

# The cost of fewer texts than this is chance.
LEAST_CLEANED = 20


def figures_of(warehouse: Warehouse, flavour: str, release: str, headline: Mapping[str, float]) -> Night:
    """The figures of the night that a release's SIDs stand on, as far as the receipts have them.

    Args:
        headline: of the night's report.

    Raises:
        MissingInput: the SIDs were not made.
    """
    assigned = warehouse.receipts.need(f"{flavour}/semantic_ids", release)
    day = assigned.facts["as_of_snapshot"]
    told = assigned.metadata
    active = max(told["dagster/row_count"], 1)
    figures: dict[str, float] = {
        "products": told["dagster/row_count"],
        "out_of_distribution": told["out of distribution"] / active,
        "without_a_sid": told["without a SID"] / active,
        "mean_distance": told["mean distance"],
        **{
            f"usage_l{level}": told[f"usage L{level}"]
            for level in range(1, MAX_TOKENS + 1)
            if f"usage L{level}" in told
        },
    }
    if headline.get("collision_rate") is not None:
        figures["collision_rate"] = headline["collision_rate"]
    for figure, table in (("rejected", PRODUCTS), ("rejected_offers", OFFERS)):
        rows = warehouse.receipts.get(table.name, day)
        if rows is not None and "rejected share" in rows.metadata:
            figures[figure] = rows.metadata["rejected share"]
    embedders = [warehouse.settings.embedders[name] for name in warehouse.settings.flavours[flavour].embedders]
    if any(embedder.text == "cleaned" for embedder in embedders):
        figures |= _of_cleaning(warehouse.receipts.get(CLEANED_ATTRIBUTES.name, day))
    return Night(day, {name: float(value) for name, value in figures.items()})


def _of_cleaning(cleaned: Receipt | None) -> dict[str, float]:
    if cleaned is None:
        return {}
    figures = {"fallback": cleaned.facts.get("fallback", 0) / max(cleaned.metadata.get("dagster/row_count", 0), 1)}
    cost, texts = cleaned.metadata.get("cost of this run, USD"), cleaned.facts.get("cleaned_now", 0)
    if cost and texts >= LEAST_CLEANED:
        figures["cost_per_text"] = cost / texts
    return figures


def new_figures(warehouse: Warehouse, flavour: str, release: str, night: Night) -> dict[str, float]:
    """Those of a night's figures that are not recorded yet, or with another value."""
    known = {n.snapshot: n.figures for n in nights(warehouse, flavour, release)}.get(night.snapshot, {})
    return {name: value for name, value in night.figures.items() if known.get(name) != value}


def record(warehouse: Warehouse, flavour: str, release: str, night: Night) -> None:
    """Keep what is new of a night's figures."""
    now = datetime.now(timezone.utc)
    rows = [
        {"flavour": flavour, "release": release, "snapshot": night.snapshot, "figure": name, "value": value, "at": now}
        for name, value in new_figures(warehouse, flavour, release, night).items()
    ]
    if rows:
        warehouse.tables.append_rows(NIGHTLY_FIGURES, rows)


def nights(warehouse: Warehouse, flavour: str, release: str) -> list[Night]:
    """The recorded nights of a flavour and release, oldest first."""
    import pyarrow.dataset as ds

    mine = (ds.field("flavour") == flavour) & (ds.field("release") == release)
    rows = warehouse.tables.arrow(NIGHTLY_FIGURES, ["snapshot", "figure", "value", "at"], filters=mine).to_pylist()
    found: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: row["at"]):
        found.setdefault(row["snapshot"], {})[row["figure"]] = row["value"]
    return [Night(day, found[day]) for day in sorted(found)]


def drifted(
    warehouse: Warehouse, flavour: str, release: str, before: str | None = None, tonight: Night | None = None
) -> list[Finding]:
    """What has drifted on the newest recorded night of a release, or on the last one before a day.

    Args:
        tonight: a night that counts as recorded already.
    """
    chosen: Mapping[str, Any] = {
        "window": warehouse.settings.drift.window,
        "least": warehouse.settings.drift.least_nights,
        "deviations": warehouse.settings.drift.deviations,
    }
    known = {night.snapshot: night for night in nights(warehouse, flavour, release)}
    if tonight is not None:
        earlier = known.get(tonight.snapshot, tonight)
        known[tonight.snapshot] = Night(tonight.snapshot, {**earlier.figures, **tonight.figures})
    ordered = [known[day] for day in sorted(known)]
    return judge([night for night in ordered if before is None or night.snapshot < before], **chosen)
