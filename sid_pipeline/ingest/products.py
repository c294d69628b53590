"""A night's products: which rows are accepted, and what each rejected one did wrong.

What belongs here: the rules about products, as transformations of the raw frame. What does not: reading files
(`readers.py`), and whether too many rows were rejected (`rejections.py`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sid_pipeline.ingest.columns import product_fields
from sid_pipeline.ingest.judging import Ingested, Rule, id_rules, ignored_value, judge, settle, slot
from sid_pipeline.ingest.readers import read_raw
from sid_pipeline.ingest.text import category_path, folded, number, trimmed
from sid_pipeline.schemas import PRODUCTS
from sid_pipeline.settings import SourceSettings

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

# What is cleaned and embedded, in the order in which it is hashed.
HASHED = ("title", "brand", "size", "description")


def read_products(spark: SparkSession, source: SourceSettings, location: str, spool: Path) -> Ingested:
    """Read and judge the products at `location`.

    A row is rejected for, in this order: bytes that are no text, no product_id, a control character in it, a
    blank title, a title above `max_title_chars`, a product_id that an earlier accepted row has. The
    product_id is only trimmed; the title is folded (see `text.folded`); brand, size and description are
    trimmed; text is in Unicode's NFC. A price that is no number is null and listed in `ignored`.

    Args:
        spool: a folder for CSV and JSON Lines on their way to Spark; it must outlive the frames.

    Raises:
        InputError: the source as a whole cannot be used.
    """
    raw = read_raw(spark, source, location, product_fields(source.columns), spool, "products")
    return settle(spark, raw, judged_products(raw.frame, source), PRODUCTS, ignorable=("price",))


def judged_products(raw: DataFrame, source: SourceSettings) -> DataFrame:
    """Every row of a raw frame as PRODUCTS has it, without `snapshot`, with `rule`, `message` and `raw`."""
    from pyspark.sql import functions as F

    levels = sorted((name for name in raw.columns if name.startswith("category_")), key=lambda n: int(n[9:]))
    parts = [F.col(name) for name in levels] or [slot(raw, "category")]
    length = F.length("title")
    rules = (
        *id_rules("product_id"),
        Rule(
            "blank_title",
            F.col("title").isNull(),
            F.lit("the title is missing or blank: give the product a name."),
        ),
        Rule(
            "title_too_long",
            length > source.max_title_chars,
            F.format_string(
                f"the title has %d characters, allowed are {source.max_title_chars}: shorten it, or raise "
                "[source] max_title_chars.",
                length,
            ),
        ),
    )
    return (
        raw.select(
            trimmed(F.col("product_id")).alias("product_id"),
            folded(F.col("title")).alias("title"),
            *(trimmed(slot(raw, name)).alias(name) for name in ("brand", "size", "description")),
            number(slot(raw, "price")).alias("price"),
            category_path(parts, source.columns.category_separator, source.columns.category_missing).alias("category"),
            "source_file",
            "source_row",
            "raw",
            "bad_text",
            ignored_value("price", slot(raw, "price"), number(slot(raw, "price")), "is no number"),
        )
        .transform(judge, rules)
        .withColumn("text_hash", F.sha2(F.concat_ws("\x1f", *(F.coalesce(name, F.lit("")) for name in HASHED)), 256))
    )
