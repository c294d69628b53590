"""What text and values mean: folded text, numbers, yes and no, category paths, and typed values as text.

Spark expressions, and the same in plain Python where a table is read without Spark. What does not belong here: which
row is good.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sid_pipeline.ingest.records import LIST_SEPARATOR

if TYPE_CHECKING:
    from pyspark.sql import Column

# Java's \s is ASCII only; \p{Z} adds no-break and other Unicode spaces, line and paragraph separators.
SPACE = r"[\s\x{85}\p{Z}]"
# Control characters that are no white space, and invisible marks that break words (soft hyphen, zero width
# space, word joiner, byte-order mark, direction overrides). The joiners stay: emoji and several scripts need
# them.
INVISIBLE = r"[\p{Cc}&&[^\t\n\x{0B}\f\r\x{85}]]|[\x{AD}\x{200B}\x{2060}\x{FEFF}\x{202A}-\x{202E}\x{2066}-\x{2069}]"
# The same for Python, whose expressions know no such classes: a control character that is no white space.
_INVISIBLE = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u200b\u2060\ufeff\u202a-\u202e\u2066-\u2069]")
# One quick look spares clean text, which is most, the replacements.
NEEDS_FOLDING = r"[\p{Cc}\p{Cf}&&[^\x{200C}\x{200D}]]|[\p{Z}&&[^ ]]|  |^ | $|^$"
# The same white space as `SPACE`, character by character: trimming by a set is several times faster.
SPACES = "\t\n\x0b\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
YES = ("true", "t", "yes", "y", "1", "1.0", "in stock", "in_stock", "available")
LONGEST_NUMBER = 100  # characters
# Larger whole numbers are not exact in floating point, so a float id beyond this keeps its own spelling.
EXACT_FLOAT = 2**53
NO = ("false", "f", "no", "n", "0", "0.0", "out of stock", "out_of_stock", "unavailable")


def float_text(column: Column) -> Column:
    """A column of floats as text. Ids that had a null among them come as floats: 12.0 is the id 12, NaN is null."""
    from pyspark.sql import functions as F

    whole = (column == F.floor(column)) & (F.abs(column) < EXACT_FLOAT)
    text = F.when(whole, column.cast("bigint").cast("string")).otherwise(column.cast("string"))
    return F.when(~F.isnan(column), text)


def value_text(value: Any) -> str | None:
    """A value of a typed table as text, as `float_text` has floats; a list is marked by `LIST_SEPARATOR`."""
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return str(int(value)) if value.is_integer() and abs(value) < EXACT_FLOAT else str(value)
    if isinstance(value, list):
        return LIST_SEPARATOR + LIST_SEPARATOR.join(str(part) for part in value if part is not None)
    return None if value is None else str(value)


def trimmed(text: Column) -> Column:
    """Text without white space around it; null when nothing is left."""
    from pyspark.sql import functions as F

    return F.nullif(F.btrim(text, F.lit(SPACES)), F.lit(""))


def folded(text: Column) -> Column:
    """Text without control and invisible characters, each run of white space one space; null when blank."""
    from pyspark.sql import functions as F

    plain = F.regexp_replace(F.regexp_replace(text, INVISIBLE, ""), rf"{SPACE}+", " ")
    return F.when(text.rlike(NEEDS_FOLDING), F.nullif(F.trim(plain), F.lit(""))).otherwise(text)


def number(text: Column) -> Column:
    """A double from text such as 12.5, 12,50, 1,234.50, 1.234,50 or a price with a currency mark; else null.

    Where one kind of mark could be either, three digits after a comma are thousands (1,234) and anything else
    is a decimal; a point alone is always decimal. Infinity, NaN and anything longer than a number ever is are null.
    """
    from pyspark.sql import functions as F

    def read(bare: Column) -> Column:
        without_points = F.regexp_replace(bare, r"\.", "")
        return (
            F.when(bare.rlike(r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"), bare)
            .when(bare.rlike(r"^[+-]?\d{1,3}(,\d{3})+(\.\d+)?$"), F.regexp_replace(bare, ",", ""))
            .when(bare.rlike(r"^[+-]?(\d+|\d{1,3}(\.\d{3})+),\d+$"), F.regexp_replace(without_points, ",", "."))
        )

    currency = rf"^(?:[A-Za-z]{{1,3}}\.?|\p{{Sc}}|{SPACE})+|(?:[A-Za-z]{{3}}|\p{{Sc}}|{SPACE})+$"
    # Java's regular expressions call themselves for each turn of a repeated alternative: some thousand characters would
    # overflow the stack, which ends the JVM and with it the night.
    short = _bound(trimmed(text), lambda x: F.when(F.length(x) <= LONGEST_NUMBER, x))
    value = _bound(F.regexp_replace(short, currency, ""), read).try_cast("double")
    return _bound(value, lambda x: F.when(F.abs(x) < float("inf"), x))


def yes_or_no(text: Column) -> Column:
    """A boolean from true/false, yes/no, y/n, t/f, 1/0 (1.0/0.0), in stock/out of stock; else null."""
    from pyspark.sql import functions as F

    word = F.lower(trimmed(text))
    return F.when(word.isin(*YES), F.lit(True)).when(word.isin(*NO), F.lit(False))


def category_path(parts: Sequence[Column], separator: str, missing: Sequence[str]) -> Column:
    """array<string> of a category's steps from the root; null when there is none.

    Args:
        parts: one column with a path (steps joined by `separator`, or by `LIST_SEPARATOR` if they came as a
            list), or one column per level.
        separator: between the steps; blank steps are dropped.
        missing: values that mean "no category", compared without case; the path ends before the first of
            them and, with one column per level, before the first blank level.
    """
    from pyspark.sql import functions as F

    nothing = [word.strip().lower() for word in missing if word.strip()]
    if len(parts) == 1:
        by_separator = F.split(parts[0], re.escape(separator))
        came_as_list = F.contains(parts[0], F.lit(LIST_SEPARATOR))
        steps = F.when(came_as_list, F.split(parts[0], LIST_SEPARATOR)).otherwise(by_separator)
        steps = F.filter(F.transform(steps, folded), lambda step: step.isNotNull())
    else:
        steps = F.array(*(folded(part) for part in parts))

    def cut(steps: Column) -> Column:
        ends_here = F.transform(steps, lambda step: step.isNull() | F.lower(step).isin(*nothing))
        length = F.array_position(ends_here, True).cast("int") - 1
        return _bound(length, lambda n: F.when(n < 0, steps).when(n > 0, F.slice(steps, 1, n)))

    return _bound(_bound(steps, cut), lambda path: F.when(F.size(path) > 0, path))


def category_steps(parts: Sequence[str | None], separator: str, missing: Sequence[str]) -> tuple[str, ...] | None:
    """`category_path` of one row's values, in plain Python."""
    nothing = {word.strip().lower() for word in missing if word.strip()}
    if len(parts) == 1:
        came_as_list = LIST_SEPARATOR in (parts[0] or "")
        given = (parts[0] or "").split(LIST_SEPARATOR if came_as_list else separator)
        steps = [step for step in map(_folded, given) if step]
    else:
        steps = [_folded(part or "") for part in parts]
    ends = (place for place, step in enumerate(steps) if not step or step.lower() in nothing)
    return tuple(steps[: next(ends, len(steps))]) or None


def _folded(text: str) -> str:
    """`folded` of one text, blank where nothing is left."""
    return " ".join(_INVISIBLE.sub("", text).split())


def _bound(value: Column, use: Callable[[Column], Column]) -> Column:
    """`use(value)` with the value computed once; written as an expression it would be repeated per use."""
    from pyspark.sql import functions as F

    return F.element_at(F.transform(F.array(value), use), 1)
