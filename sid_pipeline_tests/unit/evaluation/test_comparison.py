from __future__ import annotations

import json

import numpy as np
import pytest

from sid_pipeline.evaluation.comparison import CodeTable, compare_flavours
from sid_pipeline_tests.unit.evaluation.conftest import products

CATEGORIES = [("food", "cheese"), ("food", "olive"), ("food", "cheese"), ("food", "olive")]
PRODUCTS = products(["a", "b", "c", "d"], ["brie", "olives", "cheddar", "tapenade"], CATEGORIES)
# One side groups by category, the other what goes together.
SUBSTITUTES = CodeTable("esci", PRODUCTS, np.array([[0, 0], [1, 0], [0, 0], [1, 1]]))
TOGETHER = CodeTable("esci_gemma", PRODUCTS, np.array([[0, 0], [0, 0], [1, 0], [1, 0]]))


def test_pairs_are_counted_by_hand():
    found = compare_flavours(SUBSTITUTES, TOGETHER)
    first, second = found["levels"]
    assert (first["both"], first["only_a"], first["only_b"], first["jaccard"]) == (0, 2, 2, 0)
    assert (second["both"], second["only_a"], second["only_b"]) == (0, 1, 2)
    assert (first["same_leaf_a"], first["same_leaf_b"]) == (1, 0)
    assert first["ami"] < 0


def test_examples_show_what_each_side_holds_together():
    found = compare_flavours(SUBSTITUTES, TOGETHER)
    by_side = {
        side["grouped_by"]: {
            tuple(product["text"] for product in pair["products"]): pair["shared_levels"] for pair in side["pairs"]
        }
        for side in found["examples"]
    }
    assert by_side["esci"] == {("brie", "cheddar"): 2, ("olives", "tapenade"): 1}
    assert by_side["esci_gemma"] == {("brie", "olives"): 2, ("cheddar", "tapenade"): 2}
    assert "Held together by esci\\_gemma only" in found["markdown"]
    json.dumps(found, allow_nan=False)


def test_equal_tables_agree_fully(catalogue):
    table = CodeTable("x", catalogue.products, catalogue.codes)
    found = compare_flavours(table, table)
    assert all(level["ami"] == pytest.approx(1) for level in found["levels"])
    assert all(level["jaccard"] == 1 for level in found["levels"])
    assert found["levels"][0]["same_leaf_a"] is None
    assert [side["pairs"] for side in found["examples"]] == [[], []]


def test_tables_are_matched_by_product_not_by_row(catalogue):
    a = CodeTable("a", catalogue.products, catalogue.codes)
    keep = np.arange(59, 9, -1)
    b = CodeTable("b", catalogue.products.take(keep), catalogue.codes[keep])
    found = compare_flavours(a, b)
    assert found["items"] == 50
    assert all(level["only_a"] == level["only_b"] == 0 for level in found["levels"])


def test_nothing_in_common_and_wrong_input(catalogue):
    other = CodeTable("other", products(["z"], ["z"], [None]), np.zeros((1, 2), int))
    found = compare_flavours(SUBSTITUTES, other)
    assert (found["items"], found["levels"]) == (0, [])
    with pytest.raises(ValueError, match="more than once"):
        compare_flavours(SUBSTITUTES, CodeTable("b", products(["a", "a"], ["", ""]), np.zeros((2, 2), int)))
    with pytest.raises(ValueError, match="esci has 2 levels and b 4"):
        compare_flavours(SUBSTITUTES, CodeTable("b", PRODUCTS, np.zeros((4, 4), int)))


def test_categories_that_only_one_flavour_puts_side_by_side():
    categories = [("dairy", "cheese")] * 6 + [("deli", "olives")] * 6 + [("dairy", "milk")] * 6
    ids = [f"p{row:02d}" for row in range(18)]
    apart = np.repeat([0, 1, 2], 6)[:, None]
    beside = np.repeat([0, 0, 2], 6)[:, None]
    table = products(ids, ids, categories)
    found = compare_flavours(CodeTable("precise", table, apart), CodeTable("broad", table, beside))
    precise, broad = found["categories"]
    assert precise["pairs"] == []
    assert broad["grouped_by"] == "broad" and broad["other"] == "precise"
    assert broad["pairs"] == [
        {"first": ["dairy", "cheese"], "second": ["deli", "olives"], "share": 1.0, "other_share": 0.0}
    ]
    assert "cheese" in found["markdown"]
