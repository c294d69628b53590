"""Vectors that a user brings instead of a model: a table of product_id and vector, judged row by row in Spark.

A vector is keyed by the hash of its bytes, as a text is by its own, so an unchanged one costs nothing the next night.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from sid_pipeline.embedding.vectors import binary, unit, vector_faults
from sid_pipeline.ingest.errors import InputError
from sid_pipeline.ingest.text import float_text

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

DDL = "product_id string, text_hash string, vector binary, fault string"
SCHEMA = pa.schema(
    [("product_id", pa.string()), ("text_hash", pa.string()), ("vector", pa.binary()), ("fault", pa.string())]
)
MISSING = "the table of vectors has no row for this product"
REPEATED = "the table of vectors has several vectors for this product"


def supplied_vectors(spark: SparkSession, location: str, dimension: int, products: DataFrame) -> DataFrame:
    """A snapshot's products with the vectors of a user's table.

    Args:
        spark: the session.
        location: of a Parquet file or folder, or of a Delta table, with columns product_id (string or number) and
            vector (a list of numbers, or little-endian float32 bytes).
        dimension: that the vectors must have.
        products: product_id, each once.

    Returns:
        product_id, text_hash, vector (unit length) and fault: a row for every product, the vector null where the
        table has none, several different ones, or one that is zero, not finite or of another size.

    Raises:
        InputError: the table cannot be read or lacks a column.
    """
    from pyspark.sql import functions as F

    given = _read(spark, location)
    known = given.join(products, "product_id", "left_semi").distinct()
    counted = known.groupBy("product_id").agg(F.count("*").alias("n"), F.first("vector").alias("vector"))
    joined = products.select("product_id").join(counted, "product_id", "left")
    return joined.mapInArrow(_judge(dimension), DDL)


def _read(spark: SparkSession, location: str) -> DataFrame:
    """product_id string and vector array<float> or binary."""
    from pyspark.errors import PySparkException
    from pyspark.sql import functions as F
    from pyspark.sql.types import ArrayType, BinaryType, DoubleType, FloatType, NumericType

    delta = spark.read.format("delta")
    reader = spark.read.parquet if location.endswith((".parquet", ".pq")) else delta.load
    try:
        table = reader(location)
        columns = {field.name: field.dataType for field in table.schema.fields}
    except PySparkException as error:
        raise InputError(
            f"the vectors at {location} cannot be read as Parquet (name ending in .parquet) or as a Delta table: "
            f"{str(error).splitlines()[0]}. Mend embedders.<name>.vectors"
        ) from error
    missing = [name for name in ("product_id", "vector") if name not in columns]
    if missing:
        raise InputError(f"the vectors at {location} have no column {', '.join(missing)} (they have {sorted(columns)})")
    kind = columns["vector"]
    numbers = isinstance(kind, ArrayType) and isinstance(kind.elementType, NumericType)
    if not numbers and not isinstance(kind, BinaryType):
        raise InputError(
            f"column vector of {location} is {kind.simpleString()}: make it a list of numbers, or little-endian float32"
        )
    vector = F.col("vector").cast("array<float>") if numbers else F.col("vector")
    key = F.col("product_id")
    key = float_text(key) if isinstance(columns["product_id"], (FloatType, DoubleType)) else key.cast("string")
    return table.select(key.alias("product_id"), vector.alias("vector"))


def _judge(dimension: int):
    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            yield _judge_batch(batch, dimension)

    return run


def _judge_batch(batch: pa.RecordBatch, dimension: int) -> pa.RecordBatch:
    vectors = np.zeros((len(batch), dimension), np.float32)
    found: list[str | None] = [None] * len(batch)
    for row, (count, value) in enumerate(zip(batch["n"].to_pylist(), _values(batch["vector"]), strict=True)):
        if count is None or value is None:
            found[row] = MISSING
        elif count > 1:
            found[row] = REPEATED
        elif len(value) != dimension:
            found[row] = f"the vector has {len(value)} values where {dimension} are expected"
        else:
            vectors[row] = value
    faults = [fault or other for fault, other in zip(found, vector_faults(vectors), strict=True)]
    vectors = unit(vectors)
    hashes = [
        hashlib.sha256(f"{product}\n{fault}".encode() if fault else vector.tobytes()).hexdigest()
        for product, fault, vector in zip(batch["product_id"].to_pylist(), faults, vectors, strict=True)
    ]
    columns = [batch["product_id"], pa.array(hashes), binary(vectors, faults), pa.array(faults, pa.string())]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def _values(column: pa.Array) -> list[np.ndarray | None]:
    """Each row's vector as float32, whatever its size."""
    if pa.types.is_binary(column.type):
        return [None if raw is None else _from_bytes(raw) for raw in column.to_pylist()]
    flat = column.values.to_numpy(zero_copy_only=False).astype(np.float32)
    starts = column.offsets.to_numpy()
    parts = zip(starts[:-1], starts[1:], column.is_valid().to_pylist(), strict=True)
    return [flat[start:end] if valid else None for start, end, valid in parts]


def _from_bytes(raw: bytes) -> np.ndarray:
    return np.frombuffer(raw, "<f4") if len(raw) % 4 == 0 else np.empty(0, np.float32)
