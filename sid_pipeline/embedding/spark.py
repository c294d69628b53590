"""What runs in Spark's workers: rendering the texts of a snapshot's products, and encoding texts with the model.

Every Python worker loads the model once and keeps it for all its batches. The weights must be where the workers can
reach them: a package installed there, a folder on a shared disk, or the Hugging Face hub.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from sid_pipeline.embedding.texts import render, template_fields, text_hash
from sid_pipeline.settings import EmbedderSettings

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from sid_pipeline.embedding.model import Embedder

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
    return products.select(*columns).mapInArrow(_render_batches(embedder.template, embedder.say_once), ddl)


def _render_batches(
    template: list[str], say_once: bool
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            rows = batch.to_pylist()
            texts = [render(template, row, say_once) or row["title"] for row in rows]
            yield pa.RecordBatch.from_arrays(
                [batch.column("product_id"), pa.array(texts), pa.array([text_hash(text) for text in texts])],
                schema=SCHEMA,
            )

    return run


def encoded_texts(texts: DataFrame, embedder: EmbedderSettings, root: Path) -> DataFrame:
    """Encode texts in the workers.

    Args:
        texts: text_hash and text, each hash once, in as many partitions as should work side by side.
        embedder, root: see `Embedder.load`.

    Returns:
        text_hash, vector, fault: EMBEDDINGS without its partition column.
    """
    from sid_pipeline.schemas import EMBEDDINGS

    ddl = EMBEDDINGS.ddl(without=("embedder_id",))
    written = embedder.model_dump_json()
    return texts.select("text_hash", "text").mapInArrow(_encode_batches(written, str(root)), ddl)


def _encode_batches(written: str, root: str) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from sid_pipeline.embedding.run import vector_table
        from sid_pipeline.embedding.vectors import binary, vector_faults

        embedder = _loaded(written, root)
        for batch in batches:
            vectors = embedder.encode(batch["text"].to_pylist())
            faults = vector_faults(vectors)
            yield from vector_table(batch["text_hash"], binary(vectors, faults), faults).to_batches()

    return run


@cache
def _loaded(written: str, root: str) -> Embedder:
    """The model of this worker process."""
    from sid_pipeline.embedding.model import Embedder

    return Embedder.load(EmbedderSettings.model_validate_json(written), Path(root))
