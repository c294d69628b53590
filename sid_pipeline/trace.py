"""Following a product through every stage, and listing what lies under a prefix; reads tables, starts no Spark."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sid_pipeline.cleanings import cleaning_of
from sid_pipeline.receipts import MissingInput
from sid_pipeline.releases import find_release
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.schemas import (
    EMBEDDED_PRODUCTS,
    PREFIX_NAMES,
    PRODUCTS,
    REJECTED_PRODUCTS,
    SEMANTIC_IDS,
)


@dataclass(frozen=True)
class FlavourTrace:
    """A product in one flavour: its SID, the names of its prefixes, the embedded text, and who shares the prefix.

    Attributes:
        sid: what readers get; None where they get nothing, for a `reason`.
        note: what the collision policy made of the base SID, in a few words; None where it stayed as it was.
    """

    flavour: str
    sid: str | None
    reason: str | None
    note: str | None
    names: list[tuple[str, str]]
    text: str | None
    shared_prefix: str | None
    neighbours: list[tuple[str, str, str]]


@dataclass(frozen=True)
class ProductTrace:
    """A product through the stages of a snapshot."""

    product_id: str
    snapshot: str
    product: dict[str, Any] | None
    rejections: list[dict[str, Any]]
    cleaned: dict[str, Any] | None
    flavours: list[FlavourTrace] = field(default_factory=list)


def snapshot_of(warehouse: Warehouse, release: str) -> str:
    """The snapshot that a release's SIDs stand on, else the newest one with products.

    Raises:
        MissingInput: there is none.
    """
    for flavour in warehouse.settings.active_flavours:
        assigned = warehouse.receipts.get(f"{flavour}/semantic_ids", release)
        if assigned is not None:
            return assigned.facts["as_of_snapshot"]
    days = warehouse.receipts.partitions(PRODUCTS.name)
    if not days:
        raise MissingInput("no snapshot was materialised yet: run `sid run` first")
    return days[-1]


def trace_product(
    warehouse: Warehouse, product_id: str, release: str, snapshot: str, neighbours: int = 8
) -> ProductTrace:
    """Follow a product through a snapshot and a release."""
    tables = warehouse.tables
    mine = pc.field("product_id") == product_id
    products = tables.arrow(PRODUCTS, filters=mine, snapshot=snapshot).to_pylist()
    product = products[0] if products else None
    rejections = tables.arrow(REJECTED_PRODUCTS, filters=mine, snapshot=snapshot).to_pylist()
    cleaned = cleaning_of(warehouse, snapshot, product["text_hash"]) if product else None
    flavours = [
        _trace_flavour(warehouse, name, product_id, release, snapshot, neighbours)
        for name in warehouse.settings.active_flavours
    ]
    return ProductTrace(product_id, snapshot, product, rejections, cleaned, flavours)


def _trace_flavour(
    warehouse: Warehouse, flavour: str, product_id: str, release: str, snapshot: str, limit: int
) -> FlavourTrace:
    tables = warehouse.tables
    columns = ["base_sid", "published_sid", "reason", "collision_policy", "withdrawn_on"]
    mine = pc.field("product_id") == product_id
    rows = tables.arrow(SEMANTIC_IDS, columns=columns, filters=mine, flavour=flavour, release=release).to_pylist()
    pinned, embedder = find_release(tables, release), next(iter(warehouse.settings.flavours[flavour].embedders))
    identity = pinned.embedder_ids.get(embedder, "") if pinned else ""
    texts = tables.arrow(
        EMBEDDED_PRODUCTS, columns=["text"], filters=mine, embedder_id=identity, snapshot=snapshot
    ).to_pylist()
    text = texts[0]["text"] if texts else None
    row = rows[0] if rows else None
    base = row["base_sid"] if row else None
    sid = row["published_sid"] if row and base else None  # a place that is kept for it is no SID, see `collisions`
    note = f"base SID {base}, collision policy {row['collision_policy']}" if row and base != sid else None
    if row is None or sid is None or row["withdrawn_on"]:
        reason = row["reason"] if row else f"not assigned in release {release!r}"
        if row and row["withdrawn_on"]:
            reason = f"withdrawn on {row['withdrawn_on']}; was {sid or 'without a SID'}"
        return FlavourTrace(flavour, None, reason, note, [], text, None, [])
    prefixes = sid_prefixes(sid)
    names = prefix_names(warehouse, flavour, release, prefixes)
    shared, under = prefixes[0], []
    # The deepest prefix that the product shares with anybody.
    for prefix in reversed(prefixes):
        under = [row for row in products_under(warehouse, flavour, release, snapshot, prefix) if row[0] != product_id]
        if under:
            shared = prefix
            break
    return FlavourTrace(
        flavour,
        sid,
        None,
        note,
        [(prefix, names.get(prefix, "")) for prefix in prefixes],
        text,
        shared,
        under[:limit],
    )


def sid_prefixes(sid: str) -> list[str]:
    """All prefixes of a SID, coarse to fine: '3_1_4' gives ['3', '3_1', '3_1_4']."""
    steps = sid.split("_")
    return ["_".join(steps[: i + 1]) for i in range(len(steps))]


def products_under(
    warehouse: Warehouse, flavour: str, release: str, snapshot: str, prefix: str
) -> list[tuple[str, str, str]]:
    """(product_id, SID, title) of the products that readers find under a prefix, by SID."""
    sid = pc.field("published_sid")
    found = _published(warehouse, flavour, release, (sid == prefix) | pc.starts_with(sid, f"{prefix}_")).to_pylist()
    titles = product_titles(warehouse, snapshot, [row["product_id"] for row in found])
    listed = [(row["product_id"], row["sid"], titles.get(row["product_id"], "")) for row in found]
    return sorted(listed, key=lambda item: ([int(code) for code in item[1].split("_")], item[0]))


def assigned_sids(warehouse: Warehouse, flavour: str, release: str) -> pa.Table:
    """product_id and sid, the one that readers get, of every product of a release that has one."""
    return _published(warehouse, flavour, release, pc.field("published_sid").is_valid())


def _published(warehouse: Warehouse, flavour: str, release: str, which: pc.Expression) -> pa.Table:
    """product_id and published SID of the rows that `schemas.ACTIVE` and `schemas.ASSIGNED` say, of these."""
    rows = warehouse.tables.arrow(
        SEMANTIC_IDS,
        columns=["product_id", "published_sid"],
        filters=which & pc.field("base_sid").is_valid() & pc.field("withdrawn_on").is_null(),
        flavour=flavour,
        release=release,
    )
    return rows.rename_columns(["product_id", "sid"])


def product_titles(warehouse: Warehouse, snapshot: str, product_ids: list[str]) -> dict[str, str]:
    """Titles by product id."""
    found = warehouse.tables.arrow(
        PRODUCTS,
        columns=["product_id", "title"],
        filters=pc.field("product_id").isin(pa.array(product_ids, pa.string())),
        snapshot=snapshot,
    )
    return dict(zip(found["product_id"].to_pylist(), found["title"].to_pylist(), strict=True))


def prefix_names(warehouse: Warehouse, flavour: str, release: str, prefixes: list[str]) -> dict[str, str]:
    """Readable names of prefixes."""
    found = warehouse.tables.arrow(
        PREFIX_NAMES,
        columns=["prefix", "name"],
        filters=pc.field("prefix").isin(pa.array(prefixes, pa.string())),
        flavour=flavour,
        release=release,
    )
    return dict(zip(found["prefix"].to_pylist(), found["name"].to_pylist(), strict=True))
