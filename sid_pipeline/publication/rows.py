"""Rows on their way into a publication: streams of Arrow tables, and the one Parquet writer of all consumer files.

A stream is an iterator of tables in the order of its key; however many rows it has, one table of it is in memory at a
time. The writer cuts rows into groups of its own, so the same rows in the same order give the same bytes, whoever
staged them and in however many pieces. What does not belong here: what the rows mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sid_pipeline.publication.folder import PublicationError
from sid_pipeline.publication.store import Store
from sid_pipeline.sids import codes_of

ROWS_PER_GROUP = 1 << 17


def staged(folder: Path) -> Iterator[pa.Table]:
    """A sorted table that Spark wrote as a folder of Parquet parts, in the order of the parts."""
    for part in sorted(folder.glob("*.parquet")):
        with pq.ParquetFile(part) as file:
            yield from _tables(file)


def published(store: Store, path: str) -> Iterator[pa.Table]:
    """A consumer file."""
    with store.open(path) as source, pq.ParquetFile(source) as file:
        yield from _tables(file)


def written(path: Path) -> Iterator[pa.Table]:
    """A consumer file of a publication in the making."""
    with pq.ParquetFile(path) as file:
        yield from _tables(file)


def _tables(file: pq.ParquetFile) -> Iterator[pa.Table]:
    for batch in file.iter_batches(ROWS_PER_GROUP):
        if batch.num_rows:
            yield pa.Table.from_batches([batch])


def write(path: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> int:
    """Write a stream as one Parquet file with a fixed layout and no timestamps; returns the number of rows."""
    rows = 0
    # No Arrow schema in the footer and nothing that depends on how the rows arrived.
    with pq.ParquetWriter(path, schema, compression="zstd", compression_level=3, store_schema=False) as writer:
        waiting: list[pa.Table] = []
        have = 0
        for table in tables:
            waiting.append(table.select(schema.names).cast(schema))
            have += table.num_rows
            while have >= ROWS_PER_GROUP:
                whole = pa.concat_tables(waiting)
                writer.write_table(whole.slice(0, ROWS_PER_GROUP).combine_chunks())
                waiting, have = [whole.slice(ROWS_PER_GROUP)], have - ROWS_PER_GROUP
                rows += ROWS_PER_GROUP
        if have:
            writer.write_table(pa.concat_tables(waiting).combine_chunks())
            rows += have
    return rows


def select(tables: Iterable[pa.Table], wanted: Callable[[pa.Table], pa.Array | pa.ChunkedArray]) -> Iterator[pa.Table]:
    """The rows of a stream for which `wanted` gives true."""
    for table in tables:
        yield table.filter(wanted(table))


def strictly_ascending(tables: Iterable[pa.Table], column: str) -> Iterator[pa.Table]:
    """Pass a stream through, and make sure that a column only rises.

    Raises:
        PublicationError: a value comes twice or out of order; the message names it.
    """
    last: str | None = None
    for table in tables:
        values = table[column].combine_chunks()
        if last is not None:
            values = pa.concat_arrays([pa.array([last], values.type), values])
        fine = pc.less(values[:-1], values[1:])
        if not pc.all(fine, min_count=0).as_py():
            place = pc.index(pc.fill_null(fine, False), False).as_py()
            raise PublicationError(
                f"{column} {values[place + 1].as_py()!r} comes twice or out of order: every product has exactly one "
                "row; materialise semantic_ids again"
            )
        last = values[-1].as_py()
        yield table


def sid_codes(sids: pa.Array | pa.ChunkedArray, sizes: list[int]) -> NDArray[np.int32]:
    """SIDs as codes (N, len(sizes)); the last level may be unbounded (size 0).

    Raises:
        PublicationError: a SID of another number of codes, or a code outside its level; the message names it.
    """
    try:
        codes = codes_of(sids, len(sizes))
    except ValueError as error:
        raise PublicationError(str(error)) from error
    limits = np.array([size or np.iinfo(np.int32).max for size in sizes])
    outside = ((codes < 0) | (codes >= limits)).any(axis=1)
    if outside.any():
        raise PublicationError(f"the SID {sids[int(outside.argmax())].as_py()!r} has a code outside of {sizes}")
    return codes


def aligned(
    left: Iterable[pa.Table], right: Iterable[pa.Table], key: str = "product_id"
) -> Iterator[tuple[pa.Table | None, pa.Table | None]]:
    """Two streams that rise strictly in `key`, cut into pairs of tables that cover the same range of it.

    Where one stream has no row in a range, its side is None.
    """
    streams = (iter(left), iter(right))
    heads: list[pa.Table | None] = [None, None]
    while True:
        for side, stream in enumerate(streams):
            if heads[side] is None:
                heads[side] = next((table for table in stream if table.num_rows), None)
        first, second = heads
        if first is None and second is None:
            return
        if first is None or second is None:
            yield first, second
            heads = [None, None]
            continue
        bound = min(first[key][-1].as_py(), second[key][-1].as_py())
        pair: list[pa.Table | None] = []
        for side, table in enumerate((first, second)):
            inside = pc.sum(pc.less_equal(table[key], bound)).as_py()
            pair.append(table.slice(0, inside) if inside else None)
            heads[side] = table.slice(inside) if inside < table.num_rows else None
        yield pair[0], pair[1]
