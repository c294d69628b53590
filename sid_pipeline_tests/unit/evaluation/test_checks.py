from __future__ import annotations

import json

import pytest

from sid_pipeline.evaluation import checks
from sid_pipeline.keys import MAX_TOKENS


def test_not_worse_than_knows_each_figures_direction():
    live = {"share90_l1": 0.98, "rel_mse": 0.10, "items": 5.0}
    tolerances = {"share90_l1": 0.02, "rel_mse": 0.02}
    assert checks.not_worse_than(live, live, tolerances).passed
    assert checks.not_worse_than(live, {"share90_l1": 0.96, "rel_mse": 0.05}, tolerances).passed
    check = checks.not_worse_than(live, {"share90_l1": 0.99, "rel_mse": 0.15}, tolerances)
    assert not check.passed
    assert check.figures["worse"] == ["rel_mse"]
    assert "rel_mse 0.150 against 0.100 (tolerance 0.020)" in check.sentence
    assert checks.not_worse_than(live, {"share90_l1": 0.99, "rel_mse": 0.15}, {"rel_mse": 0.1}).passed


def test_a_share_over_a_handful_of_pairs_is_not_judged_and_is_named():
    live = {"share90_l1": 1.0, "collision_rate": 0.1, "pairs90": 12.0, "usage_l4": 0.9}
    tolerances = {"share90_l1": 0.05, "collision_rate": 0.05, "usage_l4": 0.05}
    check = checks.not_worse_than(live, {"share90_l1": 0.5, "collision_rate": 0.1, "pairs90": 12.0}, tolerances)
    assert check.passed and "Not judged, for want of figures or pairs: share90_l1, usage_l4." in check.sentence
    many = {**live, "pairs90": 500.0}
    assert not checks.not_worse_than(many, {**many, "share90_l1": 0.5}, tolerances).passed


def test_every_level_that_a_table_has_is_judged():
    tolerances = {f"usage_l{level}": 0.05 for level in range(1, MAX_TOKENS + 1)}
    live = {f"usage_l{level}": 0.9 for level in range(1, 7)}
    assert checks.not_worse_than(live, live, tolerances).figures["skipped"] == []
    assert checks.not_worse_than(live, {**live, "usage_l6": 0.8}, tolerances).figures["worse"] == ["usage_l6"]


def test_nothing_compared_is_no_pass():
    check = checks.not_worse_than({"items": 1.0}, {"items": 1.0}, {"rel_mse": 0.1})
    assert not check.passed
    assert "nothing was compared" in check.sentence


@pytest.mark.parametrize(
    ("live", "new", "passed"),
    [(1000, 951, True), (1000, 950, True), (1000, 949, False), (1000, 0, False), (1000, 3000, True), (0, 0, True)],
)
def test_products_may_be_missing_up_to_the_share(live, new, passed):
    check = checks.are_there("active products", live, new, 0.05)
    assert check.passed is passed and f"{new:,} active products against {live:,}" in check.sentence
    json.dumps(check.figures, allow_nan=False)


def test_missing_products_are_told_with_their_share():
    check = checks.are_there("active products", 5437, 4794, 0.05)
    assert check.sentence.endswith("5,437 of what is live: 643 fewer, which is 11.8%, allowed 5.0%.")
    assert "which is 5.004%, allowed 5.000%" in checks.are_there("active products", 100_000, 94_996, 0.05).sentence
    assert checks.are_there("active products", 100, 71, 0.29).passed, "29 of 100, whatever rounding does"
    assert checks.are_there("active products", 100, 0, 1.0).passed


def test_figures_are_json():
    check = checks.not_worse_than({"rel_mse": 0.1}, {"rel_mse": 0.1}, {"rel_mse": 0.0})
    json.dumps(check.figures, allow_nan=False)
