"""Cleaning many texts in Spark: Arrow batches of product texts to Arrow batches of cleaned attributes.

The cleaner travels to the workers; which texts still need cleaning is the caller's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from sid_pipeline.cleaning.cleaner import Cleaner
from sid_pipeline.cleaning.model import Cleaning, ProductText
from sid_pipeline.schemas import CLEANED_ATTRIBUTES

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

TEXT_COLUMNS = ("text_hash", "title", "brand", "size", "description")
SLICE = ("cleaner_id",)


def clean(texts: DataFrame, cleaner: Cleaner) -> DataFrame:
    """Clean distinct texts.

    Args:
        texts: with TEXT_COLUMNS, each text_hash once.
        cleaner: shipped to the workers.

    Returns:
        Columns of CLEANED_ATTRIBUTES without cleaner_id.
    """
    return texts.select(*TEXT_COLUMNS).mapInArrow(clean_batches(cleaner), CLEANED_ATTRIBUTES.ddl(without=SLICE))


def clean_batches(cleaner: Cleaner) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """The function that runs in the workers."""
    schema = CLEANED_ATTRIBUTES.arrow(without=SLICE)

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            columns = batch.select(list(TEXT_COLUMNS)).to_pydict()
            hashes = columns.pop("text_hash")
            texts = [ProductText(*row) for row in zip(*columns.values(), strict=True)]
            rows = [_row(h, cleaning) for h, cleaning in zip(hashes, cleaner.clean(texts), strict=True)]
            yield pa.RecordBatch.from_pylist(rows, schema=schema)

    return run


def _row(text_hash: str, cleaning: Cleaning) -> dict[str, object]:
    found = cleaning.attributes
    return {
        "text_hash": text_hash,
        "product_type": found.product_type,
        "brand": found.brand,
        "key_ingredients": list(found.key_ingredients),
        "dietary_tags": list(found.dietary_tags),
        "tags": list(found.tags),
        "format": found.format,
        "audience": found.audience,
        "size": str(found.size) if found.size else None,
        "confidence": cleaning.confidence,
        "source": cleaning.source,
        "unsupported": [f"{u.field}: {u.value} ({u.reason})" for u in cleaning.unsupported],
    }
