"""A night's offers: which retailer sells a product, and how popular it is there.

What belongs here: the rules about offers. What does not: reading files (`readers.py`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sid_pipeline.ingest.columns import offer_fields
from sid_pipeline.ingest.judging import Ingested, Rule, id_rules, ignored_value, judge, settle, slot
from sid_pipeline.ingest.readers import read_raw
from sid_pipeline.ingest.text import number, trimmed, yes_or_no
from sid_pipeline.schemas import OFFERS
from sid_pipeline.settings import SourceSettings

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def read_offers(
    spark: SparkSession, source: SourceSettings, location: str, spool: Path, product_ids: DataFrame
) -> Ingested:
    """Read and judge the offers at `location`.

    A row is rejected for, in this order: bytes that are no text, no product_id or retailer_id or a control
    character in it, a product that is not among `product_ids`, an earlier accepted offer of the same product
    and retailer. A blank `available` is true and a blank `popularity` 0, as where the source has no such
    column; so are values that cannot be read, which are listed in `ignored` for the asset to show.

    Args:
        spool: a folder for CSV and JSON Lines on their way to Spark; it must outlive the frames.
        product_ids: the accepted products; its column `product_id` is used.

    Raises:
        InputError: the source as a whole cannot be used.
    """
    raw = read_raw(spark, source, location, offer_fields(source.offer_columns), spool, "offers")
    judged = judged_offers(raw.frame, product_ids)
    return settle(spark, raw, judged, OFFERS, ignorable=("available", "popularity"))


def judged_offers(raw: DataFrame, product_ids: DataFrame) -> DataFrame:
    """Every row of a raw frame as OFFERS has it, without `snapshot`, with `rule`, `message` and `raw`."""
    from pyspark.sql import functions as F

    available, popularity = slot(raw, "available"), slot(raw, "popularity")
    known = product_ids.select("product_id").distinct().withColumn("known", F.lit(True))
    rules = (
        *id_rules("product_id"),
        *id_rules("retailer_id"),
        Rule(
            "unknown_product",
            F.col("known").isNull(),
            F.lit("no accepted product has this product_id: add or mend the product, or remove the offer."),
        ),
    )
    rows = raw.select(
        trimmed(F.col("product_id")).alias("product_id"),
        trimmed(F.col("retailer_id")).alias("retailer_id"),
        F.coalesce(yes_or_no(available), F.lit(True)).alias("available"),
        F.coalesce(number(popularity), F.lit(0.0)).alias("popularity"),
        "source_file",
        "source_row",
        "raw",
        "bad_text",
        ignored_value("available", available, yes_or_no(available), "is neither yes nor no"),
        ignored_value("popularity", popularity, number(popularity), "is no number"),
    )
    return rows.join(known, "product_id", "left").transform(judge, rules)
