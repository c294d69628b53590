from __future__ import annotations

import numpy as np

from sid_pipeline.evaluation.names import NAMES_SCHEMA, _Catalogue, prefix_names
from sid_pipeline_tests.unit.evaluation.conftest import products


def rows(codes, ids, titles, categories=None, brands=None, **options) -> dict[str, dict]:
    return by_prefix(prefix_names(codes, products(ids, titles, categories, brands), **options))


def by_prefix(table) -> dict[str, dict]:
    assert table.schema == NAMES_SCHEMA
    return {row["prefix"]: row for row in table.to_pylist()}


def test_a_name_is_the_majoritys_path_and_the_distinguishing_words(catalogue):
    brands = ["Fernwood" if row % 2 else "Ayla" for row in range(60)]
    found = rows(catalogue.codes, catalogue.ids, catalogue.titles, catalogue.categories, brands)
    assert found["0"]["name"] == "food: number" or found["0"]["category"] == "food"
    assert found["0"]["products"] == 30
    assert found["0_1"]["category"] == "food > banana"
    # The word of the category itself is not said again, and "number" is everywhere.
    assert found["0_1"]["words"][0] == "banana"
    assert found["0_1"]["level"] == 2
    assert found["0_1"]["brands"] == ["Ayla", "Fernwood"]
    assert found["0_1"]["sample"] == ["p10", "p11", "p12", "p13", "p14"]
    assert list(found)[:3] == ["0", "1", "0_0"]


def test_words_come_by_class_based_tf_idf():
    codes = np.array([[0], [0], [1], [1]])
    titles = ["green tea", "green tea leaves", "green soap", "green soap bar"]
    found = rows(codes, list("abcd"), titles)
    # "green" is in every group and comes last; "leaves" stands in one title of two and does not count.
    assert found["0"]["words"] == ["tea", "green"]
    assert found["1"]["words"] == ["soap", "green"]
    assert found["0"]["name"] == "tea, green"


def test_commonest_brands_break_ties_by_name():
    brands = ["b", "a", "c", "c", ""]
    table = products(list("vwxyz"), ["tea"] * 5, brands=brands)
    assert _Catalogue.of(table).commonest_brands(np.zeros(5, int), 2).to_pylist() == [["c", "a"]]


def test_the_path_stops_where_no_majority_agrees():
    codes = np.zeros((5, 1), int)
    categories = [("food", "tea"), ("food", "jam"), ("food", "jam"), ("home",), None]
    found = rows(codes, list("abcde"), ["one"] * 5, categories)
    assert found["0"]["category"] == "food"


def test_a_prefix_without_category_and_words_still_has_a_name():
    found = rows(np.array([[3, 7]]), ["p"], ["7 % 12"])
    assert found["3_7"]["name"] == "7 % 12"
    assert found["3_7"]["words"] == []
    assert rows(np.array([[3, 7]]), ["p"], [""])["3_7"]["name"] == "3_7"


def test_row_order_changes_nothing(catalogue):
    order = np.random.default_rng(0).permutation(60)
    table = products(catalogue.ids, catalogue.titles, catalogue.categories)
    straight = prefix_names(catalogue.codes, table)
    shuffled = prefix_names(catalogue.codes[order], table.take(order))
    assert straight.equals(shuffled)


def test_levels_and_no_products():
    codes = np.array([[0, 1, 2]])
    assert list(rows(codes, ["p"], ["tea"], levels=2)) == ["0", "0_1"]
    assert prefix_names(np.zeros((0, 4), int), products([], [])).num_rows == 0


def test_a_name_stays_while_the_content_does_and_bends_only_when_it_is_no_longer_true():
    codes = np.array([[0], [0], [0], [1], [1]])
    titles = ["green tea mint", "green tea mint", "green tea leaves", "soap bar lemon", "soap bar lemon"]
    ids = list("abcde")
    before = prefix_names(codes, products(ids, titles), word_count=1)
    first = by_prefix(before)
    # Other prefixes fill up with the same words, which would reorder these.
    more = [*titles, *["green soap"] * 30]
    grown = (np.array([*codes.tolist(), *[[2]] * 30]), [*ids, *[f"x{row:02d}" for row in range(30)]], more)
    assert rows(*grown, word_count=1)["0"]["name"] != first["0"]["name"]
    kept = rows(*grown, word_count=1, previous=before)
    assert kept["0"] == first["0"] and kept["1"] == first["1"]
    # One product more of the same kind: the words are still among the best, so they stay.
    wider = rows(codes[[0, 0, 1, 2, 3, 4]], ["a0", *ids], ["green tea mint", *titles], word_count=1, previous=before)
    assert wider["0"]["words"] == first["0"]["words"] and wider["0"]["content"] != first["0"]["content"]
    # All its products are others: the name follows.
    other = rows(codes, ids, ["iron nail", "iron nail", "iron screw", *titles[3:]], word_count=1, previous=before)
    assert other["0"]["words"] == ["iron"]
