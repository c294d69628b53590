"""`sid show` tells the SID that readers get, not the one before the collision policy. No Spark is started."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from sid_pipeline import cli
from sid_pipeline.assignment.collisions import FULL
from sid_pipeline.receipts import Receipt
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.schemas import PREFIX_NAMES, PRODUCTS, SEMANTIC_IDS
from sid_pipeline.settings import load_settings
from sid_pipeline.show import show_prefix, show_product
from sid_pipeline.trace import assigned_sids, products_under, trace_product

DAY = "2026-01-05"
# product_id: base SID, published SID, reason, withdrawn on
CAPACITY = {
    "home": ("1_2_3_4", "1_2_3_4", None, None),
    "moved": ("1_2_3_4", "1_2_3_9", None, None),
    "full": ("1_2_3_4", None, FULL, None),
    "left": ("1_2_3_4", "1_2_3_7", None, DAY),
    "waits": (None, "1_2_3_8", "no text", None),  # its place is kept
}
FURTHER = {
    "first": ("1_2_3_4", "1_2_3_4_0", None, None),
    "second": ("1_2_3_4", "1_2_3_4_1", None, None),
    "ninth": ("1_2_3_4", "1_2_3_4_10", None, None),
}


@pytest.fixture
def warehouse(tmp_path, monkeypatch):
    (tmp_path / "sid.toml").write_text('[source]\nproducts = "p.csv"\n[flavours.esci_gemma]\nenabled = false\n')
    monkeypatch.setattr(Warehouse, "spark", property(lambda self: pytest.fail("Spark was asked for")))
    monkeypatch.setenv("SID_SETTINGS", str(tmp_path / "sid.toml"))
    monkeypatch.chdir(tmp_path)
    return Warehouse(load_settings(tmp_path / "sid.toml", env={}))


def fill(warehouse, rows, policy):
    products = [
        {"snapshot": DAY, "product_id": p, "title": f"title of {p}", "text_hash": p, "source_file": "p.csv"}
        for p in rows
    ]
    sids = [
        {
            "flavour": "esci", "release": "r1", "product_id": p, "base_sid": base, "published_sid": published,
            "reason": reason, "withdrawn_on": gone, "collision_policy": policy, "text_hash": p, "codebook_id": "c",
            "as_of_snapshot": DAY,
        }
        for p, (base, published, reason, gone) in rows.items()
    ]  # fmt: skip
    names = [
        {"flavour": "esci", "release": "r1", "prefix": p, "level": 1, "products": 1, "name": f"name of {p}",
         "words": [], "brands": [], "sample": []}
        for p in ("1", "1_2")
    ]  # fmt: skip
    for spec, wanted in ((PRODUCTS, products), (SEMANTIC_IDS, sids), (PREFIX_NAMES, names)):
        warehouse.tables.append_rows(spec, [{**dict.fromkeys(spec.column_names), **row} for row in wanted])
    for asset in ("products", "esci/semantic_ids"):
        partition = DAY if asset == "products" else "r1"
        warehouse.receipts.put(Receipt(asset, partition, {}, "v", facts={"as_of_snapshot": DAY}))


def shown(warehouse, product):
    return show_product(trace_product(warehouse, product, "r1", DAY)).splitlines()


def line(warehouse, product):
    (found,) = [text for text in shown(warehouse, product) if text.startswith("esci: ")]
    return found


def test_under_capacity_it_is_told_where_a_product_went_and_why_one_has_no_sid(warehouse):
    fill(warehouse, CAPACITY, "capacity=1")
    by = "(base SID 1_2_3_4, collision policy capacity=1)"
    assert line(warehouse, "home") == "esci: 1_2_3_4"
    assert line(warehouse, "moved") == f"esci: 1_2_3_9  {by}"
    assert line(warehouse, "full") == f"esci: no SID ({FULL})  {by}"
    assert line(warehouse, "left") == f"esci: no SID (withdrawn on {DAY}; was 1_2_3_7)  {by}"
    assert line(warehouse, "waits") == "esci: no SID (no text)"
    assert line(warehouse, "nobody") == "esci: no SID (not assigned in release 'r1')"
    assert [product for product, _, _ in products_under(warehouse, "esci", "r1", DAY, "1_2_3_4")] == ["home"]
    found = assigned_sids(warehouse, "esci", "r1").sort_by("product_id").to_pydict()
    assert found == {"product_id": ["home", "moved"], "sid": ["1_2_3_4", "1_2_3_9"]}
    text = show_prefix(warehouse, "1_2", ["esci"], "r1", DAY, 20)
    assert "esci 1_2 (name of 1_2): 2 products" in text and "1_2_3_9" in text and "title of full" not in text


def test_the_further_token_is_told_and_is_a_prefix_like_others(warehouse):
    fill(warehouse, FURTHER, "disambiguate")
    assert line(warehouse, "second") == "esci: 1_2_3_4_1  (base SID 1_2_3_4, collision policy disambiguate)"
    trace = trace_product(warehouse, "second", "r1", DAY).flavours[0]
    assert trace.shared_prefix == "1_2_3_4" and [p for p, _, _ in trace.neighbours] == ["first", "ninth"]
    listed = products_under(warehouse, "esci", "r1", DAY, "1_2_3_4")
    assert [sid for _, sid, _ in listed] == ["1_2_3_4_0", "1_2_3_4_1", "1_2_3_4_10"]
    done = CliRunner().invoke(cli.main, ["show", "1_2_3_4_1", "--release", "r1"])
    assert done.exit_code == 0 and "esci 1_2_3_4_1: 1 products" in done.output, done.output
    assert "title of second" in done.output and "title of ninth" not in done.output


@pytest.mark.parametrize(
    ("what", "is_prefix"), [("1", True), ("_".join("12345678"), True), ("_".join("123456789"), False)]
)
def test_a_prefix_has_as_many_codes_as_a_sid_can_have(what, is_prefix):
    assert (cli.SID_PATTERN.fullmatch(what) is not None) == is_prefix
