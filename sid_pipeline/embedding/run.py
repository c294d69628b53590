"""Embedding many texts: streamed from Parquet, spooled to Parquet, committed about once a minute.

A kill loses at most the texts since the last commit; the next run asks the store which texts are left.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from tqdm import tqdm

from sid_pipeline.embedding.model import Embedder, vector_faults
from sid_pipeline.schemas import EMBEDDINGS

# Long enough that sorting by length inside a chunk wastes little padding, short enough to show progress.
CHUNK = 2048
COMMIT_SECONDS = 60.0


def embed(
    texts: Path,
    spool: Path,
    embedder: Embedder,
    commit: Callable[[list[Path]], None],
    *,
    commit_seconds: float = COMMIT_SECONDS,
) -> int:
    """Embed every text of a Parquet folder and hand finished files to `commit`.

    Args:
        texts: folder with columns text_hash and text, each hash once.
        spool: empty folder for the finished files.
        embedder: the loaded model.
        commit: called with files of columns text_hash, vector and fault (`EMBEDDINGS` without its partition).
        commit_seconds: how much work a kill may lose.

    Returns:
        Number of texts embedded.
    """
    source = ds.dataset(texts, format="parquet")
    total = source.count_rows()
    pending: list[Path] = []
    last_commit = time.monotonic()
    with tqdm(total=total, desc=f"embedding with {embedder.id}", unit=" texts", disable=total == 0) as bar:
        for number, batch in enumerate(_chunks(source)):
            file = spool / f"{number:06d}.parquet"
            pq.write_table(_vectors(batch, embedder), file, compression="zstd")
            pending.append(file)
            bar.update(len(batch))
            if time.monotonic() - last_commit > commit_seconds:
                commit(pending)
                pending, last_commit = [], time.monotonic()
    if pending:
        commit(pending)
    return total


def _chunks(source: ds.Dataset) -> Iterator[pa.Table]:
    """Tables of up to CHUNK rows, whatever the files' own batches are."""
    held: list[pa.RecordBatch] = []
    rows = 0
    for batch in source.to_batches(columns=["text_hash", "text"], batch_size=CHUNK):
        held.append(batch)
        rows += len(batch)
        if rows >= CHUNK:
            yield pa.Table.from_batches(held)
            held, rows = [], 0
    if rows:
        yield pa.Table.from_batches(held)


def _vectors(batch: pa.Table, embedder: Embedder) -> pa.Table:
    vectors = embedder.encode(batch["text"].to_pylist())
    faults = vector_faults(vectors)
    rows = [None if fault else row.tobytes() for row, fault in zip(vectors.astype("<f4"), faults, strict=True)]
    return pa.table(
        {"text_hash": batch["text_hash"], "vector": rows, "fault": faults},
        schema=EMBEDDINGS.arrow(without=("embedder_id",)),
    )
