"""What a release has now against what is live: the diff, the codes beside a report's, what the explorer tells of a
night; and what these assets say of inputs that they cannot read. No Spark is started."""

from __future__ import annotations

import dagster as dg
import pyarrow as pa
import pytest

from sid_pipeline.assets import codebook_diff, comparison, explorer, names, report
from sid_pipeline.assets.assigned import assigned_products, described
from sid_pipeline.assets.flavours import Flavour
from sid_pipeline.publication.live import pointer_path, write_pointer
from sid_pipeline.publication.publish import publish
from sid_pipeline.receipts import Receipt
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.schemas import PRODUCTS, SEMANTIC_IDS
from sid_pipeline.settings import load_settings
from sid_pipeline_tests.publications import source

DAY1, DAY2 = "2026-01-05", "2026-01-06"
DISAMBIGUATE, CAPACITY, SHARE = "disambiguate", "capacity=1", "share"


class Shop:
    """A warehouse with a live publication of r1, and SIDs that a release has now."""

    def __init__(self, folder):
        (folder / "sid.toml").write_text('[source]\nproducts = "p.csv"\n')
        self.folder = folder
        self.warehouse = Warehouse(load_settings(folder / "sid.toml", env={}))
        settings = self.warehouse.settings
        self.flavour = Flavour("esci", settings.flavours["esci"], settings)
        self.instance = dg.DagsterInstance.ephemeral()
        self.instance.add_dynamic_partitions("releases", ["r1"])

    def live(self, sids, policy):
        """Make a table of SIDs live, as r1 of the first day; its folder."""
        what = source(self.folder, sids, offers=None, further=policy == DISAMBIGUATE, collision=policy)
        made = publish(self.warehouse.store, what, self.folder / "spool")
        write_pointer(self.warehouse.store, made.folder, made.manifest)
        return made.folder

    def now(self, sids, policy, release="r1"):
        """What semantic_ids leaves of the second day; sids: product -> (base SID, published SID)."""
        blank = dict.fromkeys(SEMANTIC_IDS.column_names)
        rows = [
            {**blank, "flavour": "esci", "release": release, "product_id": product, "base_sid": base,
             "published_sid": published, "change": "text_changed", "text_hash": "h", "codebook_id": "c",
             "collision_policy": policy, "as_of_snapshot": DAY2}
            for product, (base, published) in sids.items()
        ]  # fmt: skip
        self.warehouse.tables.append_rows(SEMANTIC_IDS, rows)
        assigned = Receipt(
            "esci/semantic_ids", release, {"collision_policy": policy}, "v", facts={"as_of_snapshot": DAY2}
        )
        self.warehouse.receipts.put(assigned)
        return assigned

    def products(self, day, **titles):
        """Products of a day, by their titles."""
        blank = {**dict.fromkeys(PRODUCTS.column_names), "snapshot": day, "text_hash": "h"}
        rows = [{**blank, "product_id": product, "title": title} for product, title in titles.items()]
        self.warehouse.tables.append_rows(PRODUCTS, rows)

    def figures(self, assigned):
        return codebook_diff._diff(self.warehouse, self.flavour, assigned.partition, assigned).metadata["figures"]

    def codes(self, product_ids, levels=4):
        trained = Receipt("esci/codebook", "r2", {}, "v", facts={"codebook_id": "another"})
        return report._live_codes(self.warehouse, self.flavour, trained, product_ids, levels)


@pytest.fixture
def shop(tmp_path, monkeypatch):
    monkeypatch.setattr(Warehouse, "spark", property(lambda self: pytest.fail("Spark was asked for")))
    return Shop(tmp_path)


LIVE_DISAMBIGUATED = {"p1": "1_2_0_0_0", "p2": "1_2_0_0_1", "p3": "1_2_3_4_0"}


