"""Embedding many texts: streamed from Parquet, spooled to Parquet, committed about once a minute.

A kill loses at most the texts since the last commit; the next run asks the store which texts are left.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from tqdm import tqdm

from sid_pipeline.embedding.vectors import binary, vector_faults
from sid_pipeline.embedding.workers import devices, encoders
from sid_pipeline.schemas import EMBEDDINGS
from sid_pipeline.settings import EmbedderSettings

# Long enough that sorting by length inside a chunk wastes little padding, short enough to show progress.
CHUNK = 2048
COMMIT_SECONDS = 60.0


@dataclass
class Work:
    """What a run did.

    Attributes:
        texts: encoded.
        faulty: of them, texts whose vector cannot be used.
        seconds: from loading the model to the last commit.
        tokens, padded: of the texts, and those the model worked through; 0 where they are not counted.
    """

    texts: int = 0
    faulty: int = 0
    seconds: float = 0.0
    tokens: int = 0
    padded: int = 0

    @property
    def padding(self) -> float:
        """Share of the model's work that was padding."""
        return 1 - self.tokens / self.padded if self.padded else 0.0


def embed(
    texts: Path,
    spool: Path,
    settings: EmbedderSettings,
    root: Path,
    commit: Callable[[list[Path]], None],
    *,
    workers: int | None = None,
    commit_seconds: float = COMMIT_SECONDS,
) -> Work:
    """Embed every text of a Parquet folder and hand finished files to `commit`.

    Args:
        texts: folder with columns text_hash and text, each hash once.
        spool: empty folder for the finished files; a file is removed when it is committed.
        settings, root: of the embedder, see `Embedder.load`.
        commit: called with files of columns text_hash, vector and fault (`EMBEDDINGS` without its partition).
        workers: processes at most, see `workers.devices`.
        commit_seconds: how much work a kill may lose.

    Raises:
        ModelError: the model cannot be loaded.
    """
    started = time.monotonic()
    source = ds.dataset(texts, format="parquet")
    total = source.count_rows()
    work = Work()
    if total == 0:
        return work
    read: list[pa.Array] = []

    def chunks() -> Iterator[list[str]]:
        for table in _chunks(source):
            read.append(table["text_hash"])
            yield table["text"].to_pylist()

    pending: list[Path] = []
    last_commit = started
    with (
        encoders(settings, root, devices(settings, workers, total)) as encode,
        tqdm(total=total, desc="embedding", unit=" texts") as bar,
    ):
        for number, part in enumerate(encode(chunks())):
            faults = vector_faults(part.vectors)
            file = spool / f"{number:06d}.parquet"
            pq.write_table(vector_table(read.pop(0), binary(part.vectors, faults), faults), file, compression="zstd")
            pending.append(file)
            work.texts += len(part.vectors)
            work.faulty += sum(fault is not None for fault in faults)
            work.tokens += part.tokens
            work.padded += part.padded
            bar.update(len(part.vectors))
            if time.monotonic() - last_commit > commit_seconds:
                _hand_over(pending, commit)
                last_commit = time.monotonic()
    if pending:
        _hand_over(pending, commit)
    work.seconds = time.monotonic() - started
    return work


def vector_table(hashes: pa.Array, vectors: pa.Array, faults: list[str | None]) -> pa.Table:
    """Rows of EMBEDDINGS without the partition column."""
    return pa.table(
        {"text_hash": hashes, "vector": vectors, "fault": faults}, schema=EMBEDDINGS.arrow(without=("embedder_id",))
    )


def _hand_over(files: list[Path], commit: Callable[[list[Path]], None]) -> None:
    commit(list(files))
    for file in files:
        file.unlink()
    files.clear()


def _chunks(source: ds.Dataset) -> Iterator[pa.Table]:
    """Tables of CHUNK rows, the last one shorter, whatever the files' own batches are."""
    held: list[pa.RecordBatch] = []
    rows = 0
    for batch in _batches(source.files):
        held.append(batch)
        rows += len(batch)
        if rows >= CHUNK:
            table = pa.Table.from_batches(held)
            yield table.slice(0, CHUNK).combine_chunks()
            rest = table.slice(CHUNK)
            held, rows = rest.to_batches(), len(rest)
    if rows:
        yield pa.Table.from_batches(held).combine_chunks()


def _batches(files: list[str]) -> Iterator[pa.RecordBatch]:
    """Row group by row group as they are asked for: a dataset's scanner reads ahead of a slow reader, whole files."""
    for file in files:
        with pq.ParquetFile(file) as opened:
            yield from opened.iter_batches(CHUNK, columns=["text_hash", "text"], use_threads=False)
