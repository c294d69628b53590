"""Reading back the cleaning that a snapshot uses: which cleaner's row stands for each of its texts.

What belongs here: the join of `snapshot_cleanings` to the content-addressed `cleaned_attributes`. What does not:
making either (`assets/cleaning.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.schemas import SNAPSHOT_CLEANINGS

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def cleanings_of(warehouse: Warehouse, snapshot: str) -> DataFrame:
    """The cleaning of every distinct text of a snapshot.

    Returns:
        One row a text_hash: the columns of the cleaned table, and from `snapshot_cleanings` fallback and reason.
    """
    from pyspark.sql import functions as F

    used = warehouse.tables.read(SNAPSHOT_CLEANINGS, snapshot=snapshot)
    cleaner_ids = [row["cleaner_id"] for row in used.select("cleaner_id").distinct().collect()]
    cleaned = warehouse.tables.read(warehouse.cleaned).where(F.col("cleaner_id").isin(cleaner_ids))
    return used.join(cleaned, ["cleaner_id", "text_hash"])


def cleaning_of(warehouse: Warehouse, snapshot: str, text_hash: str) -> dict[str, Any] | None:
    """The cleaning that one text of a snapshot uses, read without Spark; None where it has none."""
    import pyarrow.compute as pc

    mine = pc.field("text_hash") == text_hash
    used = warehouse.tables.arrow(SNAPSHOT_CLEANINGS, filters=mine, snapshot=snapshot).to_pylist()
    if not used:
        return None
    found = warehouse.tables.arrow(warehouse.cleaned, filters=mine, cleaner_id=used[0]["cleaner_id"]).to_pylist()
    return {**used[0], **found[0]} if found else None
