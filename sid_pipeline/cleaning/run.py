"""Cleaning many texts in Spark: Arrow batches of product texts to Arrow batches of cleaned attributes.

The cleaner travels to the workers; which texts still need cleaning is the caller's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from sid_pipeline.cleaning.model import Cleaning, ProductText
from sid_pipeline.cleaning.rules import RulesCleaner
from sid_pipeline.cleaning.schema import FieldSpec, Schema, row_of
from sid_pipeline.schemas import cleaned_table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

TEXT_COLUMNS = ("text_hash", "title", "brand", "size", "description")
SLICE = ("cleaner_id",)


def clean(texts: DataFrame, cleaner: RulesCleaner, schema: Schema) -> DataFrame:
    """Clean distinct texts.

    Args:
        texts: with TEXT_COLUMNS, each text_hash once.
        cleaner: shipped to the workers.
        schema: of the table; fields that the cleaner does not know stay empty.

    Returns:
        Columns of the schema's table without cleaner_id.
    """
    table = cleaned_table(schema)
    run = clean_batches(cleaner, schema.fields, table.arrow(without=SLICE))
    return texts.select(*TEXT_COLUMNS).mapInArrow(run, table.ddl(without=SLICE))


def clean_batches(
    cleaner: RulesCleaner, fields: tuple[FieldSpec, ...], columns: pa.Schema
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """The function that runs in the workers; it carries the fields, not a user's class, which they may lack."""

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            values = batch.select(list(TEXT_COLUMNS)).to_pydict()
            hashes = values.pop("text_hash")
            texts = [ProductText(*row) for row in zip(*values.values(), strict=True)]
            cleanings = zip(hashes, cleaner.clean(texts), strict=True)
            rows = [cleaned_row(text_hash, cleaning, fields) for text_hash, cleaning in cleanings]
            yield pa.RecordBatch.from_pylist(rows, schema=columns)

    return run


def cleaned_row(text_hash: str, cleaning: Cleaning, fields: tuple[FieldSpec, ...]) -> dict[str, object]:
    """A row of the cleaned table, without its cleaner_id."""
    return {
        "text_hash": text_hash,
        **row_of(cleaning.attributes, fields),
        "confidence": cleaning.confidence,
        "source": cleaning.source,
        "unsupported": [str(value) for value in cleaning.unsupported],
    }
