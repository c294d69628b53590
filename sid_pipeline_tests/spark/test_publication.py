"""The Spark half of publishing: the same bytes whatever the partitioning, and what the reader makes of it."""

import dataclasses
import random

import pytest

from sid_pipeline.publication.publish import publish
from sid_pipeline.publication.stage import stage
from sid_pipeline.publication.store import open_store
from sid_pipeline.reader import open_release
from sid_pipeline_tests.publications import source

SIDS = "product_id string, base_sid string, published_sid string, change string, reason string, withdrawn_on string"
OFFERS = "product_id string, retailer_id string, available boolean, popularity double"


@pytest.fixture(scope="module")
def rows():
    rng = random.Random(0)
    ids = [f"{rng.choice('aAé9')}{i}" for i in range(600)]
    given = [None if i % 17 == 0 else f"{i % 16}_{i % 3}_{i % 5}_{i % 7}" for i in range(len(ids))]
    sids = [
        (p, sid, sid, "new", None if sid else "no text", "2026-01-06" if i % 13 == 0 else None)
        for i, (p, sid) in enumerate(zip(ids, given, strict=True))
    ]
    sids.append(("kept", None, "1_2_3_4", "text_changed", "no text", None))  # a place that is kept, for no reader
    offers = [(p, f"shop{i % 3}", i % 5 != 0, float(i % 4)) for i, p in enumerate(ids)]
    return sids, offers


def test_the_bytes_do_not_depend_on_order_or_partitioning(spark, rows, tmp_path):
    sids, offers = rows
    active = {p: sid for p, base, sid, _, _, gone in sids if base and not gone}
    expected = {
        "product_sids.parquet": len(active),
        "withdrawn.parquet": sum(1 for row in sids if row[5]),
        "unassigned.parquet": sum(1 for row in sids if not row[1] and not row[5]),
    }
    made = {}
    for name, partitions in (("one", 1), ("many", 7)):
        shuffled = [list(rows) for rows in (sids, offers)]
        for table in shuffled:
            random.Random(partitions).shuffle(table)
        frames = [
            spark.createDataFrame(table, ddl).repartition(partitions)
            for table, ddl in zip(shuffled, (SIDS, OFFERS), strict=True)
        ]
        staged = lambda folder, frames=frames: stage(folder, *frames)  # noqa: E731
        what = dataclasses.replace(source(tmp_path), stage=staged, expected=expected)
        store = open_store(tmp_path / name)
        published = publish(store, what, tmp_path / "spool")
        made[name] = published.manifest["files"]
    assert made["one"] == made["many"]
    opened = open_release("esci", "r1", tmp_path / "many")
    assert opened.sids() == active
    popular = [p for p, shop, available, _ in offers if shop == "shop1" and available and p in active]
    found = [p for code in range(16) for p in opened.products(str(code), retailer="shop1")]
    assert sorted(found) == sorted(popular)
    popularity = {p: n for p, _, _, n in offers}
    for code in range(16):
        listed = [(-popularity[p], p) for p in opened.products(str(code), retailer="shop1")]
        assert listed == sorted(listed, key=lambda row: (row[0], row[1].encode()))
    assert {name: opened.manifest["rows"][name] for name in expected} == expected
