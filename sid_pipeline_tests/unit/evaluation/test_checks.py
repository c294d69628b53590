from __future__ import annotations

import json

import numpy as np
import pytest

from sid_pipeline.evaluation import checks


def test_every_active_product_has_one_sid():
    check = checks.every_active_product_has_one_sid(["a", "b"], ["b", "a"])
    assert check.passed
    assert check.sentence == "2 active products: each has exactly one SID."
    check = checks.every_active_product_has_one_sid(["a", "b", "c", "d"], ["a", "a", "c", "x"])
    assert not check.passed
    assert check.figures["missing"] == 2
    assert check.figures["missing_share"] == 0.5
    assert "2 without a SID (first: b, d); 1 with several (first: a)" in check.sentence
    assert "1 with a SID but not in the snapshot (first: x)" in check.sentence


def test_a_set_share_may_lack_a_sid_but_none_may_have_two():
    assert checks.every_active_product_has_one_sid("abcd", "abc", max_missing_share=0.25).passed
    assert not checks.every_active_product_has_one_sid("abcd", "abcc", max_missing_share=0.25).passed


def test_codes_in_range_names_the_first_bad_product():
    good = np.array([[0, 511], [3, 4]])
    assert checks.codes_in_range(good, 512).passed
    check = checks.codes_in_range(np.array([[0, 1], [512, 0], [0, -1]]), 512, ["p", "q", "r"])
    assert not check.passed
    assert check.figures["out_of_range"] == 2
    assert "product q with 512_0" in check.sentence


@pytest.mark.parametrize(
    ("ids", "expected", "passed", "words"),
    [
        (["h1", "h1"], None, True, "codebook h1"),
        (["h1", "h1"], "h1", True, "codebook h1"),
        (["h1", "h2"], "h1", False, "2 codebooks (h1, h2)"),
        (["h2"], "h1", False, "codebook h2; the release's is h1"),
        ([], None, False, "no rows"),
    ],
)
def test_one_codebook(ids, expected, passed, words):
    check = checks.one_codebook(ids, expected)
    assert check.passed is passed
    assert words in check.sentence


def test_usage_not_collapsed():
    codes = np.stack([np.arange(8), np.zeros(8, int)], axis=1)
    check = checks.usage_not_collapsed(codes, 8, minimum=0.5)
    assert not check.passed
    assert check.figures["usage"] == [1.0, 0.125]
    assert "too low: L2" in check.sentence
    # Eight products cannot use more than eight of 512 codes.
    assert checks.usage_not_collapsed(codes[:, :1], 512).passed
    assert not checks.usage_not_collapsed(np.zeros((0, 4), int), 512).passed


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
    live = {"share90_l1": 1.0, "collision_rate": 0.1, "pairs90": 12.0}
    tolerances = {"share90_l1": 0.05, "collision_rate": 0.05, "usage_l4": 0.05}
    check = checks.not_worse_than(live, {**live, "share90_l1": 0.5}, tolerances)
    assert check.passed and "Not judged, for want of figures or pairs: share90_l1, usage_l4." in check.sentence
    many = {**live, "pairs90": 500.0}
    assert not checks.not_worse_than(many, {**many, "share90_l1": 0.5}, tolerances).passed


def test_nothing_compared_is_no_pass():
    check = checks.not_worse_than({"items": 1.0}, {"items": 1.0}, {"rel_mse": 0.1})
    assert not check.passed
    assert "nothing was compared" in check.sentence


def test_figures_are_json():
    codes = np.zeros((3, 4), np.int32)
    for check in (
        checks.every_active_product_has_one_sid(["a"], ["a"]),
        checks.codes_in_range(codes, 512),
        checks.one_codebook(["h"]),
        checks.usage_not_collapsed(codes, 512),
        checks.not_worse_than({"rel_mse": 0.1}, {"rel_mse": 0.1}, {"rel_mse": 0.0}),
    ):
        json.dumps(check.figures, allow_nan=False)
