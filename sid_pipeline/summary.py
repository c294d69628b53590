"""The summary at the end of `sid run`: what was made, how good it is, where to look, what to try next."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from sid_pipeline.keys import MAX_TOKENS
from sid_pipeline.publication.live import read_pointer
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.trace import assigned_sids, product_titles

EXAMPLES = 5
REASONS = "reasons: asset rejected_products in the UI"


def summarise(warehouse: Warehouse, release: str, seconds: float, standing: Path) -> str:
    """A page of text; paths are relative to where the user stands."""
    flavours = list(warehouse.settings.active_flavours)
    snapshot = warehouse.receipts.need(f"{flavours[0]}/semantic_ids", release).facts["as_of_snapshot"]
    lines = ["", f"Semantic IDs of {snapshot}, release {release}, in {seconds:.0f} s", ""]
    lines += _figures(warehouse, flavours, release)
    sids = {flavour: assigned_sids(warehouse, flavour, release) for flavour in flavours}
    lines += ["", *_examples(warehouse, sids, snapshot), ""]
    lines += _places(warehouse, flavours, release, standing)
    some = sids[flavours[0]]["product_id"]
    lines += ["", _next(some[0].as_py() if len(some) else "ID")]
    return "\n".join(lines)


def _figures(warehouse: Warehouse, flavours: list[str], release: str) -> list[str]:
    rows: list[list[str]] = [["", *flavours]]
    headlines = []
    for flavour in flavours:
        receipt = warehouse.receipts.get(f"{flavour}/report", release)
        headlines.append(receipt.facts["headline"] if receipt else {})

    tokens = range(1, MAX_TOKENS + 1)

    def levels(name: str) -> list[str]:
        cells = []
        for headline in headlines:
            values = [headline[key] for level in tokens if (key := f"{name}_l{level}") in headline]
            cells.append(" ".join("  -" if v is None else f"{100 * v:3.0f}" for v in values))
        return cells

    def figure(name: str, form: str) -> list[str]:
        return ["-" if h.get(name) is None else form.format(h[name]) for h in headlines]

    rows.append(["products with a SID", *figure("items", "{:,.0f}")])
    rows.append(["distinct SIDs", *figure("distinct_sids", "{:,.0f}")])
    rows.append(["distinct SIDs / products", *figure("distinct_share", "{:.3f}")])
    rows.append(["codes in use, % of each level", *levels("usage")])
    rows.append(["near-duplicates that share L1, L1..L2, ..., %", *levels("share90")])
    rows.append(["  pairs with cosine >= .9 looked at", *figure("pairs90", "{:,.0f}")])
    rows.append(["reconstruction error / variance", *figure("rel_mse", "{:.3f}")])
    return table(rows)


def _examples(warehouse: Warehouse, sids: dict[str, pa.Table], snapshot: str) -> list[str]:
    """Products in a row by the first flavour's SIDs, with both flavours' SIDs side by side."""
    first = next(iter(sids.values()))
    ordered = first.sort_by([("sid", "ascending"), ("product_id", "ascending")])
    products = ordered["product_id"].slice(len(ordered) // 3, EXAMPLES).to_pylist()
    if not products:
        return []
    shown = [_sids_of(products, table) for table in sids.values()]
    titles = product_titles(warehouse, snapshot, products)
    rows = [["product", "title", *sids]]
    for product in products:
        rows.append([product, titles.get(product, "")[:48], *[found.get(product, "-") for found in shown]])
    return table(rows)


def _sids_of(products: list[str], sids: pa.Table) -> dict[str, str]:
    found = sids.filter(pc.is_in(sids["product_id"], value_set=pa.array(products)))
    return dict(zip(found["product_id"].to_pylist(), found["sid"].to_pylist(), strict=True))


def _places(warehouse: Warehouse, flavours: list[str], release: str, standing: Path) -> list[str]:
    lines = []
    for day in warehouse.receipts.partitions("rejected_products"):
        every, taken = (warehouse.receipts.get(asset, day) for asset in ("rejected_products", "products"))
        if every is not None and taken is not None:
            products = taken.metadata.get("rejected rows", 0)
            offers = every.metadata.get("dagster/row_count", 0) - products
            lines.append(f"rejected rows {day}: {products} of products, {offers} of offers ({REASONS})")
    for flavour in flavours:
        page = warehouse.reports(flavour, release) / "report.html"
        pointer = read_pointer(warehouse.published, flavour)
        lines.append(f"report {flavour}: {_short(page, standing)}")
        if pointer:
            lines.append(f"live {flavour}: {pointer['release']} as of {pointer['as_of_snapshot']}")
    explorer = warehouse.explorer(release) / "index.html"
    if explorer.is_file():
        lines.append(f"explorer: {_short(explorer, standing)} (sid explorer opens it)")
    return lines


def _next(product: str) -> str:
    file = os.environ.get("SID_SETTINGS")
    sid = f".venv/bin/sid --settings {file}" if file else ".venv/bin/sid"
    return f"next: {sid} show {product}    one product through every stage (make ui: the graph)"


def _short(path: Path, standing: Path) -> str:
    return str(path.relative_to(standing) if path.is_relative_to(standing) else path)


def table(rows: list[list[str]]) -> list[str]:
    """Columns aligned by blanks."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
