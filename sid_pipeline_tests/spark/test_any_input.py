"""Parquet and Delta of any types and values through the nightly reader: each row is accepted or rejected, none twice.

`SID_EXAMPLES=20000 pytest FILE` gives each file that many rows.
"""

from __future__ import annotations

import os
import random
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from sid_pipeline.ingest.errors import InputError
from sid_pipeline.ingest.products import read_products
from sid_pipeline.settings import SourceSettings

ROWS = int(os.environ.get("SID_EXAMPLES", "0")) or 300
WORDS = [
    "milk", "Crème", "", " ", "\t", "a" * 3000, "x\0y", "\x1b[31m", "e\u0301", "\u200b", "'; --", '"', ">", "A > B > C",
    "\u200b\xa0" * 5000, "£ " * 3000, "1" + ",234" * 3000, "missing", "NaN", "1e400", "-1", "4,99", "\u202e", "𝄞", "\n",
    "null",
]  # fmt: skip
TYPES: dict[str, tuple[pa.DataType, Any]] = {
    "text": (pa.string(), lambda draw: " ".join(draw.choice(WORDS) for _ in range(draw.randrange(3)))),
    "large text": (pa.large_string(), lambda draw: draw.choice(WORDS)),
    "bytes": (pa.binary(), lambda draw: draw.choice([b"ok", b"\xff\xfe", b"", "é".encode()])),
    "integer": (pa.int64(), lambda draw: draw.choice([0, -1, 7, 2**53 + 1, 2**63 - 1])),
    "float": (pa.float64(), lambda draw: draw.choice([0.0, -0.0, 4.99, float("nan"), float("inf"), 1e300, 2.0**60])),
    "decimal": (pa.decimal128(12, 2), lambda draw: Decimal(draw.randrange(10**6)) / 100),
    "boolean": (pa.bool_(), lambda draw: draw.random() < 0.5),
    "day": (pa.date32(), lambda draw: date(2026, 1, 1 + draw.randrange(28))),
    "time": (pa.timestamp("us", "UTC"), lambda draw: datetime(2026, 1, 1 + draw.randrange(28))),
    "list": (pa.list_(pa.string()), lambda draw: [draw.choice(["A", "B", None]) for _ in range(draw.randrange(3))]),
    "nothing": (pa.null(), lambda draw: None),
}


def column(kind: str, rows: int, draw: random.Random) -> pa.Array:
    typed, make = TYPES[kind]
    return pa.array([None if draw.random() < 0.1 else make(draw) for _ in range(rows)], typed)


def table(seed: int, kinds: dict[str, str], rows: int) -> tuple[pa.Table, set[str]]:
    """A table of any values, and the ids of the rows in it that are beyond doubt good."""
    draw = random.Random(seed)
    ids: list[str | None] = []
    titles: list[str | None] = []
    good = set()
    for number in range(rows):
        if draw.random() < 0.6:
            ids.append(f"P{seed}-{number}")
            titles.append(f"Good product {number} {draw.choice(['Crème', 'milk', chr(34), '𝄞'])}")
            good.add(ids[-1])
        else:
            ids.append(draw.choice([None, "", f"Q{seed}-{number}", f"P{seed}-{number - 1}", "a\tb"]))
            titles.append(draw.choice([None, *WORDS]))
    columns = {name: column(kind, rows, draw) for name, kind in kinds.items()}
    for values in columns.values():
        if values.type == pa.binary():  # bytes that are no text cost their row
            good -= {key for key, value in zip(ids, values.to_pylist(), strict=True) if value == b"\xff\xfe"}
    return pa.table({"product_id": pa.array(ids), "title": pa.array(titles), **columns}), good


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("store", ["parquet", "delta"])
def test_any_typed_rows_are_accepted_or_rejected(spark, tmp_path, store, seed):
    draw = random.Random(seed)
    usable = ["text", "large text", "bytes", "integer", "float", "decimal", "boolean", "day", "time"]
    kinds = {name: draw.choice(usable) for name in ("brand", "size", "description", "price")}
    kinds["category"] = ("list", "text")[seed % 2]
    rows, good = table(seed, kinds, ROWS)
    location = str(tmp_path / f"any.{store}")
    if store == "parquet":
        pq.write_table(rows, location, row_group_size=97)
    else:
        write_deltalake(location, rows)
    source = SourceSettings(products=location)
    read = read_products(spark, source, location, tmp_path / "spool")
    accepted = [row["product_id"] for row in read.accepted.select("product_id").collect()]
    rejected = read.rejected.select("source_file", "source_row", "rule", "message").collect()
    assert read.source_rows == ROWS == len(accepted) + len(rejected)
    assert len(set(accepted)) == len(accepted)
    assert good <= set(accepted), sorted(good - set(accepted))[:5]
    assert all(len(row["message"]) > 20 for row in rejected)
    assert len({tuple(row)[:2] for row in rejected}) == len(rejected)
    read.ignored.collect()


@pytest.mark.parametrize(
    "column", ["product_id", "title"]
)  # fmt: skip
def test_a_nested_column_where_text_is_needed_is_one_sentence(spark, tmp_path, column):
    rows = pa.table({"product_id": ["1"], "title": ["t"]}).drop_columns([column])
    rows = rows.append_column(column, pa.array([{"a": 1}]))
    pq.write_table(rows, tmp_path / "nested.parquet")
    location = str(tmp_path / "nested.parquet")
    with pytest.raises(InputError, match="Map a column of text"):
        read_products(spark, SourceSettings(products=location), location, tmp_path / "spool").accepted.collect()


def test_damaged_parquet_is_one_sentence(spark, tmp_path):
    """Cut, spoilt and foreign bytes: of many, each is refused with a sentence, or read."""
    rows, _ = table(7, {"brand": "text"}, 50)
    pq.write_table(rows, tmp_path / "whole.parquet")
    whole = (tmp_path / "whole.parquet").read_bytes()
    draw = random.Random(7)
    refused = 0
    for _ in range(12):
        spoilt = bytearray(whole)
        for _ in range(draw.randrange(1, 4)):
            spoilt[draw.randrange(len(spoilt) - 400, len(spoilt))] = draw.randrange(256)
        data = bytes(spoilt) if draw.random() < 0.7 else whole[: draw.randrange(len(whole))]
        location = str(tmp_path / "spoilt.parquet")
        (tmp_path / "spoilt.parquet").write_bytes(data)
        try:
            read_products(spark, SourceSettings(products=location), location, tmp_path / "spool")
        except InputError as error:
            assert len(str(error)) > 20
            refused += 1
    assert refused >= 6