def test_a_further_token_moves_nobody_and_is_no_level(shop):
    shop.live(LIVE_DISAMBIGUATED, DISAMBIGUATE)
    now = {"p1": "1_2_0_0_0", "p2": "1_2_0_1_0", "p3": "1_2_3_4_0", "p4": "1_2_3_4_1"}
    found = shop.figures(shop.now({p: (sid[:-2], sid) for p, sid in now.items()}, DISAMBIGUATE))
    assert (found["moved"], found["added"], found["withdrawn"]) == (1, 1, 0)
    assert [level["kept_prefix"] for level in found["levels"]] == [1, 1, 1, pytest.approx(2 / 3)]
    (example,) = found["moved_examples"]
    assert (example["old"], example["new"], example["first_changed_level"]) == ("1_2_0_0_1", "1_2_0_1_0", 4)


def test_a_product_that_was_displaced_has_not_moved(shop):
    shop.live({"p1": "1_2_0_0", "p2": "1_2_0_5"}, CAPACITY)
    full = {"p3": ("1_2_0_0", None)}
    found = shop.figures(shop.now({"p1": ("1_2_0_0", "1_2_0_0"), "p2": ("1_2_0_0", "1_2_0_5"), **full}, CAPACITY))
    assert (found["moved"], found["added"], found["new"]) == (0, 0, 2)


def test_another_policy_moves_everybody_and_keeps_the_codes(shop):
    shop.live(LIVE_DISAMBIGUATED, DISAMBIGUATE)
    now = shop.now({p: (sid[:-2], sid[:-2]) for p, sid in LIVE_DISAMBIGUATED.items()}, SHARE, "r2")
    found = shop.figures(now)
    assert found["moved"] == 3 and [level["kept_prefix"] for level in found["levels"]] == [1, 1, 1, 1]


def test_codes_of_another_depth_are_told_to_be_not_comparable(shop):
    shop.live({"p1": "1_2_0_0", "p2": "1_2_0_5"}, SHARE)
    assigned = shop.now({"p1": ("1_2_0", "1_2_0")}, SHARE, "r2")
    outcome = codebook_diff._diff(shop.warehouse, shop.flavour, "r2", assigned)
    assert outcome.metadata["figures"]["comparable"] is False
    assert "Codes of 4 and of 3 levels: not comparable" in outcome.metadata["diff"]
    others, told = shop.codes(["p1", "p2"], levels=3)
    assert others == {} and told == "r1 has codes of 4 levels, this release of 3: not comparable"


def test_beside_a_report_the_live_codes_stand_without_the_further_token(shop):
    shop.live(LIVE_DISAMBIGUATED, DISAMBIGUATE)
    others, told = shop.codes(["p1", "nobody", "p3"])
    assert told == ""
    assert others["live (r1)"].tolist() == [[1, 2, 0, 0], [-1, -1, -1, -1], [1, 2, 3, 4]]
    assert shop.codes(["nobody"]) == ({}, "")


@pytest.mark.parametrize("policy", [DISAMBIGUATE, CAPACITY])
def test_the_explorer_tells_why_of_those_alone_that_moved(shop, policy):
    if policy == DISAMBIGUATE:
        was, now = LIVE_DISAMBIGUATED, {**LIVE_DISAMBIGUATED, "p2": "1_2_7_7_0"}
        sids = {p: (sid[:-2], sid) for p, sid in now.items()}
    else:
        was = {"p1": "1_2_0_0", "p2": "1_2_0_5", "p3": "1_2_3_4"}
        sids = {"p1": ("1_2_0_0", "1_2_0_0"), "p2": ("1_2_7_7", "1_2_7_7"), "p3": ("1_2_0_0", "1_2_3_4")}
    folder = shop.live(was, policy)
    shop.now(sids, policy)
    shop.products(DAY2, p2="Tea")
    found = explorer._changes(shop.warehouse, shop.flavour, "r1", folder)
    assert found["reasons"] == {"text_changed": 1} and found["moved"] == 1
    assert found["moved_examples"][0]["title"] == "Tea" and found["against"] == f"r1 as of {DAY1}"


def test_the_explorer_tells_that_nothing_changed(shop):
    sids = {"p1": "1_2_0_0", "p2": "1_2_0_5"}
    folder = shop.live(sids, SHARE)
    shop.now({product: (sid, sid) for product, sid in sids.items()}, SHARE)
    shop.products(DAY2, p1="Tea", p2="Jam")
    found = explorer._changes(shop.warehouse, shop.flavour, "r1", folder)
    assert (found["moved"], found["reasons"], found["moved_examples"]) == (0, {}, [])


