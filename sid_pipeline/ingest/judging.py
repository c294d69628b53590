"""From judged rows to accepted and rejected ones: what products and offers have in common.

What belongs here: applying rules in order, the rule that a key occurs once, and the bookkeeping by which no
row vanishes. What does not: the rules of one table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, NamedTuple

from sid_pipeline.ingest.readers import RawFrame
from sid_pipeline.ingest.text import trimmed
from sid_pipeline.schemas import REJECTED_PRODUCTS, SNAPSHOT, TableSpec

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

# Up to so many repeated keys are looked up in memory; more are joined.
REPEATS_IN_MEMORY = 100_000
REJECTED_COLUMNS = [name for name in REJECTED_PRODUCTS.column_names if name != SNAPSHOT.name]


@dataclass(frozen=True)
class Ingested:
    """What became of a source's rows. The frames are lazy; every data row is in `accepted` or in `rejected`.

    accepted: the columns of the table, without `snapshot`.
    rejected: the columns of rejected_products, without `snapshot`.
    ignored: values of accepted rows that could not be used and were left out: source_file, source_row,
        product_id, column, value, message.
    source_rows: data rows of the source.
    """

    accepted: DataFrame
    rejected: DataFrame
    ignored: DataFrame
    source_rows: int


class Rule(NamedTuple):
    """What makes a row bad; the first rule that holds names the row's fault."""

    name: str
    broken: Column
    message: Column


def slot(raw: DataFrame, name: str) -> Column:
    """A raw frame's column, or null text where the source has none."""
    from pyspark.sql import functions as F

    return F.col(name) if name in raw.columns else F.lit(None).cast("string")


def id_rules(name: str) -> tuple[Rule, Rule]:
    """An id must be there and hold no control character, which would break files and paths that carry it."""
    from pyspark.sql import functions as F

    return (
        Rule(
            f"missing_{name}",
            F.col(name).isNull(),
            F.lit(f"the {name} is missing or blank: give the row one."),
        ),
        Rule(
            f"control_character_in_{name}",
            F.col(name).rlike(r"\p{Cc}"),
            F.lit(f"the {name} holds a control character, perhaps a tab or a line break: remove it."),
        ),
    )


def ignored_value(name: str, given: Column, read: Column, fault: str) -> Column:
    """`ignored_NAME`: column, value and message where the given text is not blank and could not be read."""
    from pyspark.sql import functions as F

    message = f"the {name} {fault}: it was left out."
    unread = F.struct(F.lit(name).alias("column"), given.alias("value"), F.lit(message).alias("message"))
    return F.when(trimmed(given).isNotNull() & read.isNull(), unread).alias(f"ignored_{name}")


def judge(rows: DataFrame, rules: Sequence[Rule]) -> DataFrame:
    """Add `rule` and `message`, null for a row that breaks none; bytes that are no text come first."""
    from pyspark.sql import functions as F

    no_text = Rule(
        "bad_encoding",
        F.length("bad_text") > 0,
        F.concat(F.lit("not valid UTF-8 in: "), "bad_text", F.lit(". Write the text again as UTF-8.")),
    )
    faults = [
        F.when(rule.broken, F.struct(F.lit(rule.name).alias("rule"), rule.message.alias("message")))
        for rule in (no_text, *rules)
    ]
    return rows.withColumn("fault", F.coalesce(*faults)).select("*", "fault.rule", "fault.message").drop("fault")


def settle(
    spark: SparkSession, raw: RawFrame, judged: DataFrame, table: TableSpec, ignorable: Sequence[str]
) -> Ingested:
    """Split judged rows; of good rows with one key the first by (source_file, source_row) is accepted.

    Args:
        judged: the table's columns, source_file, source_row, raw, rule, message and `ignored_NAME` columns.
        ignorable: the NAMEs of the latter.
    """
    from pyspark.sql import functions as F

    good, bad = judged.where(F.col("rule").isNull()), judged.where(F.col("rule").isNotNull())
    repeats = _repeats(spark, good, table.key)
    rejected = [raw.unparsable.select(REJECTED_COLUMNS), bad.select(REJECTED_COLUMNS)]
    if repeats is not None:
        marked = good.join(repeats, list(table.key), "left")
        later = F.col("first_row").isNotNull() & (
            (F.col("source_file") != F.col("first_file")) | (F.col("source_row") != F.col("first_row"))
        )
        key = F.concat_ws(", ", *table.key)
        message = F.format_string(
            f"{', '.join(table.key)} '%s' was already given by row %d of %s: remove the repeat, or give it "
            "an id of its own.",
            key,
            "first_row",
            "first_file",
        )
        rule = F.lit(f"duplicate_{table.key[0]}" if len(table.key) == 1 else f"duplicate_{table.name.rstrip('s')}")
        again = marked.where(later).withColumn("rule", rule).withColumn("message", message)
        rejected.append(again.select(REJECTED_COLUMNS))
        good = marked.where(~later)
    listed = [
        good.where(F.col(f"ignored_{name}").isNotNull()).select(
            "source_file", "source_row", "product_id", f"ignored_{name}.*"
        )
        for name in ignorable
    ]
    columns = [name for name in table.column_names if name != SNAPSHOT.name]
    return Ingested(good.select(columns), _union(rejected), _union(listed), raw.rows)


def _union(frames: Sequence[DataFrame]) -> DataFrame:
    return reduce(lambda left, right: left.unionByName(right), frames)


def _repeats(spark: SparkSession, good: DataFrame, key: Sequence[str]) -> DataFrame | None:
    """Keys that occur more than once, with first_file and first_row; None where there are none.

    Finding them is one job over the keys alone, so that the wide rows need no shuffle.
    """
    from pyspark.sql import functions as F

    repeats = (
        good.groupBy(*key)
        .agg(F.min(F.struct("source_file", "source_row")).alias("first"), F.count(F.lit(1)).alias("times"))
        .where("times > 1")
        .select(*key, F.col("first.source_file").alias("first_file"), F.col("first.source_row").alias("first_row"))
    )
    found = repeats.limit(REPEATS_IN_MEMORY + 1).collect()
    if not found:
        return None
    return repeats if len(found) > REPEATS_IN_MEMORY else F.broadcast(spark.createDataFrame(found, repeats.schema))
