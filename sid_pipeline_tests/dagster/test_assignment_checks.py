"""The blocking checks of `semantic_ids`: which night they let through."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sid_pipeline.assets.assignment import _checks
from sid_pipeline.assignment.refresh import Inspection

WHOLE = Inspection(
    active=1000,
    withdrawn=3,
    assigned=1000,
    distinct=900,
    unexplained=0,
    bad_codes=0,
    out_of_distribution=2,
    mean_distance=0.5,
    used=[8, 8, 8, 8],
    changes={"new": 4},
    same_products=True,
    fingerprint="1003-00",
)


@pytest.mark.parametrize(
    ("changed", "allowed", "passed"),
    [
        ({}, 0.0, True),
        ({"assigned": 990}, 0.01, True),
        ({"assigned": 989}, 0.01, False),
        ({"assigned": 999, "unexplained": 1}, 0.5, False),
        ({"same_products": False}, 0.5, False),
        ({"active": 0, "assigned": 0}, 0.0, True),
    ],
)
def test_products_without_a_sid_block_the_night_above_the_set_share(changed, allowed, passed):
    each, in_range = _checks(replace(WHOLE, **changed), 8, allowed)
    assert each.name == "every_product_has_one_sid" and not each.warning
    assert each.passed is passed and in_range.passed
    assert f"allowed {allowed:.2%}" in each.sentence


def test_a_code_out_of_range_blocks_the_night():
    _, in_range = _checks(replace(WHOLE, bad_codes=1), 8, 0.01)
    assert not in_range.passed and in_range.sentence.startswith("1 rows have a code outside 0..7")
