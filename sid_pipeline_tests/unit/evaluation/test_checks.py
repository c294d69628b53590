from __future__ import annotations

import json

from sid_pipeline.evaluation import checks


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
    check = checks.not_worse_than({"rel_mse": 0.1}, {"rel_mse": 0.1}, {"rel_mse": 0.0})
    json.dumps(check.figures, allow_nan=False)
