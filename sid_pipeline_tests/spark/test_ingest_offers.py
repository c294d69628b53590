"""Offers: what is accepted, and what each rejected row did wrong."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sid_pipeline.ingest.errors import InputError
from sid_pipeline.ingest.offers import read_offers
from sid_pipeline.schemas import OFFERS, REJECTED_PRODUCTS
from sid_pipeline.settings import OfferColumnMap, SourceSettings

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
