"""What text and values mean, as far as plain Python reads them; the Spark expressions are tested in spark/."""

from __future__ import annotations

import math

import pytest

from sid_pipeline.ingest.text import NO, YES, category_steps, value_text


@pytest.mark.parametrize(
    ("value", "text"),
    [(12.0, "12"), (-3.0, "-3"), (0.5, "0.5"), (math.nan, None), (math.inf, "inf"), (2.0**60, "1.152921504606847e+18"),
     (7, "7"), ("7.0", "7.0"), (None, None), (True, "True"), (["a", None, "b"], "\x1fa\x1fb")],
)  # fmt: skip
def test_values_of_a_typed_table(value, text):
    assert value_text(value) == text


def test_numbers_that_say_yes_and_no_may_be_floats():
    assert {"1", "1.0"} <= set(YES) and {"0", "0.0"} <= set(NO)


@pytest.mark.parametrize(
    ("parts", "steps"),
    [
        # As test_ingest_text.py has them of Spark.
        (["Food > Dairy"], ("Food", "Dairy")),
        (["Food>"], ("Food",)),
        ([">>Food> >Milk"], ("Food", "Milk")),
        (["Food > Missing > Milk"], ("Food",)),
        ([" MISSING "], None),
        ([""], None),
        ([None], None),
        (["\x1fFood > Deli\x1f Dairy "], ("Food > Deli", "Dairy")),
        (["\x1f"], None),
        (["Fo\xadod \u200b> D\xa0 airy\x07"], ("Food", "D airy")),
        (["Food", "Dairy", "Milk"], ("Food", "Dairy", "Milk")),
        (["Food", " ", "Milk"], ("Food",)),
        (["Food", "Missing", "x"], ("Food",)),
        ([None, "Dairy", "Milk"], None),
    ],
)
def test_category_paths(parts, steps):
    assert category_steps(parts, ">", ["missing", ""]) == steps


def test_a_path_of_another_separator():
    assert category_steps(["a|missing"], "|", []) == ("a", "missing")
    assert category_steps(["a.b"], "|", []) == ("a.b",)
