"""Sizes of 300 real titles against what a person read in them.

`sizes_by_hand.csv` holds data set, row id and expected size; the titles are read in place. What counts: the content of
one package by mass or volume, else its number of pieces, else the one length it is sold by (a cable, a pan, a screen).
A bundle of different products, a range, width x height, a wall's thickness and a calibre are no size.
"""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from sid_pipeline.cleaning.markup import strip_markup
from sid_pipeline.cleaning.model import Size
from sid_pipeline.cleaning.sizes import read_size

SHARED = Path(os.environ.get("SID_SHARED", Path(__file__).resolve().parents[4] / "shared")) / "data"
COLUMNS = {
    "instacart": ("product_id", "product_name"),
    "bigbasket": ("index", "product"),
    "amazon_toys": ("uniq_id", "product_name"),
    "chorus_icecat": ("product_id", "title"),
}
BAR = 0.97


def rows() -> list[tuple[str, Size | None]]:
    """Titles with the size that a person read."""
    with Path(__file__).with_name("sizes_by_hand.csv").open(encoding="utf-8") as file:
        expected = list(csv.DictReader(file))
    titles: dict[tuple[str, str], str] = {}
    for data_set, (key, title) in COLUMNS.items():
        path = SHARED / data_set / "products.parquet"
        if not path.exists():
            pytest.skip(f"{path} is absent")
        wanted = {row["row_id"] for row in expected if row["data_set"] == data_set}
        for record in pq.read_table(path, columns=[key, title]).to_pylist():
            if str(record[key]) in wanted:
                titles[data_set, str(record[key])] = record[title]
    return [
        (
            titles[row["data_set"], row["row_id"]],
            Size(amount=float(row["amount"]), unit=row["unit"], count=int(row["count"])) if row["amount"] else None,
        )
        for row in expected
    ]


def same(read: Size, expected: Size | None) -> bool:
    return (
        expected is not None
        and (read.unit, read.count) == (expected.unit, expected.count)
        and abs(read.amount - expected.amount) <= 0.01 * expected.amount
    )


def test_sizes_of_real_titles():
    read = [(title, read_size(strip_markup(title).replace("\n", ", ")).size, expected) for title, expected in rows()]
    assert len(read) == 300
    stated = [(title, size, expected) for title, size, expected in read if size is not None]
    wrong = [f"{title}: {size}, not {expected}" for title, size, expected in stated if not same(size, expected)]
    missed = [f"{title}: {expected}" for title, size, expected in read if size is None and expected is not None]
    precision = 1 - len(wrong) / len(stated)
    recall = sum(same(size, expected) for _, size, expected in stated) / sum(e is not None for *_, e in read)
    print(f"precision {precision:.3f} of {len(stated)} sizes stated, recall {recall:.3f}")
    print("\n".join(["wrong:", *wrong, "missed:", *missed]))
    assert precision >= BAR, "\n".join(wrong)