# ------------------------------------------------------------------ what is read


class Asked(Exception):
    """Carries the columns that a caller wants of the products."""


def test_texts_are_read_for_the_explorer_alone(shop, monkeypatch):
    def asked(warehouse, flavour_or_days, release_or_ids, columns):
        raise Asked(*columns)

    for module, reads in ((names, "assigned_products"), (comparison, "assigned_products"), (explorer, "described")):
        monkeypatch.setattr(module, reads, asked)
    shop.now({"p1": ("1_2_0_0", "1_2_0_0")}, SHARE)
    warehouse, flavour = shop.warehouse, shop.flavour
    calls = {
        "names": lambda: names._name_prefixes(warehouse, flavour, "r1"),
        "comparison": lambda: comparison._compare(warehouse, [flavour, flavour], "r1"),
        "explorer": lambda: explorer._explore(warehouse, [flavour], "r1", {"esci": {"as_of_snapshot": DAY2}}, {}),
    }
    wanted = {}
    for name, call in calls.items():
        with pytest.raises(Asked) as told:
            call()
        wanted[name] = set(told.value.args)
    assert wanted == {
        "names": {"title", "brand", "category"},
        "comparison": {"title", "category"},
        "explorer": {"title", "brand", "category", "description"},
    }


def test_products_are_read_beside_their_codes_from_the_first_snapshot_that_has_them(shop):
    shop.now({"p3": ("1_2_3_4", "1_2_3_4"), "p1": ("1_2_0_0", "1_2_0_0"), "p2": ("7_7_7_7", "7_7_7_7")}, SHARE)
    shop.products(DAY1, p1="old tea", p2="old jam", p9="nail")
    shop.products(DAY2, p3="soap", p1="tea")
    assigned = assigned_products(shop.warehouse, shop.flavour, "r1", ["title"])
    assert assigned.products.to_pydict() == {"product_id": ["p1", "p3"], "title": ["tea", "soap"]}
    assert assigned.codes.tolist() == [[1, 2, 0, 0], [1, 2, 3, 4]] and assigned.snapshot == DAY2
    wanted = pa.chunked_array([["p9", "p1", "p2", "nobody"]])
    for few in (1, 10):
        found = described(shop.warehouse, [DAY2, DAY1], wanted, ["title"], few)
        assert found.to_pydict() == {"product_id": ["p1", "p2", "p9"], "title": ["tea", "old jam", "nail"]}


# ------------------------------------------------------------------ what cannot be read


def run(shop, asset):
    return dg.materialize(
        [asset], instance=shop.instance, partition_key="r1", resources={"warehouse": shop.warehouse},
        raise_on_error=False,
    )  # fmt: skip


def test_a_broken_pointer_is_a_sentence_and_is_kept_for_the_status(shop):
    shop.now({"p1": ("1_2_0_0", "1_2_0_0")}, SHARE)
    shop.warehouse.receipts.put(Receipt("products", DAY2, {}, "v"))
    shop.warehouse.store.write(pointer_path("esci"), "{")
    assets = [*codebook_diff.diff_assets(shop.flavour), *report.report_assets(shop.flavour)]
    assert not any([run(shop, asset).success for asset in assets])
    troubles = {trouble.asset: trouble.sentence for trouble in shop.warehouse.receipts.troubles()}
    assert troubles.keys() == {"esci/codebook_diff", "esci/report"}
    assert all("promote a release again" in sentence for sentence in troubles.values())


def test_inputs_that_are_missing_are_kept_for_the_status(shop):
    shop.now({"p1": ("1_2_0_0", "1_2_0_0")}, SHARE)
    together = [*comparison.comparison_assets([shop.flavour]), *explorer.explorer_assets([shop.flavour])]
    assets = [*names.names_assets(shop.flavour), *together]
    assert not any([run(shop, asset).success for asset in assets])
    troubles = {trouble.asset: trouble.sentence for trouble in shop.warehouse.receipts.troubles()}
    assert troubles.keys() == {"esci/prefix_names", "flavour_comparison", "explorer"}
    assert all(f"asset 'products' was never materialised for partition '{DAY2}'" in s for s in troubles.values())
