from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from sid_pipeline.evaluation import codebook_diff
from sid_pipeline.evaluation.codebook_diff import CATEGORY_MOVED, DRIFTED, TEXT_CHANGED, reasons, token_map


def sids(codes: dict[str, list[int]]) -> pa.Table:
    """Codes by product as a table of SIDs, in falling order of the ids."""
    rows = sorted(codes.items(), reverse=True)
    spelt = ["_".join(map(str, row)) for _, row in rows]
    return pa.table(
        {"product_id": pa.array([key for key, _ in rows], pa.string()), "sid": pa.array(spelt, pa.string())}
    )


def diff(old, new, **options):
    return codebook_diff.diff(sids(old), sids(new), **options)


def test_counts_and_shares_by_hand():
    old = {"a": [0, 0], "b": [0, 1], "c": [1, 0], "d": [1, 1], "gone": [2, 2]}
    new = {"a": [0, 0], "b": [0, 2], "c": [3, 0], "d": [1, 1], "fresh": [2, 2]}
    found = diff(old, new, titles=lambda ids: {"b": "Tea | jam", "gone": "Soap"})
    assert [found[key] for key in ("old", "new", "common", "added", "withdrawn", "moved")] == [
        5,
        5,
        4,
        1,
        1,
        2,
    ]
    first, second = found["levels"]
    assert (first["kept_code"], first["kept_prefix"], first["first_changed_here"]) == (0.75, 0.75, 1)
    # c keeps its second code under another first one: the code is kept, the prefix is not.
    assert (second["kept_code"], second["kept_prefix"], second["first_changed_here"]) == (0.75, 0.5, 1)
    assert [row["product_id"] for row in found["moved_examples"]] == ["c", "b"]
    assert found["moved_examples"][1] == {
        "product_id": "b",
        "title": "Tea | jam",
        "old": "0_1",
        "new": "0_2",
        "first_changed_level": 2,
    }
    assert found["added_examples"] == [{"product_id": "fresh", "title": "", "sid": "2_2"}]
    assert found["withdrawn_examples"] == [{"product_id": "gone", "title": "Soap", "sid": "2_2"}]
    assert "Tea \\| jam" in found["markdown"]


def test_renumbered_codes_keep_their_grouping():
    old = {str(row): [row % 3] for row in range(30)}
    new = {str(row): [(row + 1) % 3] for row in range(30)}
    (level,) = diff(old, new)["levels"]
    assert level["kept_code"] == 0
    assert level["grouping_ami"] == pytest.approx(1)


@pytest.mark.parametrize(("old", "new", "added"), [({}, {"a": [1, 2]}, 1), ({}, {}, 0)])
def test_nothing_in_common(old, new, added):
    found = diff(old, new)
    assert (found["common"], found["added"], found["moved"]) == (0, added, 0)
    assert all(level["kept_prefix"] is None for level in found["levels"])
    assert "0 products in both" in found["markdown"]


def test_a_further_token_counts_for_what_moved_and_is_no_level():
    old = {"a": [0, 0, 0], "b": [0, 0, 1], "c": [1, 0, 0]}
    found = diff(old, {"a": [0, 0, 0], "b": [0, 0, 2], "c": [1, 1, 0]}, further=(True, True))
    assert found["moved"] == 2 and [row["kept_code"] for row in found["levels"]] == [1, pytest.approx(2 / 3)]
    assert [(row["product_id"], row["new"], row["first_changed_level"]) for row in found["moved_examples"]] == [
        ("c", "1_1_0", 2),
        ("b", "0_0_2", 3),
    ]
    assert diff(old, old, further=(True, True))["moved"] == 0
    shared = diff(old, {key: sid[:-1] for key, sid in old.items()}, further=(True, False))
    assert shared["moved"] == 3 and all(row["kept_prefix"] == 1 for row in shared["levels"])


def test_tables_of_different_depth_are_not_comparable_by_level():
    found = diff({"a": [1, 2], "b": [1, 1]}, {"a": [1, 2, 3]})
    assert (found["comparable"], found["levels"]) == (False, [])
    assert (found["common"], found["moved"], found["withdrawn"]) == (1, 1, 1)
    assert found["moved_examples"][0]["first_changed_level"] is None
    assert "Codes of 2 and of 3 levels: not comparable" in found["markdown"]
    assert not diff({"a": [1, 2, 0]}, {"a": [1, 2, 0]}, further=(True, False))["comparable"]
    assert diff({}, {"a": [1, 2]})["comparable"] and diff({}, {})["comparable"]


def test_a_table_of_several_depths_is_refused():
    with pytest.raises(ValueError, match="one table holds SIDs of 2 and 3 tokens"):
        diff({"a": [1, 2], "b": [1, 2, 3]}, {"a": [1, 2]})


def test_reasons_in_their_order():
    old = np.array([[0, 0], [0, 1], [1, 0], [1, 1], [2, 2]])
    new = np.array([[0, 0], [0, 2], [3, 0], [1, 2], [2, 0]])
    category, text = np.array([1, 1, 1, 0, 0], bool), np.array([1, 0, 1, 1, 0], bool)
    assert reasons(old, new, category, text).tolist() == ["", CATEGORY_MOVED, CATEGORY_MOVED, TEXT_CHANGED, DRIFTED]


def test_the_token_map_follows_most_products():
    old = np.array([[7, 0], [7, 0], [7, 1], [3, 1], [3, 0]])
    new = np.array([[5, 0], [5, 2], [3, 1], [3, 1], [4, 2]])
    rows = [tuple(row) for row in zip(*(column.tolist() for column in token_map(old, new).values()), strict=True)]
    # Of equals the lowest new code: 3 went to 3 and 4 alike.
    assert rows == [
        (1, 3, 3, 2, 0.5),
        (1, 7, 5, 3, pytest.approx(2 / 3)),
        (2, 0, 2, 3, pytest.approx(2 / 3)),
        (2, 1, 1, 2, 1.0),
    ]
