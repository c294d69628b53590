"""Parquet files read by Spark's Python workers themselves, batch by batch, for tables on a disk that all of them see.

Spark decodes a column of vectors into rows of the JVM and writes those as Arrow for Python, which takes several times
as long as reading the file, and memory for each copy. Here the JVM hands out names of files. Needs pyarrow alone, as it
runs where the rest of the project may not be installed. What does not belong here: which files a table consists of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

Batches = Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]

TASK_BYTES = 64 << 20
BATCH_BYTES = 16 << 20  # of a batch that a worker holds, by the file's own account of its rows
BATCH_ROWS = 10_000
_BUFFER = 1 << 20


class File(NamedTuple):
    """A file's path, its size in bytes and its number of rows."""

    path: str
    size: int
    rows: int


@dataclass(frozen=True)
class Piece:
    """A file, or some row groups of it, of so many bytes."""

    path: str
    size: int
    groups: tuple[int, ...] | None = None


def map_files(
    spark: SparkSession,
    files: Sequence[File],
    schema: pa.Schema,
    function: Batches,
    ddl: str,
    keys: pa.Array | None = None,
) -> DataFrame:
    """What `function` makes of the rows of files, worked out in the workers.

    Args:
        files: where the rows are.
        schema: the columns to read; null where a file lacks one.
        function: as for `DataFrame.mapInArrow`.
        ddl: the columns it gives.
        keys: only rows whose first column is one of these.
    """
    if keys is not None and not len(keys):
        files = ()
    plan = share_out([piece for file in files for piece in _pieces(*file)])
    # Spark judges by the rows that go in how much will come out, and would send a large table to every worker.
    rows = len(keys) if keys is not None else sum(file.rows for file in files)
    each = max(1, -(-rows // max(len(plan), 1)))

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            first, after = batch.column(0)[0].as_py(), batch.column(0)[-1].as_py() + 1
            for task in range(-(-first // each), -(-after // each)):
                yield from function(read(plan[task], schema, keys))

    return spark.range(0, len(plan) * each, 1, max(len(plan), 1)).mapInArrow(run, ddl)


def count_rows(folder: Path) -> int:
    """The rows of a folder of Parquet files."""
    import pyarrow.dataset as ds

    return ds.dataset(folder, format="parquet").count_rows()


def share_out(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """Pieces by task, `TASK_BYTES` each or a little more, whole pieces; the same for the same pieces."""
    plan: list[list[Piece]] = []
    room = 0
    for piece in sorted(pieces, key=lambda piece: (-piece.size, piece.path, piece.groups or ())):
        if room <= 0:
            plan.append([])
            room = TASK_BYTES
        plan[-1].append(piece)
        room -= piece.size
    return plan


def read(pieces: Sequence[Piece], schema: pa.Schema, keys: pa.Array | None = None) -> Iterator[pa.RecordBatch]:
    """The rows of pieces in batches; with `keys`, other columns are read only where a row group has one of them."""
    first = schema.names[0]
    for piece in pieces:
        with pq.ParquetFile(piece.path, buffer_size=_BUFFER, pre_buffer=False) as file:
            there = [name for name in schema.names if name in file.schema_arrow.names]
            for group in range(file.num_row_groups) if piece.groups is None else piece.groups:
                wanted = None
                if keys is not None:
                    known = file.read_row_group(group, columns=[first], use_threads=False)[first]
                    wanted = pc.is_in(known, value_set=keys).combine_chunks()
                    if not pc.any(wanted).as_py():
                        continue
                rows, done = _rows_at_once(file.metadata.row_group(group)), 0
                for batch in file.iter_batches(rows, row_groups=[group], columns=there, use_threads=False):
                    found = batch if wanted is None else batch.filter(wanted.slice(done, len(batch)))
                    done += len(batch)
                    if len(found):
                        yield _conform(found, schema)


def _pieces(path: str, size: int, rows: int) -> list[Piece]:
    """A small file whole, a large one by row groups, so that several workers can share it."""
    if size <= 2 * TASK_BYTES:
        return [Piece(path, size)]
    with pq.ParquetFile(path) as file:
        sizes = [file.metadata.row_group(group).total_byte_size for group in range(file.num_row_groups)]
    return [Piece(path, each, (group,)) for group, each in enumerate(sizes)]


def _rows_at_once(group: pq.RowGroupMetaData) -> int:
    size = sum(group.column(i).total_uncompressed_size for i in range(group.num_columns))
    return max(1, min(BATCH_ROWS, BATCH_BYTES * group.num_rows // max(size, 1)))


def _conform(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    columns = [
        batch.column(field.name).cast(field.type)
        if field.name in batch.schema.names
        else pa.nulls(len(batch), field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)
