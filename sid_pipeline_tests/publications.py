"""Small publications for tests, made without Spark: rows in, a `Source` out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sid_pipeline.publication.card import Facts
from sid_pipeline.publication.delta import PRODUCTS
from sid_pipeline.publication.folder import PRODUCT_SIDS, UNASSIGNED, WITHDRAWN
from sid_pipeline.publication.publish import INDEX_SCHEMA, Source

LEVELS, SIZE = 4, 16
# product_id -> SID, or (None, reason), or ("withdrawn", day, last SID)
Rows = Mapping[str, Any]
DAY1: Rows = {"p1": "1_2_0_0", "p2": "12_2_3_4", "p3": "1_2_3_4", "p4": (None, "no text")}
DAY2: Rows = {"p1": "1_2_0_0", "p2": ("withdrawn", "2026-01-06", "12_2_3_4"), "p3": "1_2_3_5", "p4": "0_0_0_0"}
OFFERS = [("shop", "p1", 1.0), ("shop", "p3", 9.0), ("other", "p3", 2.0)]
QUALITY = {"usage_l1": 0.9, "collision_rate": 0.1, "share90_l1": 0.95, "pairs90": 500.0}
PASSED = {"name": "codes_in_range", "passed": True, "sentence": "all are."}


def products(rows: Rows) -> pa.Table:
    """Rows as `stage` writes them, sorted."""
    table = []
    for product_id in sorted(rows, key=str.encode):
        row: dict[str, Any] = {"product_id": product_id, "change": "new", "reason": None, "withdrawn_on": None}
        match rows[product_id]:
            case ("withdrawn", day, sid):
                row |= {"sid": sid, "withdrawn_on": day, "change": "withdrawn"}
            case (None, reason):
                row |= {"sid": None, "reason": reason}
            case sid:
                row |= {"sid": sid}
        table.append(row)
    return pa.Table.from_pylist(table, PRODUCTS)


def source(
    tmp_path: Path,
    rows: Rows = DAY1,
    *,
    release: str = "r1",
    snapshot: str = "2026-01-05",
    offers: Sequence[tuple[str, str, float]] | None = OFFERS,
    parts: int = 1,
    further: bool = False,
    quality: Mapping[str, float] = QUALITY,
    checks: Sequence[Mapping[str, Any]] = (PASSED,),
    **pins: Any,
) -> Source:
    """What to publish; `parts` is in how many files it is staged."""

    def stage(folder: Path) -> None:
        table = products(rows)
        sid = dict(zip(table["product_id"].to_pylist(), table["sid"].to_pylist(), strict=True))
        _write_parts(table, folder / "products", parts)
        if offers is not None:
            index = [(retailer, sid[p], p, popularity) for retailer, p, popularity in offers if sid.get(p)]
            index.sort(key=lambda row: (row[0], row[1], -row[3], row[2]))
            columns = list(zip(*index, strict=True)) if index else [[]] * 4
            named = dict(zip(INDEX_SCHEMA.names, columns, strict=True))
            _write_parts(pa.table(named, schema=INDEX_SCHEMA), folder / "offers", parts)

    codebook = tmp_path / "codebook"
    codebook.mkdir(exist_ok=True)
    (codebook / "manifest.json").write_text("{}")
    return Source(
        flavour="esci",
        release=release,
        snapshot=snapshot,
        pins={"codebook_id": f"codebook-of-{release}", "embedders": {"esci": "e1"}, "day": snapshot, **pins},
        stage=stage,
        expected=_expected(products(rows)),
        codebook=codebook,
        codewords=np.arange(LEVELS * SIZE * 8, dtype=np.float32).reshape(LEVELS, SIZE, 8),
        further=further,
        facts=Facts({"codebook_id": f"codebook-of-{release}"}, quality, checks),
    )


def _expected(table: pa.Table) -> dict[str, int]:
    active = table.filter(pc.is_null(table["withdrawn_on"]))
    assigned = pc.sum(pc.is_valid(active["sid"])).as_py() or 0
    return {
        PRODUCT_SIDS: assigned,
        UNASSIGNED: len(active) - assigned,
        WITHDRAWN: len(table) - len(active),
    }


def _write_parts(table: pa.Table, folder: Path, parts: int) -> None:
    folder.mkdir(parents=True)
    step = max(1, -(-len(table) // parts))
    for number, start in enumerate(range(0, max(len(table), 1), step)):
        pq.write_table(table.slice(start, step), folder / f"part-{number:05d}.parquet")
