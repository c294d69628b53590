"""Mapping columns: what is missing, what was probably meant, and which setting to change."""

from __future__ import annotations

import pytest

from sid_pipeline.ingest.columns import offer_fields, product_fields, resolve
from sid_pipeline.ingest.errors import InputError
from sid_pipeline.ingest.rejections import check_rejections
from sid_pipeline.settings import ColumnMap, OfferColumnMap

PLACEHOLDER = "THE COLUMN'S NAME"


def found(columns: ColumnMap, available: list[str]) -> dict[str, str]:
    return resolve(product_fields(columns), available, "p.csv", "source.columns")


def error(columns: ColumnMap, available: list[str]) -> str:
    with pytest.raises(InputError) as caught:
        found(columns, available)
    return str(caught.value)


def test_defaults_may_be_absent() -> None:
    assert found(ColumnMap(), ["title", "product_id", "brand"]) == {
        "product_id": "product_id",
        "title": "title",
        "brand": "brand",
    }


def test_one_column_per_level() -> None:
    columns = ColumnMap(title="name", category=["department", "aisle"])
    assert found(columns, ["product_id", "name", "aisle", "department"]) == {
        "product_id": "product_id",
        "title": "name",
        "category_0": "department",
        "category_1": "aisle",
    }


def test_an_empty_name_leaves_an_optional_field_out() -> None:
    columns = ColumnMap(brand="", size=None, category="")
    assert found(columns, ["product_id", "title", "size", "category"]) == {
        "product_id": "product_id",
        "title": "title",
    }


def test_missing_title_names_what_there_is_and_the_setting() -> None:
    message = error(ColumnMap(), ["product_id", "Product Name", "aisle"])
    assert message == (
        "p.csv has no column 'title' for the title. It has: 'product_id', 'Product Name', 'aisle'. Did you "
        "mean 'Product Name'? Set it in the settings: [source.columns] title = \"Product Name\"."
    )


@pytest.mark.parametrize(
    ("available", "near"),
    [(["titel", "x"], "titel"), (["TITLE", "x"], "TITLE"), (["name", "x"], "name"), (["x", "y"], None)],
)
def test_nearest_name(available: list[str], near: str | None) -> None:
    message = error(ColumnMap(), ["product_id", *available])
    assert (f"Did you mean {near!r}?" in message) == ("Did you mean" in message) == (near is not None)
    assert message.endswith(f'[source.columns] title = "{near or PLACEHOLDER}".')


def test_an_optional_column_mapped_by_name_must_exist() -> None:
    message = error(ColumnMap(brand="maker"), ["product_id", "title", "manufacturer"])
    assert "p.csv has no column 'maker' for the brand" in message
    assert '[source.columns] brand = "' in message
    assert 'brand = "" if there is none' in message


def test_a_missing_level_is_named_within_its_list() -> None:
    message = error(ColumnMap(category=["department", "aisle"]), ["product_id", "title", "Aisle", "department"])
    assert "no column 'aisle' for the category" in message
    assert '[source.columns] category = ["department", "Aisle"]' in message


def test_the_wrong_delimiter_is_recognised() -> None:
    assert 'set [source] delimiter = ";"' in error(ColumnMap(), ["product_id;title;brand"])
    assert 'set [source] delimiter = "\\t"' in error(ColumnMap(), ["product_id\ttitle"])


def test_a_needed_column_that_occurs_twice_is_an_error() -> None:
    assert "p.csv has the column 'title' more than once" in error(ColumnMap(), ["product_id", "title", "title"])
    assert found(ColumnMap(brand=None), ["product_id", "title", "brand", "brand"])


def test_offers_have_their_own_section() -> None:
    with pytest.raises(InputError, match=r'\[source.offer_columns\] retailer_id = "shop_id"'):
        resolve(offer_fields(OfferColumnMap()), ["product_id", "shop_id"], "o.csv", "source.offer_columns")


def test_rejected_share() -> None:
    assert check_rejections("p.csv", 100, {"blank_title": 3, "missing_product_id": 2}, 0.05) == 0.05
    assert check_rejections("p.csv", 100, {}, 0.0) == 0.0
    with pytest.raises(InputError) as caught:
        check_rejections("p.csv", 1000, {"blank_title": 1, "missing_product_id": 50}, 0.05)
    assert str(caught.value).startswith(
        "51 of 1,000 rows of p.csv were rejected (5.1%, allowed 5.0%): missing_product_id 50, blank_title 1."
    )
    with pytest.raises(InputError, match=r"No rows left: all 2 rows of p\.csv were rejected"):
        check_rejections("p.csv", 2, {"blank_title": 2}, 1.0)
