"""Assigning a SID to every product of a snapshot with a frozen codebook.

`product_vectors` joins a snapshot's products to the vectors of a flavour; `assign` turns them into rows of
`SEMANTIC_IDS`. A product without a usable vector keeps a row with the reason and no SID, so that rows out equal
products in. The SID of a product depends on its vector and the codebook alone (see `rqvae.Codebook`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sid_pipeline.embedding.vectors import join, matrix
from sid_pipeline.rqvae import Codebook
from sid_pipeline.schemas import SEMANTIC_IDS

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

SLICE = ("flavour", "release")
STAMPS = (
    "codebook_id",
    "as_of_snapshot",
    "out_of_distribution",
    "change",
    "source_hash",
    "collision_policy",
    "withdrawn_on",
)
NO_TEXT = "no text of this product was embedded"


def product_vectors(products: DataFrame, embedded: Sequence[DataFrame], stores: Sequence[DataFrame]) -> DataFrame:
    """A snapshot's products with their vectors.

    Args:
        products: with product_id; every row is kept.
        embedded: per embedder its rows of EMBEDDED_PRODUCTS for the snapshot (product_id, text_hash).
        stores: per embedder its rows of EMBEDDINGS (text_hash, vector, fault).

    Returns:
        `products` with text_hash (several joined by '+'), vector_0, vector_1, ... and reason, null when all
        vectors are there.
    """
    from pyspark.sql import functions as F

    frame = products
    hashes, faults = [], []
    for i, (texts, store) in enumerate(zip(embedded, stores, strict=True)):
        vectors = texts.join(store, "text_hash", "left").select(
            "product_id",
            F.col("text_hash").alias(f"hash_{i}"),
            F.col("vector").alias(f"vector_{i}"),
            F.when(F.col("vector").isNull(), F.coalesce("fault", F.lit(NO_TEXT))).alias(f"fault_{i}"),
        )
        frame = frame.join(vectors, "product_id", "left")
        hashes.append(F.coalesce(f"hash_{i}", F.lit("")))
        faults.append(F.when(F.col(f"hash_{i}").isNull(), F.lit(NO_TEXT)).otherwise(F.col(f"fault_{i}")))
    keep = [*products.columns, *[f"vector_{i}" for i in range(len(stores))]]
    return frame.select(*keep, F.concat_ws("+", *hashes).alias("text_hash"), F.coalesce(*faults).alias("reason"))


def assign(frame: DataFrame, codebook: Codebook, weights: Sequence[float], as_of_snapshot: str) -> DataFrame:
    """SIDs of all rows of `product_vectors`: columns of SEMANTIC_IDS without flavour and release."""
    from pyspark.sql import functions as F

    columns = ["product_id", "text_hash", "reason", *[f"vector_{i}" for i in range(len(weights))]]
    return (
        frame.select(*columns)
        .mapInArrow(sid_batches(codebook, list(weights)), SEMANTIC_IDS.ddl(without=SLICE + STAMPS))
        .withColumn("codebook_id", F.lit(codebook.id))
        .withColumn("as_of_snapshot", F.lit(as_of_snapshot))
        .withColumn("out_of_distribution", F.lit(None).cast("boolean"))
        .withColumn("change", F.lit("new"))
        .withColumn("source_hash", F.lit(None).cast("string"))
        .withColumn("collision_policy", F.lit("share"))
        .withColumn("withdrawn_on", F.lit(None).cast("string"))
    )


def sid_batches(
    codebook: Codebook, weights: list[float]
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """The function that runs in the workers: Arrow batches of vectors to Arrow batches of SIDs."""
    schema = SEMANTIC_IDS.arrow(without=SLICE + STAMPS)

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            yield _assign_batch(batch, codebook, weights, schema)

    return run


def _assign_batch(batch: pa.RecordBatch, codebook: Codebook, weights: list[float], schema: pa.Schema) -> pa.RecordBatch:
    reason = batch.column("reason")
    usable = np.asarray(pc.is_null(reason))
    rows = np.flatnonzero(usable)
    # Where each row's result lies among the usable ones; null for the others, which `take` turns into null.
    place = pa.array(np.cumsum(usable) - 1, mask=~usable)
    kept = batch.take(pa.array(rows))
    if len(rows):
        result = codebook.quantise(join([matrix(kept.column(f"vector_{i}")) for i in range(len(weights))], weights))
        codes, distance, margin = result.codes, result.distance, result.margin
    else:
        codes = np.empty((0, codebook.levels), np.int32)
        distance = margin = np.empty(0, np.float32)
    sids = format_sids(codes).take(place)
    offsets = pa.array(np.arange(len(codes) + 1, dtype=np.int32) * codebook.levels)
    columns = {
        "product_id": batch.column("product_id"),
        "base_sid": sids,
        "published_sid": sids,
        "codes": pa.ListArray.from_arrays(offsets, pa.array(codes.ravel(), pa.int32())).take(place),
        "distance": pa.array(distance, pa.float32()).take(place),
        "margin": pa.array(margin, pa.float32()).take(place),
        "reason": reason,
        "text_hash": batch.column("text_hash"),
    }
    return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


def format_sids(codes: np.ndarray) -> pa.Array:
    """Codes (N, levels) as strings `c1_c2_c3_c4`."""
    levels = [pa.array(codes[:, level]).cast(pa.string()) for level in range(codes.shape[1])]
    return pc.binary_join_element_wise(*levels, "_")
