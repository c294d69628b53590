"""Two nights of a flavour whose SIDs carry a further token, from its SIDs to what is live, with all that Spark does."""

from __future__ import annotations

from datetime import datetime, timezone

import dagster as dg
import numpy as np
import pytest

from sid_pipeline.assets.assignment import assignment_assets
from sid_pipeline.assets.codebook_diff import diff_assets
from sid_pipeline.assets.flavours import Flavour
from sid_pipeline.assets.publication import publication_assets
from sid_pipeline.assets.report import report_assets
from sid_pipeline.embedding.vectors import unit
from sid_pipeline.reader import open_live
from sid_pipeline.receipts import Receipt
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.rqvae import TrainConfig, train
from sid_pipeline.schemas import EMBEDDED_PRODUCTS, EMBEDDINGS, PRODUCTS, RELEASES
from sid_pipeline.settings import load_settings

DAY1, DAY2 = "2026-01-05", "2026-01-06"
SETTINGS = """
[source]
products = "p.csv"
[flavours.esci]
collision = "disambiguate"
[publication]
max_usage_drop = 1.0
max_collision_rise = 1.0
max_near_duplicate_drop = 1.0
"""


class Nights:
    """A warehouse in which all that stands before the SIDs of release r1 is put in place by hand."""

    def __init__(self, folder, spark, vectors):
        (folder / "sid.toml").write_text(SETTINGS)
        self.spark, self.vectors = spark, vectors
        self.warehouse = Warehouse(load_settings(folder / "sid.toml", env={}))
        settings = self.warehouse.settings
        flavour = Flavour("esci", settings.flavours["esci"], settings)
        looking = [*report_assets(flavour), *diff_assets(flavour)]
        self.assets = [*assignment_assets(flavour), *looking, *publication_assets(flavour)]
        self.instance = dg.DagsterInstance.ephemeral()
        self.instance.add_dynamic_partitions("releases", ["r1"])
        book = train(vectors, None, TrainConfig(codebook_size=16, latent_dim=8, steps=5, batch_size=128, threads=1))
        where = book.save(self.warehouse.codebooks("esci", "r1") / book.id).relative_to(self.warehouse.state)
        self.receipt("esci/training_set", "r1", {"embedders": flavour.joined})
        self.receipt("esci/codebook", "r1", folder=where.as_posix(), codebook_id=book.id)
        ledger = {"release": "r1", "state": "served", "taxonomy_source": "x", "taxonomy_revision": "t1",
                  "training_snapshot": DAY1, "embedder_ids": '{"esci": "e1"}',
                  "created_at": datetime.now(timezone.utc)}  # fmt: skip
        self.warehouse.tables.append_rows(RELEASES, [{**dict.fromkeys(RELEASES.column_names), **ledger}])
        rows = [(f"t{number}", bytearray(row.tobytes()), None) for number, row in enumerate(vectors)]
        frame = spark.createDataFrame(rows, EMBEDDINGS.ddl(without=("embedder_id",)))
        self.warehouse.tables.replace(EMBEDDINGS, frame, embedder_id="e1")

    def receipt(self, key, partition, inputs=None, version="v", **facts):
        self.warehouse.receipts.put(Receipt(key, partition, inputs or {}, version, facts=facts))

    def night(self, day, texts):
        """What the snapshot plane leaves; texts: product -> number of its vector."""
        tables = self.warehouse.tables
        blank = {c.name: None if c.nullable else "x" for c in PRODUCTS.columns if c.name != "snapshot"}
        products = [{**blank, "product_id": p, "title": f"Title {n}", "text_hash": f"s{n}"} for p, n in texts.items()]
        frame = self.spark.createDataFrame(products, PRODUCTS.ddl(without=("snapshot",)))
        tables.replace(PRODUCTS, frame, snapshot=day)
        embedded = [(p, f"title {n}", f"t{n}") for p, n in texts.items()]
        frame = self.spark.createDataFrame(embedded, EMBEDDED_PRODUCTS.ddl(without=("embedder_id", "snapshot")))
        tables.replace(EMBEDDED_PRODUCTS, frame, embedder_id="e1", snapshot=day)
        self.receipt("products", day, version=f"products of {day}")
        self.receipt("esci_embeddings", day, {"products": f"products of {day}"}, embedder_ids={"e1": f"vectors, {day}"})
        self.receipt("offers", day)
        result = dg.materialize(
            self.assets, instance=self.instance, partition_key="r1", resources={"warehouse": self.warehouse}
        )
        assert result.success
        events = result.get_asset_materialization_events()
        return {event.asset_key.path[-1]: event.materialization.metadata for event in events}


@pytest.fixture
def nights(tmp_path, spark):
    return Nights(tmp_path, spark, unit(np.random.default_rng(0).standard_normal((400, 8))))


def test_the_second_night_advances_and_tells_only_what_moved(nights):
    # Each text is of two products, so each SID is of two or more.
    texts = {f"p{number:03d}": number // 2 for number in range(120)}
    nights.night(DAY1, texts)
    first = open_live("esci", nights.warehouse.published)
    before = first.sids()
    assert first.manifest["as_of_snapshot"] == DAY1 and len(before) == 120
    assert all(sid.count("_") == 4 for sid in before.values()) and len(set(before.values())) == 120

    # One product gets another text, one goes, and one comes that shares the text of two others.
    told = nights.night(DAY2, {**{p: n for p, n in texts.items() if p != "p119"}, "p000": 75, "p120": 10})
    assert f"advanced, as of {DAY2}" in told["live"]["what happened"].value
    live = open_live("esci", nights.warehouse.published)
    after = live.sids()
    assert after == {**{p: sid for p, sid in before.items() if p != "p119"}, **{p: after[p] for p in ("p000", "p120")}}
    assert after["p000"].rsplit("_", 1)[0] != before["p000"].rsplit("_", 1)[0]
    assert after["p120"].rsplit("_", 1)[0] == before["p020"].rsplit("_", 1)[0]
    changes = {row["product_id"]: row["change"] for row in live.delta().to_pylist()}
    assert changes == {"p000": "moved", "p119": "withdrawn", "p120": "added"}
    figures = told["codebook_diff"]["figures"].value
    assert (figures["moved"], figures["added"], figures["withdrawn"]) == (1, 1, 1)
    assert len(figures["levels"]) == 4 and figures["moved_examples"][0]["product_id"] == "p000"
