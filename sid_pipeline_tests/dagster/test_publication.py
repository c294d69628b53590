"""The assets `publication` and `live` over two nights, with what stands before them put in place by hand."""

from __future__ import annotations

from datetime import datetime, timezone

import dagster as dg
import numpy as np
import pytest

from sid_pipeline.assets.flavours import Flavour
from sid_pipeline.assets.publication import publication_assets
from sid_pipeline.assignment.refresh import look
from sid_pipeline.promotion import go_live, hold, release_hold
from sid_pipeline.reader import WithdrawnProduct, open_live
from sid_pipeline.receipts import Receipt
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.rqvae import TrainConfig, train
from sid_pipeline.schemas import RELEASES, SEMANTIC_IDS
from sid_pipeline.settings import load_settings
from sid_pipeline.status import show_status
from sid_pipeline_tests.publications import PASSED, QUALITY

DAY1, DAY2, DAY3 = "2026-01-05", "2026-01-06", "2026-01-07"


@pytest.fixture(scope="module")
def codebook():
    x = np.random.default_rng(0).standard_normal((400, 8)).astype(np.float32)
    return train(x, None, TrainConfig(codebook_size=16, latent_dim=8, steps=5, batch_size=128, threads=1))


class Pipeline:
    """A warehouse whose SIDs are set by the test, and the two assets."""

    def __init__(self, folder, spark, codebook, drop=0.5):
        (folder / "sid.toml").write_text(f'[source]\nproducts = "p.csv"\n[publication]\nmax_product_drop = {drop}\n')
        self.spark, self.codebook = spark, codebook
        self.warehouse = Warehouse(load_settings(folder / "sid.toml", env={}))
        self.instance = dg.DagsterInstance.ephemeral()
        self.instance.add_dynamic_partitions("releases", ["r1"])
        settings = self.warehouse.settings
        self.assets = publication_assets(Flavour("esci", settings.flavours["esci"], settings))
        book = codebook.save(self.warehouse.codebooks("esci", "r1") / codebook.id)
        self.receipt("codebook", folder=book.relative_to(self.warehouse.state).as_posix(), codebook_id=codebook.id)
        ledger = {"release": "r1", "state": "served", "taxonomy_source": "x", "taxonomy_revision": "t1",
                  "training_snapshot": DAY1, "embedder_ids": '{"esci": "e1"}',
                  "created_at": datetime.now(timezone.utc)}  # fmt: skip
        self.warehouse.tables.append_rows(RELEASES, [{**dict.fromkeys(RELEASES.column_names), **ledger}])

    def receipt(self, stage, partition="r1", *, version="v", inputs=None, checks=(), **facts):
        key = stage if stage == "offers" else f"esci/{stage}"
        self.warehouse.receipts.put(
            Receipt(key, partition, inputs or {}, version, facts=facts, checks=[dict(check) for check in checks])
        )

    def night(self, day, sids, quality=QUALITY, checks=(PASSED,)):
        """What semantic_ids, report and offers would leave; sids: product -> SID, or (SID, withdrawn on, codebook)."""
        rows = []
        for product, sid in sids.items():
            sid, withdrawn_on, book = sid if isinstance(sid, tuple) else (sid, None, self.codebook.id)
            rows.append((product, sid, sid, "new", "h", book, "share", day, withdrawn_on))
        columns = "product_id, base_sid, published_sid, change, text_hash, codebook_id, collision_policy, "
        ddl = (columns + "as_of_snapshot, withdrawn_on").replace(",", " string,") + " string"
        frame = self.spark.createDataFrame(rows, ddl)
        for column in SEMANTIC_IDS.columns:
            if column.name not in frame.columns and column.name not in ("flavour", "release"):
                frame = frame.selectExpr("*", f"CAST(NULL AS {column.type}) AS {column.name}")
        tables = self.warehouse.tables
        tables.replace(SEMANTIC_IDS, frame, flavour="esci", release="r1")
        version = look(tables.read(SEMANTIC_IDS, flavour="esci", release="r1")).fingerprint
        self.receipt("semantic_ids", version=version, inputs={"products": day}, checks=checks,
                     as_of_snapshot=day, codebook_id=self.codebook.id)  # fmt: skip
        self.receipt("report", version=f"report of {day}", inputs={"semantic_ids": version}, headline=dict(quality))
        self.receipt("offers", day)

    def run(self):
        result = dg.materialize(
            self.assets, instance=self.instance, partition_key="r1", resources={"warehouse": self.warehouse},
            raise_on_error=False,
        )  # fmt: skip
        events = {e.asset_key.path[-1]: e.materialization.metadata for e in result.get_asset_materialization_events()}
        return result, events

    def live(self):
        return open_live("esci", self.warehouse.published)


@pytest.fixture
def pipeline(tmp_path, spark, codebook):
    return Pipeline(tmp_path, spark, codebook)


