"""Spark expressions that read text as values: folded text, numbers, yes and no, category paths.

What does not belong here: which row is good.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sid_pipeline.ingest.records import LIST_SEPARATOR

if TYPE_CHECKING:
    from pyspark.sql import Column

# Java's \s is ASCII only; \p{Z} adds no-break and other Unicode spaces, line and paragraph separators.
SPACE = r"[\s\x{85}\p{Z}]"
# Control characters that are no white space, and invisible marks that break words (soft hyphen, zero width space,
# word joiner, byte-order mark, direction overrides). The joiners stay: emoji and several scripts need them.
INVISIBLE = (
    r"[\p{Cc}&&[^\t\n\x{0B}\f\r\x{85}]]|[\x{AD}\x{200B}\x{2060}\x{FEFF}\x{202A}-\x{202E}\x{2066}-\x{2069}]"
)
YES = ("true", "t", "yes", "y", "1", "in stock", "in_stock", "available")
NO = ("false", "f", "no", "n", "0", "out of stock", "out_of_stock", "unavailable")


def trimmed(text: Column) -> Column:
    """Text without white space around it; null when nothing is left."""
    from pyspark.sql import functions as F

    return F.nullif(F.regexp_replace(text, rf"^{SPACE}+|{SPACE}+$", ""), F.lit(""))


def folded(text: Column) -> Column:
    """Text without control and invisible characters, each run of white space one space; null when blank."""
    from pyspark.sql import functions as F

    return trimmed(F.regexp_replace(F.regexp_replace(text, INVISIBLE, ""), rf"{SPACE}+", " "))


def number(text: Column) -> Column:
    """A double from text such as 12.5, 12,50, 1,234.50, 1.234,50 or a price with a currency mark; else null.

    Where one kind of mark could be either, three digits after a comma are thousands (1,234) and anything else is a
    decimal; a point alone is always decimal. Infinity and NaN are null.
    """
    from pyspark.sql import functions as F

    bare = F.regexp_replace(
        text, rf"^(?:[A-Za-z]{{1,3}}\.?|\p{{Sc}}|{SPACE})+|(?:[A-Za-z]{{3}}|\p{{Sc}}|{SPACE})+$", ""
    )
    point = F.when(bare.rlike(r"^[+-]?\d{1,3}(,\d{3})+(\.\d+)?$"), F.regexp_replace(bare, ",", ""))
    comma = F.when(
        bare.rlike(r"^[+-]?(\d+|\d{1,3}(\.\d{3})+),\d+$"),
        F.regexp_replace(F.regexp_replace(bare, r"\.", ""), ",", "."),
    )
    plain = F.when(bare.rlike(r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"), bare)
    value = F.coalesce(plain, point, comma).try_cast("double")
    return F.when(F.abs(value) < float("inf"), value)


def yes_or_no(text: Column) -> Column:
    """A boolean from true/false, yes/no, y/n, t/f, 1/0, in stock/out of stock; else null."""
    from pyspark.sql import functions as F

    word = F.lower(trimmed(text))
    return F.when(word.isin(*YES), F.lit(True)).when(word.isin(*NO), F.lit(False))


def category_path(parts: Sequence[Column], separator: str, missing: Sequence[str]) -> Column:
    """array<string> of a category's steps from the root; null when there is none.

    Args:
        parts: one column with a path (steps joined by `separator`, or by `LIST_SEPARATOR` if they came as a list),
            or one column per level.
        separator: between the steps; blank steps are dropped.
        missing: values that mean "no category", compared without case; the path ends before the first of them,
            and, with one column per level, before the first blank level.
    """
    from pyspark.sql import functions as F

    if len(parts) == 1:
        by_separator = F.split(parts[0], re.escape(separator))
        steps = F.when(F.contains(parts[0], F.lit(LIST_SEPARATOR)), F.split(parts[0], LIST_SEPARATOR))
        steps = F.filter(F.transform(steps.otherwise(by_separator), folded), lambda step: step.isNotNull())
    else:
        steps = F.array(*(folded(part) for part in parts))
    nothing = [word.strip().lower() for word in missing if word.strip()]
    ends = F.transform(steps, lambda step: step.isNull() | F.lower(step).isin(*nothing))
    end = F.array_position(ends, True)
    path = F.when(end == 0, steps).otherwise(F.slice(steps, 1, F.greatest(end - 1, F.lit(0)).cast("int")))
    return F.when(F.size(path) > 0, path)
