"""Expressions that read text as values, against values written by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sid_pipeline.ingest.text import category_path, folded, number, trimmed, yes_or_no

if TYPE_CHECKING:
    from pyspark.sql import Column, SparkSession

NUMBERS = {
    "12.5": 12.5,
    " 12 ": 12.0,
    "12,50": 12.5,
    "1,234": 1234.0,
    "1,23": 1.23,
    "1,234,567.5": 1234567.5,
    "1.234,50": 1234.5,
    "1.234": 1.234,
    "£3.42": 3.42,
    "€ 3,42": 3.42,
    "3,42\u00a0€": 3.42,
    "US$ 7": 7.0,
    "Rs. 120": 120.0,
    "120 EUR": 120.0,
    "-5": -5.0,
    ".5": 0.5,
    "1e3": 1000.0,
    "1e999": None,
    "NaN": None,
    "Infinity": None,
    "": None,
    "EUR": None,
    "3.00 - 4.00": None,
    "12kg": None,
    "1,2,3": None,
    "0x10": None,
    " " * 5000 + "12" + "\u00a0" * 5000: 12.0,
    # One such value must not overflow the JVM's stack.
    "a" * 5000: None,
    "£ " * 5000 + "1": None,
    "1" + ",234" * 5000: None,
    "9" * 5000: None,
}
YES_OR_NO = {
    "TRUE": True,
    " y ": True,
    "1": True,
    "in stock": True,
    "No": False,
    "0": False,
    "": None,
    "2": None,
}
FOLDED = {
    "  a \t b\r\nc\u00a0\u2003d ": "a b c d",
    "a\u0000b\u001fc\u200bd\ufeff": "abcd",
    "a \u0007 b": "a b",
    "👨\u200d👩\u200d👧 é": "👨\u200d👩\u200d👧 é",
    "\u202eabc": "abc",
    " \u200b\u00a0": None,
    "": None,
    "plain, text": "plain, text",
}
TRIMMED = {"\u00a0 a  b \n": "a  b", " ": None, "": None, "a": "a"}


def values(spark: SparkSession, column: Column, texts: list[str]) -> dict[str, object]:
    frame = spark.createDataFrame([(text,) for text in texts], "text string")
    return {row.text: row.value for row in frame.select("text", column.alias("value")).collect()}


def test_numbers_switches_and_text(spark: SparkSession) -> None:
    from pyspark.sql import functions as F

    text = F.col("text")
    assert values(spark, number(text), list(NUMBERS)) == NUMBERS
    assert values(spark, yes_or_no(text), list(YES_OR_NO)) == YES_OR_NO
    assert values(spark, folded(text), list(FOLDED)) == FOLDED
    assert values(spark, trimmed(text), list(TRIMMED)) == TRIMMED


def test_category_paths(spark: SparkSession) -> None:
    from pyspark.sql import functions as F

    paths = {
        "Food > Dairy": ["Food", "Dairy"],
        "Food>": ["Food"],
        ">>Food> >Milk": ["Food", "Milk"],
        "Food > Missing > Milk": ["Food"],
        " MISSING ": None,
        "": None,
        "\x1fFood > Deli\x1f Dairy ": ["Food > Deli", "Dairy"],
        "\x1f": None,
    }
    assert values(spark, category_path([F.col("text")], ">", ["missing", ""]), list(paths)) == paths
    assert values(spark, category_path([F.col("text")], "|", []), ["a|missing", "a.b"]) == {
        "a|missing": ["a", "missing"],
        "a.b": ["a.b"],
    }


def test_category_levels(spark: SparkSession) -> None:
    from pyspark.sql import functions as F

    rows = [
        ("Food", "Dairy", "Milk"),
        ("Food", " ", "Milk"),
        ("Food", "Missing", "x"),
        (None, "Dairy", "Milk"),
    ]
    frame = spark.createDataFrame([*rows, ("none", "a", "b")], "a string, b string, c string")
    path = category_path([F.col("a"), F.col("b"), F.col("c")], ">", ["missing", "None"])
    assert [row.path for row in frame.select(path.alias("path")).collect()] == [
        ["Food", "Dairy", "Milk"],
        ["Food"],
        ["Food"],
        None,
        None,
    ]