def test_two_nights_a_bad_one_and_a_held_one(pipeline):
    pipeline.night(DAY1, {"p1": "1_2_3_4", "p2": "1_2_3_5"})
    result, events = pipeline.run()
    assert result.success, result.all_events[-1].message
    assert pipeline.live().sids() == {"p1": "1_2_3_4", "p2": "1_2_3_5"}
    assert pipeline.live().card["quality"] == QUALITY and pipeline.live().card["lineage"]["taxonomy_revision"] == "t1"
    assert pipeline.live().constraints.sids == 2
    result, events = pipeline.run()
    assert events["publication"]["unchanged"].value

    pipeline.night(
        DAY2, {"p1": "1_2_3_4", **{p: (s, DAY2, pipeline.codebook.id) for p, s in (("p2", "1_2_3_5"), ("p3", None))}}
    )
    result, events = pipeline.run()
    assert result.success and "advanced, as of 2026-01-06" in events["live"]["what happened"].value
    live = pipeline.live()
    assert live.delta().to_pylist() == [
        {"product_id": "p2", "change": "withdrawn", "sid": None, "previous_sid": "1_2_3_5",
         "reason": "withdrawn on 2026-01-06"}
    ]  # fmt: skip
    with pytest.raises(WithdrawnProduct, match="its last SID was 1_2_3_5"):
        live.sid("p2")
    with pytest.raises(WithdrawnProduct, match="its last SID was None"):
        live.sid("p3")

    hold(pipeline.warehouse, "esci", by="Ada", reason="a demo")
    pipeline.night(DAY3, {"p1": "1_2_3_4"}, quality={**QUALITY, "usage_l1": 0.1})
    result, events = pipeline.run()
    assert result.success and "held by Ada" in events["live"]["what happened"].value
    assert pipeline.live().folder == live.folder
    assert "blocked: esci: held by Ada" in show_status(pipeline.warehouse)

    release_hold(pipeline.warehouse, "esci", by="Ada", reason="over")
    result, events = pipeline.run()
    assert pipeline.live().folder == live.folder, "no longer held, but worse than what is live"
    (check,) = [c for c in result.get_asset_check_evaluations() if c.check_name == "not_worse_than_live"]
    assert not check.passed and "usage_l1 0.100 against 0.900" in check.description
    assert check.metadata["usage_l1 new"].value == pytest.approx(0.1)
    assert "did not go live: not_worse_than_live" in show_status(pipeline.warehouse)


def test_a_cut_delivery_waits_and_is_told_until_it_is_whole_or_accepted(tmp_path, spark, codebook, monkeypatch):
    told = []
    monkeypatch.setattr("sid_pipeline.assets.publication.tell", lambda settings, alert: told.append(alert) or [])
    pipeline = Pipeline(tmp_path, spark, codebook, drop=0.05)
    whole = {f"p{n}": f"1_2_3_{n % 16}" for n in range(40)}
    cut = {p: sid if n < 35 else (sid, DAY2, codebook.id) for n, (p, sid) in enumerate(whole.items())}

    def evaluated(result):
        (check,) = [c for c in result.get_asset_check_evaluations() if c.check_name == "products_are_there"]
        return check

    pipeline.night(DAY1, whole)
    assert evaluated(pipeline.run()[0]).passed and told == []
    first = pipeline.live().folder
    pipeline.night(DAY2, cut)
    result, _ = pipeline.run()
    check = evaluated(result)
    assert result.success and not check.passed and pipeline.live().folder == first
    assert check.metadata["active_products new"].value == 35
    assert "35 active products against 40 of what is live: 5 fewer, which is 12.5%, allowed 5.0%" in check.description
    status = show_status(pipeline.warehouse)
    assert "did not go live: products_are_there: 35 active products against 40" in status
    (alert,) = told
    assert (alert.kind, alert.subject) == ("not_advanced", f"esci r1 as of {DAY2} did not go live")
    assert "35 active products" in alert.happened and "--accept-drop" in alert.happened
    assert f"release r1 as of {DAY1}" in alert.served
    pipeline.run()
    assert len(told) == 1, "unchanged, so not told again"

    pipeline.night(DAY3, whole)
    assert evaluated(pipeline.run()[0]).passed
    assert pipeline.live().sids() == whole and pipeline.live().folder != first
    assert "blocked: nothing" in show_status(pipeline.warehouse)

    pipeline.night("2026-01-08", cut)
    pipeline.run()
    assert pipeline.live().sids() == whole
    asked = {"by": "Ada", "reason": "a range ended", "switch": True, "accept_drop": "2026-01-08"}
    go_live(pipeline.warehouse, "esci", "r1", **asked)
    assert len(pipeline.live()) == 35
    assert "did not go live" not in show_status(pipeline.warehouse), "also before the next night"
    pipeline.night("2026-01-09", cut)
    assert evaluated(pipeline.run()[0]).passed and len(told) == 2


def test_failed_checks_publish_nothing(pipeline):
    pipeline.night(DAY1, {"p1": "1_2_3_4"}, checks=[{**PASSED, "passed": False, "sentence": "3 codes are wrong."}])
    result, events = pipeline.run()
    assert not result.success and not events
    failure = result.failure_data_for_node("esci__publication")
    assert "3 codes are wrong. Nothing is published" in failure.user_failure_data.description


def test_rows_that_were_refreshed_since_they_were_checked_are_not_published(pipeline):
    pipeline.night(DAY1, {"p1": "1_2_3_4"})
    checked = pipeline.warehouse.receipts.need("esci/semantic_ids", "r1")
    pipeline.night(DAY2, {"p1": "1_2_3_4", "p2": "9_9_9_9"})
    pipeline.warehouse.receipts.put(checked)
    pipeline.receipt("report", inputs={"semantic_ids": checked.data_version}, headline=dict(QUALITY))
    result, events = pipeline.run()
    failure = result.failure_data_for_node("esci__publication")
    assert not events and f"no longer those of {DAY1} that were checked" in failure.user_failure_data.description


def test_rows_of_another_codebook_are_refused(pipeline):
    pipeline.night(DAY1, {"p1": "1_2_3_4", "p2": ("1_2_3_5", None, "another")})
    result, _ = pipeline.run()
    failure = result.failure_data_for_node("esci__publication")
    assert "another" in failure.user_failure_data.description
    assert "materialise semantic_ids again" in failure.user_failure_data.description
