"""Two releases side by side. No Spark is started."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from sid_pipeline.receipts import Receipt
from sid_pipeline.release_comparison import compare_releases
from sid_pipeline.releases import ReleaseError
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.schemas import RELEASES, SEMANTIC_IDS
from sid_pipeline.settings import load_settings

DAY = "2026-01-05"
R1 = {"p1": "1_2_3", "p2": "1_2_4", "p3": "5_6_7"}


@pytest.fixture
def warehouse(tmp_path, monkeypatch):
    (tmp_path / "sid.toml").write_text('[source]\nproducts = "p.csv"\n[flavours.esci_gemma]\nenabled = false\n')
    monkeypatch.setattr(Warehouse, "spark", property(lambda self: pytest.fail("Spark was asked for")))
    return Warehouse(load_settings(tmp_path / "sid.toml", env={}))


def make(warehouse, release, sids, **headline):
    ledger = {"release": release, "state": "served", "taxonomy_source": "x", "taxonomy_revision": "x",
              "embedder_ids": "{}", "training_snapshot": DAY, "created_at": datetime.now(timezone.utc)}  # fmt: skip
    warehouse.tables.append_rows(RELEASES, [{**dict.fromkeys(RELEASES.column_names), **ledger}])
    blank = {**dict.fromkeys(SEMANTIC_IDS.column_names), "flavour": "esci", "release": release}
    filled = {"source_hash": "s", "text_hash": "t", "change": "new", "codebook_id": "c", "as_of_snapshot": DAY}
    rows = [{**blank, **filled, "product_id": product, "base_sid": sid} for product, sid in sids.items()]
    warehouse.tables.append_rows(SEMANTIC_IDS, rows)
    warehouse.receipts.put(Receipt("esci/report", release, {}, "v", facts={"headline": headline}))


def test_what_keeps_its_codes_is_told_level_by_level(warehouse):
    make(warehouse, "r1", R1, usage_l1=0.5)
    make(warehouse, "r2", {**R1, "p1": "1_2_9", "p2": "9_2_4", "p4": "1_1_1", "p5": None}, usage_l1=0.75)
    told = compare_releases(warehouse, "r2", "r1")
    assert "of 3 products in both, with the same codes: L1 66.7%, L1..L2 66.7%, L1..L3 33.3%" in told
    assert "0.5" in told and "0.75" in told


def test_releases_of_different_depth_and_without_a_common_product_are_a_sentence(warehouse):
    make(warehouse, "r1", R1)
    make(warehouse, "r2", {product: f"{sid}_0" for product, sid in R1.items()})
    make(warehouse, "r3", {"p9": "1_2_3"})
    assert "codes of 3 and of 4 levels: not comparable" in compare_releases(warehouse, "r2", "r1")
    assert "no product has a SID in both" in compare_releases(warehouse, "r3", "r1")
    with pytest.raises(ReleaseError, match="no other release"):
        compare_releases(warehouse, "r1")
