"""Offers: what is accepted, and what each rejected row did wrong."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sid_pipeline.assets.snapshot import _read_catalogue
from sid_pipeline.ingest.errors import InputError
from sid_pipeline.ingest.offers import read_offers
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.schemas import OFFERS, REJECTED_PRODUCTS
from sid_pipeline.settings import OfferColumnMap, SourceSettings, load_settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def test_offers(spark: SparkSession, tmp_path: Path) -> None:
    location = tmp_path / "offers.csv"
    location.write_text(
        "product_id,shop,available,popularity\n"
        "p1,north,yes,12\n"
        "p1,south,,\n"
        " p1 ,north,no,3\n"
        "p9,north,yes,1\n"
        "p2,,yes,1\n"
        "p2,north,perhaps,many\n"
        "p2,south,0,1.5\n"
        ",north,1,1\n"
        "p2,north\n",
        encoding="utf-8",
    )
    products = spark.createDataFrame([("p1",), ("p2",)], "product_id string")
    settings = SourceSettings(products="x", offer_columns=OfferColumnMap(retailer_id="shop"))
    result = read_offers(spark, settings, str(location), tmp_path / "spool", products)
    accepted, rejected = result.accepted.collect(), {r.source_row: r for r in result.rejected.collect()}
    assert result.accepted.columns == OFFERS.column_names[1:]
    assert result.rejected.columns == REJECTED_PRODUCTS.column_names[1:]
    assert sorted(tuple(row) for row in accepted) == [
        ("p1", "north", True, 12.0),
        ("p1", "south", True, 0.0),
        ("p2", "north", True, 0.0),
        ("p2", "south", False, 1.5),
    ]
    assert {row: r.rule for row, r in rejected.items()} == {
        3: "duplicate_offer",
        4: "unknown_product",
        5: "missing_retailer_id",
        8: "missing_product_id",
        9: "wrong_number_of_fields",
    }
    assert "'p1, north' was already given by row 1 of offers.csv" in rejected[3].message
    assert "no accepted product has this product_id" in rejected[4].message
    assert sorted((r.source_row, r.column, r.value) for r in result.ignored.collect()) == [
        (6, "available", "perhaps"),
        (6, "popularity", "many"),
    ]
    assert result.source_rows == len(accepted) + len(rejected) == 9


def test_missing_retailer_column_names_the_setting(spark: SparkSession, tmp_path: Path) -> None:
    location = tmp_path / "offers.csv"
    location.write_text("product_id,store_id\np1,north\n", encoding="utf-8")
    products = spark.createDataFrame([("p1",)], "product_id string")
    with pytest.raises(InputError, match=r'\[source.offer_columns\] retailer_id = "store_id"'):
        read_offers(spark, SourceSettings(products="x"), str(location), tmp_path / "spool", products)


def test_offers_of_which_not_one_can_be_used_fail_the_night(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("product_id,title\np1,Tea\np2,Jam\n,Nothing\n")
    offers = tmp_path / "o.csv"
    offers.write_text("product_id,retailer_id\n1,north\n2,north\n")
    (tmp_path / "sid.toml").write_text("[source]\nproducts = 'p.csv'\noffers = 'o.csv'\nmax_rejected_share = 0.5\n")
    warehouse = Warehouse(load_settings(tmp_path / "sid.toml", env={}))
    with pytest.raises(InputError, match=r"No rows left: all 2 rows of .*o\.csv were rejected \(unknown_product 2\)"):
        _read_catalogue(warehouse, "2026-01-05")
    offers.write_text("product_id,retailer_id\n1,north\np1,north\n")
    made = _read_catalogue(warehouse, "2026-01-05")
    assert made["offers"].metadata["dagster/row_count"] == 1 and made["products"].metadata["dagster/row_count"] == 2
