"""The texts of a snapshot's products, rendered in Spark."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from sid_pipeline.embedding.texts import render, template_fields, text_hash
from sid_pipeline.settings import EmbedderSettings

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

SCHEMA = pa.schema([("product_id", pa.string()), ("text", pa.string()), ("text_hash", pa.string())])


def embedded_texts(products: DataFrame, embedder: EmbedderSettings) -> DataFrame:
    """Render the template for every product.

    Args:
        products: product_id and the fields of the embedder's kind of text; for cleaned text, products joined to
            their cleaned attributes.
        embedder: its template says what is embedded.

    Returns:
        product_id, text, text_hash. A product whose template has no value at all is embedded by its title.
    """
    fields = {name for part in embedder.template for name in template_fields(part)}
    columns = [column for column in products.columns if column in {"product_id", "title", *fields}]
    ddl = "product_id string, text string, text_hash string"
    return products.select(*columns).mapInArrow(_render_batches(embedder.template), ddl)


def _render_batches(template: list[str]) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            rows = batch.to_pylist()
            texts = [render(template, row) or row["title"] for row in rows]
            yield pa.RecordBatch.from_arrays(
                [batch.column("product_id"), pa.array(texts), pa.array([text_hash(text) for text in texts])],
                schema=SCHEMA,
            )

    return run
